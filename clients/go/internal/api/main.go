// Api prints the public surface of package agentaai, for a report that is committed: a line that disappears from it is a
// breaking change.
package main

import (
	"fmt"
	"go/ast"
	"go/doc"
	"go/format"
	"go/parser"
	"go/token"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	log.SetFlags(0)
	if err := report(os.Stdout, "agentaai"); err != nil {
		log.Fatal(err)
	}
}

// report writes the exported declarations of the package in folder, without comments and bodies.
func report(to io.Writer, folder string) error {
	paths, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		return err
	}
	set := token.NewFileSet()
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files = append(files, file)
	}
	surface, err := doc.NewFromFiles(set, files, folder)
	if err != nil {
		return err
	}
	for _, decl := range declarations(surface) {
		if err := format.Node(to, set, decl); err != nil {
			return err
		}
		if _, err := fmt.Fprint(to, "\n\n"); err != nil {
			return err
		}
	}
	return nil
}

// declarations are those of a package in the order of its documentation.
func declarations(surface *doc.Package) []ast.Node {
	all := values(surface.Consts, surface.Vars)
	all = append(all, functions(surface.Funcs)...)
	for _, each := range surface.Types {
		all = append(all, each.Decl)
		all = append(all, values(each.Consts, each.Vars)...)
		all = append(all, functions(each.Funcs)...)
		all = append(all, functions(each.Methods)...)
	}
	return all
}

func values(groups ...[]*doc.Value) []ast.Node {
	var found []ast.Node
	for _, group := range groups {
		for _, each := range group {
			found = append(found, each.Decl)
		}
	}
	return found
}

func functions(given []*doc.Func) []ast.Node {
	var found []ast.Node
	for _, each := range given {
		found = append(found, each.Decl)
	}
	return found
}
