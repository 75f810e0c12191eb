// Package agentaai calls Agenta AI services: it opens the connection, calls tools with native types, and returns errors
// that say whether a tool was run.
//
// It is built on grpc-go and works together with the generated client of
// [github.com/Agenta-AI/agenta-ai-grpc/clients/go/agenta/ai/v1]: a [Conn] is a [grpc.ClientConnInterface], and [Dial]
// takes any [grpc.DialOption] besides those of this package.
package agentaai

import (
	"context"
	"crypto/tls"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/local"
	_ "google.golang.org/grpc/health" // checks the health of each address, as the service config asks
	"google.golang.org/grpc/keepalive"
)

// Version is the version of this client. It is part of the user agent.
const Version = "0.1.0"

// Option is a [grpc.DialOption] of this package. Only [Dial] understands it: [grpc.NewClient] ignores it.
type Option struct {
	grpc.EmptyDialOption
	apply func(*settings)
}

// settings are what the options of this package set.
type settings struct {
	credentials  []perCall
	waitForLimit bool
	retries      bool
}

// WithWaitForLimit makes a call that a rate limit refuses (reason RATE_LIMITED) wait as long as the server says, plus a
// random delay of up to half of that, and then sends it again with the same request_id, until the deadline. If the wait
// would outlast the deadline, the call fails at once. A refused call runs no tool, so nothing is billed twice.
func WithWaitForLimit() Option {
	return Option{apply: func(s *settings) { s.waitForLimit = true }}
}

// WithoutRetries switches automatic retries off: each call is sent once. It doesn't affect [WithWaitForLimit].
func WithoutRetries() Option {
	return Option{apply: func(s *settings) { s.retries = false }}
}

// Dial returns a connection to target: "host:port", "unix:/run/agenta.sock", "unix-abstract:name", or a target whose scheme,
// other than xds, has a resolver that the program has registered or given by [grpc.WithResolvers]. The first call opens it. One
// connection serves many concurrent calls.
//
// By default it is in plaintext to a local target (localhost, 127.0.0.0/8, ::1, a Unix socket) and over TLS with the
// system's certificate authorities to any other. Use [grpc.WithTransportCredentials] for other authorities or for a client
// certificate. Its load balancing and retries are those of [ServiceConfig]: Dial fails if options contain [grpc.WithDefaultServiceConfig],
// which would replace it.
//
// Dial fails if target is not an address or a credential can't be sent.
func Dial(target string, options ...grpc.DialOption) (*Conn, error) {
	set := settings{retries: true}
	var theirs []grpc.DialOption
	for _, option := range options {
		if ours, ok := option.(Option); ok {
			if ours.apply != nil { // the zero value
				ours.apply(&set)
			}
		} else {
			theirs = append(theirs, option)
		}
	}
	if err := checkTarget(target, theirs); err != nil {
		return nil, err
	}
	if err := checkServiceConfig(theirs); err != nil {
		return nil, err
	}
	all := append(defaults(target, set.retries), theirs...)
	if len(set.credentials) > 1 {
		return nil, errors.New("agentaai: give only one of WithAPIKey, WithToken and WithTokenSource")
	}
	for _, caller := range set.credentials {
		if err := caller.check(); err != nil {
			return nil, err
		}
		all = append(all, grpc.WithPerRPCCredentials(caller))
	}
	conn, err := grpc.NewClient(target, all...)
	if err != nil {
		return nil, err
	}
	closing, closed := context.WithCancelCause(context.Background())
	made := &Conn{conn: conn, waitForLimit: set.waitForLimit, closing: closing, closed: closed}
	if set.retries {
		made.streamPolicy = streamPolicy
	}
	return made, nil
}

func defaults(target string, retries bool) []grpc.DialOption {
	again := backoff.DefaultConfig
	// The first reconnect comes before the last retry of a call, so that a server that has just restarted is found in time.
	again.BaseDelay = 200 * time.Millisecond
	// Each tool call's attempts include a new attempt to connect, however long the server was away. The default is two minutes.
	again.MaxDelay = time.Second
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})),
		grpc.WithDefaultServiceConfig(retriedServiceConfig),
		// A DNS record can't change the service config.
		grpc.WithDisableServiceConfig(),
		grpc.WithUserAgent("agenta-ai-go/" + Version),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: again, MinConnectTimeout: 20 * time.Second}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 30 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true,
		}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(16<<20),
			// A request that doesn't fit is never retried. The default is 256 KiB, the largest request 1 MiB.
			grpc.MaxRetryRPCBufferSize(2<<20),
		),
		grpc.WithStatsHandler(recorder{}),
	}
	if isLocal(target) {
		// local.NewCredentials is plaintext that refuses to talk to another machine, whatever the name resolves to.
		options = append(options, grpc.WithTransportCredentials(local.NewCredentials()), grpc.WithNoProxy())
	}
	if !retries {
		options = append(options, grpc.WithDefaultServiceConfig(unretriedServiceConfig), grpc.WithDisableRetry())
	}
	return options
}

// checkServiceConfig refuses options that replace our service config. A dial option can't be looked into, but the last
// service config wins: if the options have none, an invalid one before them is an error.
func checkServiceConfig(options []grpc.DialOption) error {
	probe := append([]grpc.DialOption{
		grpc.WithTransportCredentials(credentials.NewTLS(nil)), grpc.WithDefaultServiceConfig("invalid"),
	}, options...)
	conn, err := grpc.NewClient("passthrough:///", probe...)
	if err != nil {
		return nil // Either ours was in effect, or Dial reports the same error again.
	}
	_ = conn.Close()
	return errors.New("agentaai: grpc.WithDefaultServiceConfig would replace the load balancing and retries of this " +
		"client: remove it; WithoutRetries switches retries off")
}
