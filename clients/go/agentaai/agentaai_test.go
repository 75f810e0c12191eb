package agentaai

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	aiv1 "github.com/Agenta-AI/agenta-ai-grpc/clients/go/agenta/ai/v1"
)

// arrival is one attempt as the server saw it.
type arrival struct {
	request       *aiv1.CallToolRequest
	at            time.Time
	left          time.Duration
	authorization []string
}

// service answers each attempt with the next of its answers, and stays with the last.
type service struct {
	aiv1.UnimplementedToolServiceServer

	onArrival func()
	left      chan struct{} // closed when the caller of a stream without an end has left

	mu       sync.Mutex
	answers  []answer
	arrivals []arrival
}

type answer struct {
	response *aiv1.CallToolResponse
	err      error
	pushback string
	never    bool
	progress []string // the texts of what is reported first
}

func (s *service) next(ctx context.Context, request *aiv1.CallToolRequest) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	pairs, _ := metadata.FromIncomingContext(ctx)
	seen := arrival{request: request, at: time.Now(), authorization: pairs.Get("authorization")}
	if deadline, ok := ctx.Deadline(); ok {
		seen.left = time.Until(deadline)
	}
	s.arrivals = append(s.arrivals, seen)
	next := s.answers[0]
	if len(s.answers) > 1 {
		s.answers = s.answers[1:]
	}
	if next.response != nil {
		_ = grpc.SetTrailer(ctx, metadata.Pairs("x-request-id", "c"))
	}
	if next.pushback != "" {
		_ = grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", next.pushback))
	}
	return next
}

