// The Go SDK: go run . REVISION URL, or REVISION COMMAND ARGUMENTS…
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"strings"
	"sync"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

const template = `{"messages": [{"role": "user", "content": "Please translate {{text}}"}]}`

func main() {
	ctx := context.Background()
	var mu sync.Mutex
	progress := []string{}
	client := mcp.NewClient(&mcp.Implementation{Name: "foreign", Version: "1"}, &mcp.ClientOptions{
		ProgressNotificationHandler: func(_ context.Context, request *mcp.ProgressNotificationClientRequest) {
			mu.Lock()
			defer mu.Unlock()
			progress = append(progress, request.Params.Message)
		},
	})
	var transport mcp.Transport
	if first := os.Args[2]; strings.HasPrefix(first, "http") {
		transport = &mcp.StreamableClientTransport{Endpoint: first}
	} else {
		transport = &mcp.CommandTransport{Command: exec.Command(first, os.Args[3:]...)}
	}
	session, err := client.Connect(ctx, transport, nil)
	check(err)
	listed, err := session.ListTools(ctx, nil)
	check(err)
	tools := []string{}
	for _, tool := range listed.Tools {
		tools = append(tools, tool.Name)
	}
	call := &mcp.CallToolParams{Name: tools[0], Arguments: map[string]any{"prompt_template_json": template}}
	call.SetProgressToken("one")
	refined, err := session.CallTool(ctx, call)
	check(err)
	wrong, err := session.CallTool(ctx, &mcp.CallToolParams{
		Name: tools[0], Arguments: map[string]any{"prompt_template_json": 3},
	})
	check(err)
	_, err = session.CallTool(ctx, &mcp.CallToolParams{Name: "tools.no.such.tool"})
	var unknown *jsonrpc.Error
	if !errors.As(err, &unknown) {
		log.Fatalf("an unknown tool: %v", err)
	}
	mu.Lock()
	defer mu.Unlock()
	report, err := json.Marshal(map[string]any{
		"tools":    tools,
		"progress": progress,
		"messages": refined.StructuredContent.(map[string]any)["messages"],
		"wrong":    []any{wrong.IsError, wrong.Content[0].(*mcp.TextContent).Text},
		"unknown":  unknown.Code,
	})
	check(err)
	fmt.Println(string(report))
	check(session.Close())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
