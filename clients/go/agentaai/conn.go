package agentaai

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	aiv1 "github.com/Agenta-AI/agenta-ai-grpc/clients/go/agenta/ai/v1"
)

// MaxRequestBytes is the size of the largest request, serialized. A larger one is not sent.
const MaxRequestBytes = 1 << 20

// unknownDelay is how long a limited call waits if the server doesn't say.
const unknownDelay = time.Second

// ErrClosed is wrapped by the errors of calls that [Conn.Close] ended, and of calls that are made after it.
var ErrClosed = errors.New("the client is closed")

// Conn is a connection made by [Dial]. It is safe for concurrent use. The errors of its unary calls are [*CallError], also
// those of a generated client that uses it.
type Conn struct {
	*grpc.ClientConn

	waitForLimit bool
	closing      context.Context // done when Close is called
	closed       context.CancelCauseFunc
}

// Close closes the connection. Unary calls in flight end at once with CANCELLED, and their outcome is unknown: their
// [CallError] has the request_id to ask again with. Later calls fail and send nothing. Both errors wrap [ErrClosed].
func (c *Conn) Close() error {
	c.closed(ErrClosed)
	return c.ClientConn.Close()
}

// Invoke makes a unary call: see [grpc.ClientConn.Invoke]. Generated clients use it.
func (c *Conn) Invoke(ctx context.Context, method string, request, reply any, options ...grpc.CallOption) error {
	if c.closing.Err() != nil {
		return unsentError(method, request, codes.Canceled, "The client is closed", ErrClosed)
	}
	if message, ok := request.(proto.Message); ok {
		if size := proto.Size(message); size > MaxRequestBytes {
			failure := unsentError(method, request, codes.InvalidArgument, fmt.Sprintf(
				"The request has %d bytes, and the limit is %d: shorten its arguments", size, MaxRequestBytes), nil)
			failure.Reason = aiv1.ErrorReason_ERROR_REASON_REQUEST_TOO_LARGE
			return failure
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.closing, func() { cancel(ErrClosed) })()
	for {
		failure := c.attempt(ctx, method, request, reply, options)
		if failure == nil {
			return nil
		}
		if !c.waitForLimit || !waitFor(ctx, failure) {
			return failure
		}
		if ctx.Err() != nil {
			return endedWhileWaiting(ctx, method, request)
		}
	}
}

// attempt makes the call once, gRPC's own retries included.
func (c *Conn) attempt(
	ctx context.Context, method string, request, reply any, options []grpc.CallOption,
) *CallError {
	record := new(attempt)
	var trailer metadata.MD
	options = append(options[:len(options):len(options)], grpc.Trailer(&trailer))
	err := c.ClientConn.Invoke(context.WithValue(ctx, attemptKey{}, record), method, request, reply, options...)
	if err == nil {
		return nil
	}
	failure := newCallError(err)
	failure.describe(method, request)
	failure.pushback = trailer.Get("grpc-retry-pushback-ms")
	if !record.sent.Load() {
		failure.unsent, failure.NotRun = true, true
	}
	if failure.cause = record.failure(); failure.cause == nil && ctx.Err() != nil {
		failure.cause = context.Cause(ctx)
	}
	if failure.Code == codes.Canceled && errors.Is(failure.cause, ErrClosed) {
		failure.Message = "The client was closed"
		failure.status = status.New(failure.Code, failure.Message)
	}
	return failure
}

// waitFor waits until a call that a rate limit refused may be sent again, or ctx ends. It returns false at once if
// something else refused the call, or the wait would outlast the deadline.
func waitFor(ctx context.Context, failure *CallError) bool {
	if failure.Reason != aiv1.ErrorReason_ERROR_REASON_RATE_LIMITED {
		return false
	}
	if slices.Contains(failure.pushback, "-1") {
		return false
	}
	delay := failure.RetryDelay
	if delay <= 0 {
		delay = unknownDelay
	}
	// Calls that were refused together must not come back together.
	jitter := rand.N(max(delay/2, 100*time.Millisecond))
	if deadline, found := ctx.Deadline(); found {
		spare := time.Until(deadline) - delay
		if spare <= 0 {
			return false
		}
		jitter = min(jitter, spare/2)
	}
	timer := time.NewTimer(delay + jitter)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
	return true
}

// endedWhileWaiting is the error of a call whose context ended while it waited for a limit: the tool was not run.
func endedWhileWaiting(ctx context.Context, method string, request any) error {
	cause := context.Cause(ctx)
	failure := unsentError(method, request, codes.Canceled, "The call was cancelled while it waited for the rate limit", cause)
	switch {
	case errors.Is(cause, ErrClosed):
		failure.Message = "The client was closed while the call waited for the rate limit"
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		failure.Code, failure.Message = codes.DeadlineExceeded, "The deadline passed while the call waited for the rate limit"
	}
	failure.unsent = false
	failure.status = status.New(failure.Code, failure.Message)
	return failure
}

type attemptKey struct{}

// attempt records what happened to one call, over all retries of gRPC.
type attempt struct {
	sent atomic.Bool // whether anything of it reached a connection

	mu          sync.Mutex
	credentials error
}

func attemptOf(ctx context.Context) *attempt {
	record, _ := ctx.Value(attemptKey{}).(*attempt)
	return record
}

func (a *attempt) credentialsFailed(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.credentials = err
}

func (a *attempt) failure() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.credentials
}

// sentRecorder notes which calls were sent.
type sentRecorder struct{}

func (sentRecorder) HandleRPC(ctx context.Context, event stats.RPCStats) {
	if _, sent := event.(*stats.OutHeader); sent {
		if record := attemptOf(ctx); record != nil {
			record.sent.Store(true)
		}
	}
}

func (sentRecorder) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (sentRecorder) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (sentRecorder) HandleConn(context.Context, stats.ConnStats)                       {}