func (s *service) CallTool(ctx context.Context, request *aiv1.CallToolRequest) (*aiv1.CallToolResponse, error) {
	next := s.next(ctx, request)
	if s.onArrival != nil {
		s.onArrival()
	}
	if next.never {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return next.response, next.err
}

func (s *service) CallToolStream(
	request *aiv1.CallToolStreamRequest, stream grpc.ServerStreamingServer[aiv1.CallToolStreamResponse],
) error {
	next := s.next(stream.Context(), &aiv1.CallToolRequest{RequestId: request.RequestId, Arguments: request.Arguments})
	for _, text := range next.progress {
		event := &aiv1.CallToolStreamResponse_Progress{Progress: &aiv1.Progress{Text: text}}
		if err := stream.Send(&aiv1.CallToolStreamResponse{Event: event}); err != nil {
			return err
		}
	}
	if s.onArrival != nil {
		s.onArrival()
	}
	if next.never {
		<-stream.Context().Done()
		close(s.left)
		return stream.Context().Err()
	}
	if next.response != nil {
		event := &aiv1.CallToolStreamResponse_Result{Result: next.response}
		_ = stream.Send(&aiv1.CallToolStreamResponse{Event: event})
	}
	return next.err
}

func (s *service) Status(ctx context.Context, _ *aiv1.StatusRequest) (*aiv1.StatusResponse, error) {
	return &aiv1.StatusResponse{Enabled: true}, s.next(ctx, nil).err
}

// serve starts a service on a free port of loopback, or on another listener.
func serve(t *testing.T, listener net.Listener, options []grpc.ServerOption, answers ...answer) (string, *service) {
	t.Helper()
	if listener == nil {
		var err error
		if listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	served := &service{answers: answers, left: make(chan struct{})}
	server := grpc.NewServer(options...)
	healthy := health.NewServer()
	healthy.SetServingStatus(aiv1.ToolService_ServiceDesc.ServiceName, healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(server, healthy)
	aiv1.RegisterToolServiceServer(server, served)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String(), served
}

func dial(t *testing.T, target string, options ...grpc.DialOption) *Conn {
	t.Helper()
	conn, err := Dial(target, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func newRequest(t *testing.T) *aiv1.CallToolRequest {
	t.Helper()
	request, err := NewRequest("tools.x.y.z", map[string]any{"a": 1})
	if err != nil {
		t.Fatal(err)
	}
	return request
}

// call makes one call that may take ten seconds.
func call(t *testing.T, target string, options ...grpc.DialOption) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, _, err := CallTool[any](ctx, dial(t, target, options...), newRequest(t))
	return err
}

func refusal(t *testing.T, code codes.Code, details ...protoadapt.MessageV1) error {
	t.Helper()
	made, err := status.New(code, "No.").WithDetails(details...)
	if err != nil {
		t.Fatal(err)
	}
	return made.Err()
}

func done() answer {
	return answer{response: &aiv1.CallToolResponse{StructuredContent: structpb.NewStringValue("done")}}
}

func TestResultIsPutIntoNativeType(t *testing.T) {
	content, err := structpb.NewValue(map[string]any{"count": 3, "names": []any{"a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	target, served := serve(t, nil, nil, answer{response: &aiv1.CallToolResponse{
		StructuredContent: content, Meta: &aiv1.CallMeta{TraceId: "t"},
	}})
	type counted struct {
		Count int
		Names []string
	}
	conn := dial(t, target)
	result, response, err := CallTool[counted](t.Context(), conn, newRequest(t))
	if err != nil {
		t.Fatal(err)
	}
	if result.Count != 3 || !reflect.DeepEqual(result.Names, []string{"a", "b"}) || response.Meta.TraceId != "t" {
		t.Errorf("got %+v, %v", result, response)
	}
	seen := served.arrivals[0]
	if seen.left < CallTimeout-10*time.Second || seen.left > CallTimeout {
		t.Errorf("without a deadline of its own, the call had %s", seen.left)
	}
	if seen.request.Arguments.AsMap()["a"] != 1.0 {
		t.Errorf("got the arguments %v", seen.request.Arguments)
	}

	_, response, err = CallTool[int](t.Context(), conn, newRequest(t))
	if err == nil || response == nil {
		t.Errorf("a result that doesn't fit gave %v, %v", response, err)
	}
	if _, isCall := errors.AsType[*CallError](err); isCall {
		t.Errorf("a result that doesn't fit looks refused: %v", err)
	}
}

func TestGeneratedClientHasRequestIDs(t *testing.T) {
	lost := answer{err: status.Error(codes.Unavailable, "lost"), pushback: "0"}
	target, served := serve(t, nil, nil, lost, answer{response: &aiv1.CallToolResponse{}})
	request := &aiv1.CallToolRequest{Name: "t"}
	if _, err := aiv1.NewToolServiceClient(dial(t, target)).CallTool(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	first, second := served.arrivals[0].request.GetRequestId(), served.arrivals[1].request.GetRequestId()
	if len(first) != 36 || first != second || request.GetRequestId() != "" {
		t.Errorf("both attempts have the same request_id: %q, %q", first, second)
	}
}

func TestRequestIDs(t *testing.T) {
	first, second := newRequest(t).RequestId, newRequest(t).RequestId
	if first == second {
		t.Error("two requests have one id")
	}
	if parsed, err := uuid.Parse(first); err != nil || parsed.Version() != 4 || len(first) != 36 {
		t.Errorf("%q is no UUID, version 4", first)
	}
}

func TestArguments(t *testing.T) {
	type nested struct {
		Text    string         `json:"text"`
		Left    string         `json:"left,omitempty"`
		Numbers []float64      `json:"numbers"`
		Any     map[string]any `json:"any"`
	}
	request, err := NewRequest("tools.x.y.z", nested{"ä<\ufffd", "", []float64{1e20, -0.5, 1 << 53}, map[string]any{"n": nil, "b": true}})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"text": "ä<\ufffd", "numbers": []any{1e20, -0.5, float64(1 << 53)}, "any": map[string]any{"n": nil, "b": true},
	}
	if got := request.Arguments.AsMap(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
	for _, none := range []any{nil, map[string]any(nil), struct{}{}} {
		if request, err := NewRequest("tools.x.y.z", none); err != nil || len(request.Arguments.GetFields()) > 0 {
			t.Errorf("%v: got %v, %v", none, request, err)
		}
	}
}

func TestArgumentsThatCannotBeSent(t *testing.T) {
	deep := map[string]any{}
	for range 32 {
		deep = map[string]any{"a": deep}
	}
	for _, each := range []struct {
		arguments any
		said      string
	}{
		{map[string]any{"a": make(chan int)}, "chan int"},
		{map[string]any{"a": "\xff"}, "UTF-8"},
		{map[string]any{"\xff": 1}, "UTF-8"},
		{json.RawMessage("{\"a\": [\"\ufffd\", \"\xff\"]}"), "UTF-8"},
		{json.RawMessage(`{"a": "\ud800"}`), "UTF-8"},
		{json.RawMessage(`{"a": {"\udc00": 1}}`), "UTF-8"},
		{json.RawMessage(`{"a": [1e400]}`), "arguments.a[0]: the number 1e400 doesn't fit a double"},
		{map[string]any{"a": []any{map[string]int64{"b": 1<<53 + 1}}}, "arguments.a[0].b: the integer 9007199254740993"},
		{map[string]any{"a": uint64(math.MaxUint64)}, "doesn't fit a double"},
		{map[string]any{"a": math.NaN()}, "NaN"},
		{deep, "nested too deep"},
		{[]int{1}, "[]int isn't encoded as a JSON object"},
		{"text", "string isn't encoded as a JSON object"},
	} {
		_, err := NewRequest("tools.x.y.z", each.arguments)
		if err == nil || !strings.Contains(err.Error(), each.said) || !strings.HasPrefix(err.Error(), "agentaai: arguments of tools.x.y.z: ") {
			t.Errorf("%v gave %v", each.arguments, err)
		}
	}
}

func TestRequestWithoutIDIsNotSent(t *testing.T) {
	target, served := serve(t, nil, nil, done())
	request := newRequest(t)
	request.RequestId = ""
	_, _, err := CallTool[any](t.Context(), dial(t, target), request)
	if refused, ok := FromError(err); !ok || refused.Code != codes.InvalidArgument || !refused.NotRun {
		t.Errorf("got %v", err)
	}
	if len(served.arrivals) > 0 {
		t.Error("sent")
	}
}

func TestRefusalIsDecoded(t *testing.T) {
	quota := &errdetails.QuotaFailure_Violation{QuotaId: "default", QuotaValue: 10}
	said := refusal(t, codes.ResourceExhausted,
		&errdetails.ErrorInfo{Reason: "ERROR_REASON_RATE_LIMITED", Domain: "agenta.ai"},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(1500 * time.Millisecond)},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: "arguments.a", Description: "Too long."},
		}},
		&errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{quota}},
		&errdetails.RequestInfo{RequestId: "r"},
	)
	target, served := serve(t, nil, nil, answer{err: said})
	err := call(t, target)
	refused, ok := errors.AsType[*CallError](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	if refused.Code != codes.ResourceExhausted || status.Code(err) != refused.Code || !refused.NotRun ||
		refused.Reason != aiv1.ErrorReason_ERROR_REASON_RATE_LIMITED || refused.Message != "No." ||
		refused.RetryDelay != 1500*time.Millisecond || refused.CallID != "r" || refused.RequestID == "" ||
		len(refused.QuotaViolations) != 1 || refused.QuotaViolations[0].QuotaValue != 10 ||
		!reflect.DeepEqual(refused.FieldViolations, []FieldViolation{{"arguments.a", "Too long."}}) {
		t.Errorf("got %+v", refused)
	}
	if want := "RATE_LIMITED: No; arguments.a: Too long; try again in 2 s"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
	if len(served.arrivals) != 1 {
		t.Errorf("%d attempts without WithWaitForLimit", len(served.arrivals))
	}
}

func TestWhatOthersRefuseMayHaveRun(t *testing.T) {
	for name, said := range map[string]error{
		"no details":     status.Error(codes.Internal, "No."),
		"another domain": refusal(t, codes.Internal, &errdetails.ErrorInfo{Reason: "ERROR_REASON_RATE_LIMITED", Domain: "proxy"}),
	} {
		target, _ := serve(t, nil, nil, answer{err: said})
		refused, ok := errors.AsType[*CallError](call(t, target))
		if !ok || refused.NotRun || refused.Reason != aiv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
			t.Errorf("%s: got %+v", name, refused)
		}
		want := "Internal: No. The call may have run and may have been billed. To get its result, send it again with " +
			"request_id " + refused.RequestID + "."
		if refused.Error() != want || len(refused.RequestID) != 36 {
			t.Errorf("%s: got %q", name, refused)
		}
	}
}

