// Package agentaai calls Agenta AI services: the connection that they want, calls of tools with their results in native
// types, and errors that say whether a tool was run.
//
// All of it is built of what grpc-go has, and goes with the generated client of
// [github.com/Agenta-AI/agenta-ai-grpc/clients/go/agenta/ai/v1]: [Dial] returns a [grpc.ClientConn], and takes any
// [grpc.DialOption] besides those of this package.
package agentaai

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/local"
	_ "google.golang.org/grpc/health" // asks each address for its health, as the service config says
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
)

// ServiceConfig says how a connection balances, asks for health and retries.
//
// What is sent is sent again if the server is unavailable, or the connection breaks, or the server stops before it has
// begun, which comes as CANCELLED. A call of a tool keeps its request_id
// then, so that the server runs it once: see [NewRequest].
const ServiceConfig = configStart + retriedReads + "," + callStart + `"UNAVAILABLE", "CANCELLED"` + callEnd + configEnd

// WaitingServiceConfig is [ServiceConfig], with calls of tools that wait for a limit: see [WithWaitForLimit].
const WaitingServiceConfig = configStart + retriedReads + "," + callStart + `"UNAVAILABLE", "CANCELLED", "RESOURCE_EXHAUSTED"` +
	callEnd + configEnd

const configStart = `{
	"loadBalancingConfig": [{"round_robin": {}}],
	"healthCheckConfig": {"serviceName": "agenta.ai.v1.ToolService"},
	"methodConfig": [`

const configEnd = `]}`

const retriedReads = `{
	"name": [
		{"service": "agenta.ai.v1.ToolService", "method": "Status"},
		{"service": "agenta.ai.v1.ToolService", "method": "ListTools"}
	],
	"retryPolicy": {
		"maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
		"retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"]
	}
}`

// The server sends grpc-retry-pushback-ms with a refusal, which counts instead of the backoff. More than five attempts are
// not made by gRPC.
const callStart = `{
	"name": [{"service": "agenta.ai.v1.ToolService", "method": "CallTool"}],
	"retryPolicy": {
		"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
		"retryableStatusCodes": [`

const callEnd = `]
	}
}`

// Dial makes a connection to target, "host:port" or any name that gRPC knows, such as "unix:/run/agenta.sock". It is
// opened by its first call, and serves many at once.
//
// Without an option that says otherwise, it is in plaintext to a loopback address or a Unix socket, and has TLS with the
// system's certificate authorities to any other; it has [ServiceConfig]. Use [grpc.WithTransportCredentials] for other
// authorities or a certificate of your own.
func Dial(target string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	transport := credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	if isLocal(target) {
		// Plaintext that refuses to talk to another machine, whatever the name may resolve to.
		transport = local.NewCredentials()
	}
	defaults := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(ServiceConfig),
		// A record in the DNS can't change what is retried.
		grpc.WithDisableServiceConfig(),
		grpc.WithUserAgent("agenta-ai-go"),
		// Sooner than the last retry, or a server that has just restarted is found too late.
		grpc.WithConnectParams(connectParams()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 30 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true,
		}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(16<<20),
			// A request that doesn't fit is never sent again. The default is 256 KiB, the largest request 1 MiB.
			grpc.MaxRetryRPCBufferSize(2<<20),
		),
	}
	return grpc.NewClient(target, append(defaults, options...)...)
}

func connectParams() grpc.ConnectParams {
	again := backoff.DefaultConfig
	again.BaseDelay = 200 * time.Millisecond
	return grpc.ConnectParams{Backoff: again, MinConnectTimeout: 20 * time.Second}
}

// WithWaitForLimit makes a call of a tool that a rate limit refuses wait as long as the server says, and then sends it
// again: within its deadline, and four times at most. Where the wait would outlast the deadline, it fails at once. A
// refused call runs no tool, so none is paid for twice.
func WithWaitForLimit() grpc.DialOption {
	return grpc.WithDefaultServiceConfig(WaitingServiceConfig)
}

// WithAPIKey sends a key with every call, one of the server's, "aai_…", or of Agenta. An empty one is not sent.
//
// The key never leaves this machine in plaintext. Calls fail with UNAUTHENTICATED instead, and so they do with
// [google.golang.org/grpc/credentials/insecure], which doesn't know where it leads: leave plaintext to [Dial].
func WithAPIKey(key string) grpc.DialOption {
	if key == "" {
		return grpc.EmptyDialOption{}
	}
	return grpc.WithPerRPCCredentials(apiKey(key))
}

type apiKey string

var (
	errPlaintext = errors.New("the API key is not sent in plaintext to another machine: use TLS")
	errKey       = errors.New("the API key holds blanks, a newline or other characters that can't be sent")
)

func (key apiKey) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	connection, _ := credentials.RequestInfoFromContext(ctx)
	err := key.check(connection.AuthInfo)
	if err == nil {
		return map[string]string{"authorization": "ApiKey " + string(key)}, nil
	}
	// Without the check of its health, which needs no key, a connection never becomes ready, and the calls to fail wait for it.
	if connection.Method == healthpb.Health_Watch_FullMethodName {
		return nil, nil
	}
	return nil, err
}

func (key apiKey) check(connection credentials.AuthInfo) error {
	if !isPrivate(connection) {
		return errPlaintext
	}
	if strings.ContainsFunc(string(key), func(char rune) bool { return char < '!' || char > '~' }) {
		return errKey
	}
	return nil
}

// RequireTransportSecurity is false for the sake of loopback: GetRequestMetadata looks at the connection itself.
func (apiKey) RequireTransportSecurity() bool { return false }

// String keeps the key out of logs.
func (apiKey) String() string { return "API key" }

// isPrivate says whether nobody on a network can read along: there is TLS, or no network.
func isPrivate(connection credentials.AuthInfo) bool {
	if connection == nil {
		return false
	}
	return connection.AuthType() == "local" ||
		credentials.CheckSecurityLevel(connection, credentials.PrivacyAndIntegrity) == nil
}

// isLocal says whether a target is on this machine by its name alone.
func isLocal(target string) bool {
	if strings.HasPrefix(target, "unix:") || strings.HasPrefix(target, "unix-abstract:") {
		return true
	}
	if _, address, found := strings.Cut(target, ":///"); found {
		target = address
	}
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		host = target
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
