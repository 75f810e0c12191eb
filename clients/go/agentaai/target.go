package agentaai

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

const (
	port     = `(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])`
	octet    = `(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])`
	endpoint = `(?:[0-9A-Za-z_.-]+|\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[0-9A-Za-z_.~-]+)?\]):` + port
	loopback = `(?:(?i:localhost)\.?|127(?:\.` + octet + `){3}|\[::1\]):` + port
)

var (
	webAddress  = regexp.MustCompile(`^(?i:https?):`)
	scheme      = regexp.MustCompile(`^([a-z][a-z0-9+.-]*):`)
	hostAndPort = regexp.MustCompile(`^` + endpoint + `$`)

	// The schemes of grpc-go itself, of which this client knows what follows them.
	withScheme = map[string]*regexp.Regexp{
		"dns":           regexp.MustCompile(`^dns:(?://[0-9A-Za-z_.:\[\]-]*/)?` + endpoint + `$`),
		"unix":          regexp.MustCompile(`^unix:(?:///.|/?[^/]).*$`),
		"unix-abstract": regexp.MustCompile(`^unix-abstract:/?[^/].*$`),
	}

	localTarget = regexp.MustCompile(`^(?:(?:dns:(?:///)?)?` + loopback + `|unix(?:-abstract)?:.+)$`)
)

// checkTarget returns an error if target is not an address of a gRPC server.
func checkTarget(target string, options []grpc.DialOption) error {
	shown := fmt.Sprintf("target %q", target)
	if strings.Contains(target, "@") {
		shown = "the target" // It may hold a password.
	}
	switch {
	case target == "":
		return errors.New("agentaai: the target is empty: give host:port")
	case webAddress.MatchString(target):
		// It isn't shown: web addresses may hold passwords.
		return errors.New("agentaai: the target is a web address: give host:port, without http")
	case strings.ContainsFunc(target, func(char rune) bool { return char < '!' || char > '~' }):
		return fmt.Errorf("agentaai: %s has characters that are not part of an address: give host:port", shown)
	case !isAddress(target, options):
		return fmt.Errorf("agentaai: %s is not an address that this client can connect to: "+
			"give host:port with a port from 1 to 65535, [address]:port for IPv6, or unix:path", shown)
	}
	return nil
}

func isAddress(target string, options []grpc.DialOption) bool {
	name := ""
	if found := scheme.FindStringSubmatch(target); found != nil {
		name = found[1]
	}
	if pattern := withScheme[name]; pattern != nil {
		return pattern.MatchString(target)
	}
	return hostAndPort.MatchString(target) || name != "" && isResolved(target, name, options)
}

// isResolved reports whether the program has its own resolver for a scheme. That of xds needs the service config that
// [Dial] replaces.
func isResolved(target, scheme string, options []grpc.DialOption) bool {
	// As for Dial, because credentials of a call may require TLS. Nothing connects here.
	tls := grpc.WithTransportCredentials(credentials.NewTLS(nil))
	conn, err := grpc.NewClient(target, append([]grpc.DialOption{tls}, options...)...)
	if err != nil {
		return false
	}
	defer conn.Close()
	// grpc-go treats a target with an unknown scheme as a DNS name.
	return scheme != "xds" && strings.HasPrefix(conn.CanonicalTarget(), scheme+":")
}

// isLocal reports whether a target is on this machine by its name alone. tests/conformance/targets.json is the table that
// the clients of all languages follow.
func isLocal(target string) bool { return localTarget.MatchString(target) }