func TestReasonOfLaterVersionIsNotRunEither(t *testing.T) {
	info := &errdetails.ErrorInfo{Reason: "ERROR_REASON_OF_2030", Domain: "agenta.ai"}
	target, _ := serve(t, nil, nil, answer{err: refusal(t, codes.FailedPrecondition, info)})
	refused, ok := errors.AsType[*CallError](call(t, target))
	if !ok || !refused.NotRun || refused.Reason != aiv1.ErrorReason_ERROR_REASON_UNSPECIFIED {
		t.Errorf("got %+v", refused)
	}
}

func TestToolThatFailed(t *testing.T) {
	target, _ := serve(t, nil, nil, answer{response: &aiv1.CallToolResponse{
		IsError: true,
		Content: []*aiv1.ContentBlock{{}, {Kind: &aiv1.ContentBlock_Text{Text: "Down."}}},
		Error: &aiv1.ToolError{
			Reason: aiv1.ErrorReason_ERROR_REASON_UPSTREAM_UNAVAILABLE, Retryable: true,
			RetryDelay:      durationpb.New(2 * time.Second),
			FieldViolations: []*aiv1.FieldViolation{{Field: "f", Description: "d"}},
		},
		Meta: &aiv1.CallMeta{TraceId: "t"},
	}})
	err := call(t, target)
	failed, ok := errors.AsType[*ToolError](err)
	if !ok || !failed.Retryable || failed.RetryDelay != 2*time.Second || failed.Message != "Down." ||
		failed.Reason != aiv1.ErrorReason_ERROR_REASON_UPSTREAM_UNAVAILABLE || failed.Meta.TraceId != "t" || failed.CallID != "c" ||
		!reflect.DeepEqual(failed.FieldViolations, []FieldViolation{{"f", "d"}}) {
		t.Errorf("got %+v", failed)
	}
	_, _, err = CallTool[any](t.Context(), dial(t, target), newRequest(t), WithProgress(func(*aiv1.Progress) {}))
	if failed, ok := errors.AsType[*ToolError](err); !ok || failed.CallID != "c" {
		t.Errorf("with progress: got %+v", failed)
	}
	if want := "UPSTREAM_UNAVAILABLE: Down; f: d; try again in 2 s"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

// limited is a refusal by a rate limit.
func limited(t *testing.T, delay time.Duration) answer {
	t.Helper()
	return answer{err: refusal(t, codes.ResourceExhausted,
		&errdetails.ErrorInfo{Reason: "ERROR_REASON_RATE_LIMITED", Domain: "agenta.ai"},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})}
}

