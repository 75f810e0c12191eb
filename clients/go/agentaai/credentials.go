package agentaai

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// maxCredentialLength is the most characters of a key or token that the server accepts.
const maxCredentialLength = 8192

var errPlaintext = errors.New("credentials are not sent over an insecure connection: use TLS, " +
	"or leave out grpc.WithTransportCredentials for a server on this machine")

// TokenSource returns the bearer token of a call. It is called for each attempt, on a connection that is ready, and should
// cache a token until it expires. It may be called concurrently. Its time counts towards the call's deadline: it must return
// when ctx is done, because the call doesn't end before.
type TokenSource func(ctx context.Context) (string, error)

// WithAPIKey sends a key with every call: one of the server, "aai_…", or of Agenta. An empty key is not sent.
//
// Credentials never leave this machine in plaintext: a call over such a connection fails with UNAUTHENTICATED and nothing
// is sent. That includes [google.golang.org/grpc/credentials/insecure], which doesn't know where a connection leads.
func WithAPIKey(key string) Option {
	return withCredential(key, "API key", "ApiKey ")
}

// WithToken sends a bearer token with every call. An empty token is not sent. See [WithAPIKey] for where it is sent, and
// [WithTokenSource] for tokens that expire.
func WithToken(token string) Option {
	return withCredential(token, "token", "Bearer ")
}

// WithTokenSource sends the bearer token that source returns. If source fails, the call fails with a [*CallError] that
// wraps its error, and nothing is sent. See [WithAPIKey] for where it is sent.
func WithTokenSource(source TokenSource) Option {
	return Option{apply: func(s *settings) {
		s.credentials = append(s.credentials, perCall{kind: "token of the token source", scheme: "Bearer ", source: source})
	}}
}

func withCredential(value, kind, scheme string) Option {
	return Option{apply: func(s *settings) {
		if value != "" {
			fixed := func(context.Context) (string, error) { return value, nil }
			s.credentials = append(s.credentials, perCall{kind: kind, scheme: scheme, source: fixed, fixed: true})
		}
	}}
}

// perCall is a [credentials.PerRPCCredentials] that checks the connection itself, for the sake of local ones.
type perCall struct {
	kind   string // what to call it in an error
	scheme string
	source TokenSource
	fixed  bool
}

// check returns an error if a credential that is known beforehand can't be sent.
func (c perCall) check() error {
	if c.source == nil {
		return errors.New("agentaai: the token source is nil")
	}
	if !c.fixed {
		return nil
	}
	value, _ := c.source(context.Background())
	if err := c.sendable(value); err != nil {
		return fmt.Errorf("agentaai: %w", err)
	}
	return nil
}

func (c perCall) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	connection, _ := credentials.RequestInfoFromContext(ctx)
	// The health check needs no credentials. Without it a connection never becomes ready, and the calls that are to fail
	// would wait for it.
	if connection.Method == healthpb.Health_Watch_FullMethodName {
		return nil, nil
	}
	value, err := c.value(ctx, connection.AuthInfo)
	if err != nil {
		if call := historyOf(ctx); call != nil {
			call.credentialsFailed(err)
		}
		if ctx.Err() != nil { // gRPC would say UNAUTHENTICATED
			return nil, status.Error(status.FromContextError(ctx.Err()).Code(), err.Error())
		}
		return nil, err
	}
	return map[string]string{"authorization": c.scheme + value}, nil
}

func (c perCall) value(ctx context.Context, connection credentials.AuthInfo) (string, error) {
	if !isPrivate(connection) {
		return "", errPlaintext
	}
	value, err := c.source(ctx)
	if err != nil {
		return "", fmt.Errorf("the token source failed: %w", err)
	}
	return value, c.sendable(value)
}

// sendable returns an error, which doesn't show the value, if it can't be sent.
func (c perCall) sendable(value string) error {
	if len(value) == 0 || len(value) > maxCredentialLength {
		return fmt.Errorf("the %s must have 1 to %d characters", c.kind, maxCredentialLength)
	}
	for _, char := range []byte(value) {
		if char < '!' || char > '~' {
			return fmt.Errorf("the %s has blanks, a newline or other characters that can't be sent", c.kind)
		}
	}
	return nil
}

// RequireTransportSecurity is false for local connections: GetRequestMetadata checks the connection itself.
func (perCall) RequireTransportSecurity() bool { return false }

// String keeps the credential out of logs.
func (c perCall) String() string { return c.kind }

// GoString keeps the credential out of logs.
func (c perCall) GoString() string { return c.kind }

// isPrivate reports whether nobody on a network can read along: there is TLS, or no network.
func isPrivate(connection credentials.AuthInfo) bool {
	if connection == nil {
		return false
	}
	return connection.AuthType() == "local" ||
		credentials.CheckSecurityLevel(connection, credentials.PrivacyAndIntegrity) == nil
}

var _ grpc.DialOption = Option{}
