package agentaai

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	aiv1 "github.com/Agenta-AI/agenta-ai-grpc/clients/go/agenta/ai/v1"
)

const inDoubt = "The call may have run and may have been billed. To get its result, send it again with request_id "

// nobody is an address where nobody listens, and which nobody else can take: the caller's end of a connection.
func nobody(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	caller, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = caller.Close() })
	return caller.LocalAddr().String()
}

func TestWhereNothingWasSent(t *testing.T) {
	own, pool := certificate(t)
	encrypted := grpc.Creds(credentials.NewServerTLSFromCert(&own))
	secure, _ := serve(t, nil, []grpc.ServerOption{encrypted}, done())
	plain, _ := serve(t, nil, nil, done())
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	trusting := grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(pool, ""))
	for _, each := range []struct {
		name, target string
		options      []grpc.DialOption
		code         codes.Code
		said         string
	}{
		{"connection refused", nobody(t), nil, codes.Unavailable, "connection refused"},
		{"another authority", secure, []grpc.DialOption{
			grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(nil, "")),
		}, codes.Unavailable, "certificate"},
		{"TLS to plaintext", plain, []grpc.DialOption{trusting}, codes.Unavailable, "tls: "},
		{"nobody answers", silent.Addr().String(), nil, codes.DeadlineExceeded, ""},
	} {
		t.Run(each.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			if each.code == codes.DeadlineExceeded {
				ctx, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
			}
			defer cancel()
			conn := dial(t, each.target, each.options...)
			_, _, err := CallTool[any](ctx, conn, newRequest(t))
			refused, ok := FromError(err)
			if !ok || !refused.NotRun || refused.Code != each.code || refused.RequestID == "" {
				t.Fatalf("got %#v", refused)
			}
			if !strings.Contains(err.Error(), each.said) ||
				!strings.HasSuffix(err.Error(), ". Nothing was sent, so the tool was not run.") {
				t.Errorf("got %q", err)
			}
			_, err = aiv1.NewToolServiceClient(conn).Status(ctx, &aiv1.StatusRequest{})
			if !strings.HasSuffix(err.Error(), ". Nothing was sent.") {
				t.Errorf("got %q", err)
			}
		})
	}
}

// oneConnection is a listener that lets the first connection in.
type oneConnection struct {
	net.Listener
	first chan net.Conn
}

func (l oneConnection) Accept() (net.Conn, error) {
	if conn, open := <-l.first; open {
		return conn, nil
	}
	return nil, net.ErrClosed
}

func (l oneConnection) Close() error {
	close(l.first)
	return nil
}

// serveOnce returns the address of a server that gets one connection. Later ones are closed at once. When the server stops,
// the address isn't given up, or somebody else could listen there.
func serveOnce(t *testing.T, server *grpc.Server) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	served := oneConnection{listener, make(chan net.Conn, 1)}
	go func() { _ = server.Serve(served) }()
	t.Cleanup(server.Stop)
	go func() {
		for first := true; ; first = false {
			conn, err := listener.Accept()
			switch {
			case err != nil:
				return
			case first:
				served.first <- conn
			default:
				_ = conn.Close()
			}
		}
	}()
	return listener.Addr().String()
}

// The first attempt was sent, and no later one could be.
func TestConnectionThatIsLostForGood(t *testing.T) {
	server := grpc.NewServer()
	served := &service{answers: []answer{{never: true}}}
	served.onArrival = func() { go server.Stop() }
	aiv1.RegisterToolServiceServer(server, served)
	request := newRequest(t)
	_, _, err := CallTool[any](t.Context(), dial(t, serveOnce(t, server)), request)
	refused, ok := FromError(err)
	if !ok || refused.NotRun || refused.Code != codes.Unavailable || !strings.HasSuffix(err.Error(), inDoubt+request.RequestId+".") {
		t.Errorf("got %v", err)
	}
}