func TestWaitsAsLongAsTheServerSays(t *testing.T) {
	target, served := serve(t, nil, nil, limited(t, 2*time.Second), limited(t, time.Millisecond), done())
	if err := call(t, target, WithWaitForLimit()); err != nil {
		t.Fatal(err)
	}
	if len(served.arrivals) != 3 {
		t.Fatalf("%d attempts", len(served.arrivals))
	}
	first, second, third := served.arrivals[0], served.arrivals[1], served.arrivals[2]
	if waited := second.at.Sub(first.at); waited < 2*time.Second {
		t.Errorf("waited %s", waited)
	}
	if third.at.Sub(second.at) > second.at.Sub(first.at) {
		t.Errorf("waited %s", third.at.Sub(second.at))
	}
	if first.request.RequestId != third.request.RequestId {
		t.Error("a retry has another request_id")
	}
}

func TestWaitsMoreOftenThanRetries(t *testing.T) {
	answers := make([]answer, 20)
	for i := range answers {
		answers[i] = limited(t, time.Millisecond)
	}
	target, served := serve(t, nil, nil, append(answers, done())...)
	if err := call(t, target, WithWaitForLimit(), WithoutRetries()); err != nil || len(served.arrivals) != 21 {
		t.Errorf("got %v after %d attempts", err, len(served.arrivals))
	}
}

