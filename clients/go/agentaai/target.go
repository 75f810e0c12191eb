package agentaai

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

var (
	webAddress  = regexp.MustCompile(`^(?i:https?):`)
	scheme      = regexp.MustCompile(`^(dns|unix|unix-abstract|passthrough):|://`)
	hostAndPort = regexp.MustCompile(`^(\[[^\]]+\]|[^:/\[\]]+):[0-9]+$`)

	// grpc-go has no resolver for these, and xds needs the service config that Dial replaces.
	foreign = regexp.MustCompile(`^(?:ipv4|ipv6|vsock|xds):`)

	localTarget = regexp.MustCompile(`^(?:` +
		`(?:dns:(?:///)?)?` + endpoint + `|unix(?:-abstract)?:.+` + `)$`)
)

const (
	octet    = `(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])`
	endpoint = `(?:(?i:localhost)\.?|127(?:\.` + octet + `){3}|\[::1\]):[0-9]+`
)

// checkTarget returns an error if target is not an address of a gRPC server.
func checkTarget(target string) error {
	switch {
	case target == "":
		return errors.New("agentaai: the target is empty: give host:port")
	case webAddress.MatchString(target):
		// It isn't shown: web addresses may hold passwords.
		return errors.New("agentaai: the target is a web address: give host:port, without http")
	case foreign.MatchString(target):
		return fmt.Errorf("agentaai: target %q is of a kind that this client can't connect to: give host:port", target)
	case strings.ContainsFunc(target, func(char rune) bool { return char < '!' || char > '~' }):
		return fmt.Errorf("agentaai: target %q has characters that are not part of an address: give host:port", target)
	case !scheme.MatchString(target) && !hostAndPort.MatchString(target):
		return fmt.Errorf("agentaai: target %q has no port: give host:port, or [host]:port for IPv6", target)
	}
	return nil
}

// isLocal reports whether a target is on this machine by its name alone. tests/conformance/targets.json is the table that
// the clients of all languages follow.
func isLocal(target string) bool { return localTarget.MatchString(target) }