func TestServerThatWasAwayForLongIsFoundSoon(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	dial(t, listener.Addr().String()).conn.Connect()
	var last time.Time
	var waited []time.Duration
	for range 9 {
		refused, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		_ = refused.Close()
		waited, last = append(waited, time.Since(last)), time.Now()
	}
	// The retries of a tool call take at least 1.2 seconds. By now, gRPC's own delays would be two to five.
	if shortest := slices.Min(waited[6:]); shortest > 1300*time.Millisecond {
		t.Errorf("the last attempts to connect were at least %s apart", shortest)
	}
}

// What the last attempt meets tells nothing of those before it.
func TestEarlierAttempts(t *testing.T) {
	lost := answer{err: status.Error(codes.Unavailable, "No."), pushback: "1"}
	overloaded := answer{pushback: "1", err: refusal(t, codes.Unavailable,
		&errdetails.ErrorInfo{Reason: "ERROR_REASON_OVERLOADED", Domain: "agenta.ai"})}
	expired := answer{err: refusal(t, codes.Unauthenticated,
		&errdetails.ErrorInfo{Reason: "ERROR_REASON_CREDENTIALS_EXPIRED", Domain: "agenta.ai"})}
	for _, each := range []struct {
		name    string
		answers []answer
		notRun  bool
	}{
		{"refused after a lost one", []answer{lost, expired}, false},
		{"refused after a lost one and a limit", []answer{lost, limited(t, time.Millisecond), expired}, false},
		{"refused twice", []answer{overloaded, limited(t, time.Millisecond), expired}, true},
		{"lost after a refused one", []answer{overloaded, lost, lost, lost, lost}, false},
		{"overloaded for good", []answer{overloaded}, true},
	} {
		t.Run(each.name, func(t *testing.T) {
			target, served := serve(t, nil, nil, each.answers...)
			err := call(t, target, WithWaitForLimit())
			refused, ok := FromError(err)
			if !ok || refused.NotRun != each.notRun || len(served.arrivals) < len(each.answers) {
				t.Fatalf("got %v after %d attempts", err, len(served.arrivals))
			}
			if strings.HasSuffix(err.Error(), inDoubt+refused.RequestID+".") == each.notRun {
				t.Errorf("got %v", err)
			}
		})
	}
}

// The first attempt was refused, and no later one could be sent.
func TestServerThatStopsAfterARefusal(t *testing.T) {
	server := grpc.NewServer()
	served := &service{answers: []answer{{pushback: "500", err: refusal(t, codes.Unavailable,
		&errdetails.ErrorInfo{Reason: "ERROR_REASON_OVERLOADED", Domain: "agenta.ai"})}}}
	served.onArrival = func() { go server.GracefulStop() }
	aiv1.RegisterToolServiceServer(server, served)
	err := call(t, serveOnce(t, server))
	refused, ok := FromError(err)
	if !ok || !refused.NotRun || !strings.HasSuffix(err.Error(), ". The tool was not run.") || len(served.arrivals) != 1 {
		t.Errorf("got %v", err)
	}
}