func TestWaitThatIsCancelledRunsNothing(t *testing.T) {
	for name, end := range map[string]func(*Conn, context.CancelFunc){
		"cancel": func(_ *Conn, cancel context.CancelFunc) { cancel() },
		"close":  func(conn *Conn, _ context.CancelFunc) { _ = conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			target, served := serve(t, nil, nil, limited(t, time.Minute))
			conn := dial(t, target, WithWaitForLimit())
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			served.onArrival = func() { time.AfterFunc(time.Second, func() { end(conn, cancel) }) }
			_, _, err := CallTool[any](ctx, conn, newRequest(t))
			refused, ok := FromError(err)
			if !ok || refused.Code != codes.Canceled || !refused.NotRun || errors.Is(err, ErrClosed) != (name == "close") {
				t.Errorf("got %v", err)
			}
			if !strings.HasSuffix(err.Error(), ". The tool was not run.") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestWhatIsSentAgain(t *testing.T) {
	wait, none := []grpc.DialOption{WithWaitForLimit()}, []grpc.DialOption{WithoutRetries()}
	down := status.Error(codes.Unavailable, "No.")
	for _, each := range []struct {
		name     string
		answer   answer
		options  []grpc.DialOption
		attempts int
	}{
		{"limit", limited(t, time.Millisecond), nil, 1},
		{"limit, waiting in vain", limited(t, time.Minute), wait, 1},
		{"limit, never", answer{err: limited(t, time.Millisecond).err, pushback: "-1"}, wait, 1},
		{"a limit of others, waiting", answer{err: status.Error(codes.ResourceExhausted, "No."), pushback: "1"}, wait, 1},
		{"unavailable", answer{err: down, pushback: "1"}, nil, 5},
		{"unavailable, in vain", answer{err: down, pushback: "-1"}, nil, 1},
		{"unavailable, waiting", answer{err: down, pushback: "1"}, wait, 5},
		{"unavailable, without retries", answer{err: down, pushback: "1"}, none, 1},
		{"cancelled by the server", answer{err: status.Error(codes.Canceled, "No."), pushback: "1"}, nil, 5},
		{"a bug", answer{err: status.Error(codes.Internal, "No."), pushback: "1"}, wait, 1},
	} {
		t.Run(each.name, func(t *testing.T) {
			target, served := serve(t, nil, nil, each.answer)
			if err := call(t, target, each.options...); status.Code(err) != status.Code(each.answer.err) {
				t.Errorf("got %v", err)
			}
			if len(served.arrivals) != each.attempts {
				t.Errorf("%d attempts, want %d", len(served.arrivals), each.attempts)
			}
		})
	}
}

func TestReadsAreSentAgain(t *testing.T) {
	down := answer{err: status.Error(codes.Unavailable, "No."), pushback: "1"}
	target, served := serve(t, nil, nil, down, down, done())
	answered, err := aiv1.NewToolServiceClient(dial(t, target)).Status(t.Context(), &aiv1.StatusRequest{})
	if err != nil || !answered.Enabled || len(served.arrivals) != 3 {
		t.Errorf("got %v, %v after %d attempts", answered, err, len(served.arrivals))
	}
}

// largest is a request of so many bytes.
func largest(t *testing.T, size int) *aiv1.CallToolRequest {
	t.Helper()
	request := newRequest(t)
	request.Arguments.Fields["a"] = structpb.NewStringValue(strings.Repeat("x", size-200))
	missing := size - proto.Size(request)
	request.Arguments.Fields["a"] = structpb.NewStringValue(strings.Repeat("x", size-200+missing))
	if got := proto.Size(request); got != size {
		t.Fatalf("made %d bytes", got)
	}
	return request
}

func TestLargestRequestIsSentAgain(t *testing.T) {
	down := answer{err: status.Error(codes.Unavailable, "No."), pushback: "1"}
	target, served := serve(t, nil, nil, down, done())
	if _, _, err := CallTool[any](t.Context(), dial(t, target), largest(t, MaxRequestBytes)); err != nil {
		t.Error(err)
	}
	if len(served.arrivals) != 2 {
		t.Errorf("%d attempts", len(served.arrivals))
	}
}

func TestRequestThatIsTooLargeIsNotSent(t *testing.T) {
	target, served := serve(t, nil, nil, done())
	request := largest(t, MaxRequestBytes+1)
	_, _, err := CallTool[any](t.Context(), dial(t, target), request)
	refused, ok := FromError(err)
	if !ok || refused.Code != codes.InvalidArgument || !refused.NotRun || refused.RequestID != request.RequestId ||
		refused.Reason != aiv1.ErrorReason_ERROR_REASON_REQUEST_TOO_LARGE {
		t.Errorf("got %v", err)
	}
	if want := "REQUEST_TOO_LARGE: The request has 1048577 bytes, and the limit is 1048576: shorten its arguments. " +
		"Nothing was sent, so the tool was not run."; err.Error() != want {
		t.Errorf("got %q", err)
	}
	if len(served.arrivals) > 0 {
		t.Error("sent")
	}
}

// certificate is one for 127.0.0.1, and what a client must trust for it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestCredentialsAreSentWhereNobodyReadsAlong(t *testing.T) {
	own, pool := certificate(t)
	encrypted := grpc.Creds(credentials.NewServerTLSFromCert(&own))
	socket, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	loopback, overLoopback := serve(t, nil, nil, done())
	path, overSocket := serve(t, socket, nil, done())
	secure, overTLS := serve(t, nil, []grpc.ServerOption{encrypted}, done())
	source := func(context.Context) (string, error) { return "s", nil }
	for _, each := range []struct {
		target  string
		served  *service
		options []grpc.DialOption
	}{
		{loopback, overLoopback, nil},
		{"unix:" + path, overSocket, nil},
		{secure, overTLS, []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(pool, ""))}},
	} {
		for _, with := range []struct {
			option grpc.DialOption
			sent   []string
		}{
			{WithAPIKey("aai_k"), []string{"ApiKey aai_k"}},
			{WithToken("t"), []string{"Bearer t"}},
			{WithTokenSource(source), []string{"Bearer s"}},
			{WithAPIKey(""), nil},
			{WithToken(""), nil},
		} {
			if err := call(t, each.target, append(each.options, with.option)...); err != nil {
				t.Errorf("%s: %v", each.target, err)
				continue
			}
			if seen := each.served.arrivals[len(each.served.arrivals)-1].authorization; !reflect.DeepEqual(seen, with.sent) {
				t.Errorf("%s: got %v", each.target, seen)
			}
		}
	}
}

