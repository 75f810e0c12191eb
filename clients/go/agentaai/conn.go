package agentaai

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

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

// ErrClosed is wrapped by the errors of calls that [Conn.Close] ended, and of calls that are made after it.
var ErrClosed = errors.New("the client is closed")

// Conn is a connection made by [Dial], for [CallTool] and for generated clients. It is safe for concurrent use. The errors
// of its unary calls are [*CallError], also those of a generated client that uses it.
type Conn struct {
	conn         *grpc.ClientConn
	waitForLimit bool
	streamPolicy retryPolicy
	closing      context.Context // done when Close is called
	closed       context.CancelCauseFunc
}

// Close closes the connection. Unary calls in flight end at once with CANCELLED, and their outcome is unknown: their
// [CallError] has the request_id to ask again with. Later calls fail and send nothing. Both errors wrap [ErrClosed].
func (c *Conn) Close() error {
	c.closed(ErrClosed)
	return c.conn.Close()
}

// Invoke makes a unary call: see [grpc.ClientConn.Invoke]. Generated clients use it. A call of a tool may have
// [WithProgress].
//
// A call by a tool's own method, of a client that was generated from the files of "agenta-ai-server tools proto", gets a
// request_id if it has none, and a deadline of [CallTimeout] if ctx has none. If the tool ran and failed, it returns a
// [*ToolError]. A call by CallTool gets a request_id if it has none, because it is retried.
func (c *Conn) Invoke(ctx context.Context, method string, request, reply any, options ...grpc.CallOption) error {
	if isTyped(method) {
		return c.invokeTyped(ctx, method, request, reply, options...)
	}
	if method == aiv1.ToolService_CallTool_FullMethodName {
		named, err := withRequestID(request)
		if err != nil {
			return err
		}
		request = named
	}
	return c.invoke(ctx, method, request, reply, options...)
}

// NewStream begins a streaming call: see [grpc.ClientConn.NewStream]. Generated clients use it. The call is sent once, and
// its errors are those of grpc-go, which [FromError] reads.
func (c *Conn) NewStream(
	ctx context.Context, description *grpc.StreamDesc, method string, options ...grpc.CallOption,
) (grpc.ClientStream, error) {
	if c.closing.Err() != nil {
		return nil, closedError(method, nil)
	}
	return c.conn.NewStream(ctx, description, method, options...)
}

func (c *Conn) invoke(ctx context.Context, method string, request, reply any, options ...grpc.CallOption) error {
	if c.closing.Err() != nil {
		return closedError(method, request)
	}
	if message, ok := request.(proto.Message); ok && proto.Size(message) > MaxRequestBytes {
		return tooLargeError(method, message)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.closing, func() { cancel(ErrClosed) })()
	sent := new(history)
	ctx = context.WithValue(ctx, historyKey{}, sent)
	attempts := c.attempts(request, options)
	for {
		var trailer metadata.MD
		all := append(options[:len(options):len(options)], grpc.Trailer(&trailer))
		err := attempts.send(ctx, method, request, reply, all...)
		if err == nil {
			return nil
		}
		if code := status.Code(err); c.closing.Err() != nil && (code == codes.Unavailable || code == codes.Canceled) {
			cancel(ErrClosed) // this is what broke the connection
			err = ctx.Err()
		}
		failure := newCallError(err)
		failure.describe(method, request)
		if delay, again := attempts.delayAfter(ctx, failure, trailer.Get("grpc-retry-pushback-ms")); again {
			if err = sleep(ctx, delay); err == nil {
				continue
			}
			failure = newCallError(err)
			failure.describe(method, request)
		}
		sent.explain(ctx, failure)
		return failure
	}
}

type historyKey struct{}

// history is what happened to one call, over all its attempts: those of gRPC's retries and those after a rate limit.
type history struct {
	mu          sync.Mutex
	sent        int   // attempts of which anything reached a connection
	refused     int   // those of them that the service refused
	credentials error // why the last attempt had no credentials
}

func historyOf(ctx context.Context) *history {
	found, _ := ctx.Value(historyKey{}).(*history)
	return found
}

func (h *history) credentialsFailed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.credentials = err
}

// explain adds to the error of the last attempt what became of the call.
func (h *history) explain(ctx context.Context, failure *CallError) {
	h.mu.Lock()
	defer h.mu.Unlock()
	failure.unsent = h.sent == 0
	failure.NotRun = h.sent == h.refused
	switch {
	case failure.Code == codes.Canceled && errors.Is(context.Cause(ctx), ErrClosed):
		failure.cause = ErrClosed // also where it ended a token source
	case h.credentials != nil:
		failure.cause = h.credentials
	case ctx.Err() != nil:
		failure.cause = context.Cause(ctx)
	}
	failure.notByContext = ctx.Err() == nil
	if failure.Code == codes.Canceled && errors.Is(failure.cause, ErrClosed) {
		failure.Message = "The client was closed"
		failure.status = status.New(failure.Code, failure.Message)
	}
}

// recorder keeps the history of each call.
type recorder struct{}

type attemptKey struct{}

// TagRPC marks an attempt, so that its end finds out whether it was sent.
func (recorder) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	return context.WithValue(ctx, attemptKey{}, new(atomic.Bool))
}

// HandleRPC counts the attempts that are sent, and those that are refused.
func (recorder) HandleRPC(ctx context.Context, event stats.RPCStats) {
	call, sent := historyOf(ctx), ctx.Value(attemptKey{}).(*atomic.Bool)
	if call == nil {
		return
	}
	call.mu.Lock()
	defer call.mu.Unlock()
	switch event := event.(type) {
	case *stats.OutHeader:
		sent.Store(true)
		call.sent++
		call.credentials = nil
	case *stats.End:
		if sent.Load() && event.Error != nil && newCallError(event.Error).NotRun {
			call.refused++
		}
	}
}

func (recorder) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (recorder) HandleConn(context.Context, stats.ConnStats)                       {}