func TestContextErrors(t *testing.T) {
	for name, want := range map[string]error{"deadline": context.DeadlineExceeded, "cancel": context.Canceled} {
		t.Run(name, func(t *testing.T) {
			target, served := serve(t, nil, nil, answer{never: true})
			ctx, cancel := context.WithCancel(t.Context())
			if name == "deadline" {
				ctx, cancel = context.WithTimeout(t.Context(), 2*time.Second)
			} else {
				served.onArrival = cancel
			}
			defer cancel()
			request := newRequest(t)
			_, _, err := CallTool[any](ctx, dial(t, target), request)
			for _, context := range []error{context.DeadlineExceeded, context.Canceled} {
				if errors.Is(err, context) != (context == want) {
					t.Errorf("errors.Is(%v, %v) is %t", err, context, context != want)
				}
			}
			refused, ok := FromError(err)
			if !ok || refused.NotRun || errors.Is(err, ErrClosed) || refused.RequestID != request.RequestId ||
				!strings.HasSuffix(err.Error(), inDoubt+request.RequestId+".") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A server that stops isn't a caller who cancels.
func TestCancelledByTheServer(t *testing.T) {
	target, _ := serve(t, nil, nil, answer{err: status.Error(codes.Canceled, "No."), pushback: "-1"})
	err := call(t, target)
	refused, ok := FromError(err)
	if !ok || refused.Code != codes.Canceled || refused.NotRun || errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestErrorsOfInterceptors(t *testing.T) {
	target, served := serve(t, nil, nil, done())
	errOpen := errors.New("the circuit is open")
	for _, given := range []error{errOpen, fmt.Errorf("no call: %w", errOpen)} {
		err := call(t, target, grpc.WithUnaryInterceptor(func(
			context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker, ...grpc.CallOption,
		) error {
			return given
		}))
		if refused, ok := FromError(err); !ok || !refused.NotRun || !errors.Is(err, errOpen) || len(served.arrivals) > 0 {
			t.Errorf("got %v", err)
		}
	}
}

func TestTokenSourceThatOutlastsTheDeadline(t *testing.T) {
	target, _ := serve(t, nil, nil, done())
	conn := dial(t, target, WithTokenSource(func(ctx context.Context) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	}))
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, _, err := CallTool[any](ctx, conn, newRequest(t))
	refused, ok := FromError(err)
	if !ok || refused.Code != codes.DeadlineExceeded || !refused.NotRun || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestClose(t *testing.T) {
	target, served := serve(t, nil, nil, answer{never: true})
	conn, err := Dial(target)
	if err != nil {
		t.Fatal(err)
	}
	var arrived, ended sync.WaitGroup
	arrived.Add(3)
	served.onArrival = arrived.Done
	for range 3 {
		ended.Go(func() {
			request := newRequest(t)
			_, _, err := CallTool[any](t.Context(), conn, request)
			want := "Canceled: The client was closed. " + inDoubt + request.RequestId + "."
			refused, ok := FromError(err)
			if !ok || err.Error() != want || status.Code(err) != codes.Canceled || refused.NotRun ||
				refused.RequestID != request.RequestId || !errors.Is(err, ErrClosed) || errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		})
	}
	arrived.Wait()
	began := time.Now()
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	ended.Wait()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %s", took)
	}

	before := len(served.arrivals)
	_, _, err = CallTool[any](t.Context(), conn, newRequest(t))
	refused, ok := FromError(err)
	if !ok || !refused.NotRun || !errors.Is(err, ErrClosed) ||
		err.Error() != "Canceled: The client is closed. Nothing was sent, so the tool was not run." {
		t.Errorf("got %v", err)
	}
	_, err = aiv1.NewToolServiceClient(conn).Status(t.Context(), &aiv1.StatusRequest{})
	if err == nil || err.Error() != "Canceled: The client is closed. Nothing was sent." {
		t.Errorf("got %v", err)
	}
	if len(served.arrivals) != before {
		t.Error("sent")
	}
}

// A token source returns the error of its context, which says nothing of Close.
func TestCloseDuringATokenSource(t *testing.T) {
	target, served := serve(t, nil, nil, done())
	asked := make(chan struct{})
	conn := dial(t, target, WithTokenSource(func(ctx context.Context) (string, error) {
		close(asked)
		<-ctx.Done()
		return "", ctx.Err()
	}))
	go func() {
		<-asked
		_ = conn.Close()
	}()
	_, _, err := CallTool[any](t.Context(), conn, newRequest(t))
	refused, ok := FromError(err)
	if !ok || !refused.NotRun || !errors.Is(err, ErrClosed) || errors.Is(err, context.Canceled) || len(served.arrivals) > 0 ||
		err.Error() != "Canceled: The client was closed. Nothing was sent, so the tool was not run." {
		t.Errorf("got %v", err)
	}
}

func TestStreamsAfterClose(t *testing.T) {
	target, _ := serve(t, nil, nil, done())
	conn := dial(t, target)
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := aiv1.NewToolServiceClient(conn).CallToolStream(t.Context(), &aiv1.CallToolStreamRequest{})
	refused, ok := FromError(err)
	if !ok || !refused.NotRun || !errors.Is(err, ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestCloseWhileRetrying(t *testing.T) {
	target, served := serve(t, nil, nil, answer{err: status.Error(codes.Unavailable, "No."), pushback: "60000"})
	conn, err := Dial(target)
	if err != nil {
		t.Fatal(err)
	}
	served.onArrival = func() { time.AfterFunc(100*time.Millisecond, func() { _ = conn.Close() }) }
	_, _, err = CallTool[any](t.Context(), conn, newRequest(t))
	if refused, ok := FromError(err); !ok || refused.NotRun || !errors.Is(err, ErrClosed) || refused.Code != codes.Canceled {
		t.Errorf("got %v", err)
	}
}

// bucket is a rate limit: it lets burst calls in, and one more after each interval.
type bucket struct {
	aiv1.UnimplementedToolServiceServer

	mu       sync.Mutex
	next     time.Time
	interval time.Duration
	burst    int
	ids      map[string]int
	t        *testing.T
}

func (b *bucket) CallTool(_ context.Context, request *aiv1.CallToolRequest) (*aiv1.CallToolResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	allowed := b.next.Add(-time.Duration(b.burst-1) * b.interval)
	if now.Before(allowed) {
		return nil, limited(b.t, allowed.Sub(now)).err
	}
	if b.next.Before(now) {
		b.next = now
	}
	b.next = b.next.Add(b.interval)
	b.ids[request.RequestId]++
	return &aiv1.CallToolResponse{}, nil
}

func TestManyCallsWaitForOneLimit(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// 10 at once and 600 a minute: 50 calls take four seconds.
	limit := &bucket{interval: 100 * time.Millisecond, burst: 10, ids: map[string]int{}, t: t}
	server := grpc.NewServer()
	aiv1.RegisterToolServiceServer(server, limit)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	conn := dial(t, listener.Addr().String(), WithWaitForLimit())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var calls sync.WaitGroup
	for range 50 {
		calls.Go(func() {
			if _, _, err := CallTool[any](ctx, conn, newRequest(t)); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if len(limit.ids) != 50 {
		t.Errorf("%d calls were let in", len(limit.ids))
	}
}

func TestFromError(t *testing.T) {
	if _, ok := FromError(nil); ok {
		t.Error("nil is an error")
	}
	if _, ok := FromError(&ToolError{}); ok {
		t.Error("a tool that ran and failed looks refused")
	}
	// A connection that isn't ours.
	target, _ := serve(t, nil, nil, limited(t, time.Second))
	bare := dial(t, target).conn
	request := newRequest(t)
	_, err := aiv1.NewToolServiceClient(bare).CallTool(t.Context(), request)
	if refused, ok := FromError(err); !ok || !refused.NotRun || refused.Reason != aiv1.ErrorReason_ERROR_REASON_RATE_LIMITED {
		t.Errorf("got %v", err)
	}
	_, _, err = CallTool[any](t.Context(), bare, request)
	if refused, ok := FromError(err); !ok || !refused.NotRun || refused.RequestID != request.RequestId {
		t.Errorf("got %v", err)
	}
	failed := toolErrors{}
	if _, _, err := CallTool[any](t.Context(), failed, request); !errors.Is(err, errTool) {
		t.Errorf("got %v", err)
	}
	if refused, ok := FromError(context.DeadlineExceeded); !ok || refused.Code != codes.DeadlineExceeded || refused.NotRun {
		t.Errorf("got %v", refused)
	}
}

var errTool = &ToolError{Message: "No."}

// toolErrors is a connection of somebody else, which makes errors of tools that failed.
type toolErrors struct{ grpc.ClientConnInterface }

func (toolErrors) Invoke(context.Context, string, any, any, ...grpc.CallOption) error { return errTool }

// Close ends a call by its context and by its connection, and either may come first.
func TestCloseWhileConnecting(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = silent.Close() }()
	for range 20 {
		conn := dial(t, silent.Addr().String())
		var begun, ended sync.WaitGroup
		for range 20 {
			begun.Add(1)
			ended.Go(func() {
				begun.Done()
				_, _, err := CallTool[any](t.Context(), conn, newRequest(t))
				refused, ok := FromError(err)
				if !ok || !errors.Is(err, ErrClosed) || errors.Is(err, context.Canceled) || !refused.NotRun {
					t.Errorf("got %v", err)
				}
			})
		}
		begun.Wait()
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		ended.Wait()
	}
}