func TestTokenSourceIsAskedForEachAttempt(t *testing.T) {
	down := answer{err: status.Error(codes.Unavailable, "No."), pushback: "1"}
	target, served := serve(t, nil, nil, down, limited(t, time.Millisecond), done())
	asked := 0
	source := func(context.Context) (string, error) {
		asked++
		return fmt.Sprint(asked), nil
	}
	if err := call(t, target, WithTokenSource(source), WithWaitForLimit()); err != nil {
		t.Fatal(err)
	}
	for i, each := range served.arrivals {
		if want := fmt.Sprintf("Bearer %d", i+1); each.authorization[0] != want {
			t.Errorf("got %v, want %s", each.authorization, want)
		}
	}
}

func TestCredentialsThatAreNotSent(t *testing.T) {
	errSource := errors.New("no such account")
	for name, options := range map[string][]grpc.DialOption{
		"plaintext to anywhere": {WithAPIKey("secret"), grpc.WithTransportCredentials(insecure.NewCredentials())},
		"failing source":        {WithTokenSource(func(context.Context) (string, error) { return "", errSource })},
		"newline of a source":   {WithTokenSource(func(context.Context) (string, error) { return "secret\n", nil })},
		"empty token of source": {WithTokenSource(func(context.Context) (string, error) { return "", nil })},
	} {
		target, served := serve(t, nil, nil, done())
		err := call(t, target, options...)
		refused, ok := FromError(err)
		if !ok || refused.Code != codes.Unauthenticated || !refused.NotRun || strings.Contains(err.Error(), "secret") ||
			!strings.HasSuffix(err.Error(), ". Nothing was sent, so the tool was not run.") {
			t.Errorf("%s: got %v", name, err)
		}
		if errors.Is(err, errSource) != (name == "failing source") {
			t.Errorf("%s: wraps %v", name, errors.Unwrap(err))
		}
		if len(served.arrivals) > 0 {
			t.Errorf("%s: sent", name)
		}
	}
}

func TestOptionsThatCannotBeUsed(t *testing.T) {
	for name, options := range map[string][]grpc.DialOption{
		"newline":        {WithAPIKey("secret\n")},
		"umlaut":         {WithToken("secretä")},
		"too long":       {WithAPIKey("secret" + strings.Repeat("x", 8192))},
		"two of them":    {WithAPIKey("secret"), WithToken("secret")},
		"no source":      {WithTokenSource(nil)},
		"service config": {grpc.WithDefaultServiceConfig("{}")},
		"after ours":     {WithoutRetries(), grpc.WithUserAgent("x"), grpc.WithDefaultServiceConfig(ServiceConfig())},
		"invalid config": {grpc.WithDefaultServiceConfig("secret")},
	} {
		if conn, err := Dial("127.0.0.1:1", options...); err == nil || strings.Contains(err.Error(), "secret") && name != "invalid config" {
			t.Errorf("%s: got %v, %v", name, conn, err)
		}
	}
}

func TestCredentialsAreNotShown(t *testing.T) {
	set := new(settings)
	WithAPIKey("secret").apply(set)
	shown := fmt.Sprintf("%v %+v %s %#v", set.credentials[0], set.credentials[0], set.credentials[0], set.credentials[0])
	if strings.Contains(shown, "secret") {
		t.Errorf("shown as %s", shown)
	}
}

// A name that passes for this machine but leads elsewhere gets nothing in plaintext.
func TestLocalNameThatLeadsElsewhere(t *testing.T) {
	target, served := serve(t, nil, nil, done())
	elsewhere := grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
		conn, err := net.Dial("tcp", target)
		return elsewhereConn{conn}, err
	})
	err := call(t, "localhost:1", elsewhere, WithAPIKey("k"))
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "Nothing was sent") || len(served.arrivals) > 0 {
		t.Errorf("got %v and %d arrivals", err, len(served.arrivals))
	}
}

type elsewhereConn struct{ net.Conn }

func (elsewhereConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1} }
