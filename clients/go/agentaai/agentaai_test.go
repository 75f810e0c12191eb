package agentaai

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
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

	mu       sync.Mutex
	answers  []answer
	arrivals []arrival
}

type answer struct {
	response *aiv1.CallToolResponse
	err      error
	pushback string
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
	if next.pushback != "" {
		_ = grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", next.pushback))
	}
	return next
}

func (s *service) CallTool(ctx context.Context, request *aiv1.CallToolRequest) (*aiv1.CallToolResponse, error) {
	next := s.next(ctx, request)
	return next.response, next.err
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
	served := &service{answers: answers}
	server := grpc.NewServer(options...)
	healthy := health.NewServer()
	healthy.SetServingStatus(aiv1.ToolService_ServiceDesc.ServiceName, healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(server, healthy)
	aiv1.RegisterToolServiceServer(server, served)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return listener.Addr().String(), served
}

func dial(t *testing.T, target string, options ...grpc.DialOption) *grpc.ClientConn {
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
	_, err := CallTool(ctx, dial(t, target, options...), newRequest(t), nil)
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
	var result struct {
		Count int
		Names []string
	}
	conn := dial(t, target)
	response, err := CallTool(t.Context(), conn, newRequest(t), &result)
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

	var misfit int
	response, err = CallTool(t.Context(), conn, newRequest(t), &misfit)
	if err == nil || response == nil {
		t.Errorf("a result that doesn't fit gave %v, %v", response, err)
	}
	if _, isCall := errors.AsType[*CallError](err); isCall {
		t.Errorf("a result that doesn't fit looks refused: %v", err)
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

func TestArgumentsThatCannotBeSent(t *testing.T) {
	for _, value := range []any{make(chan int), "\xff"} {
		if _, err := NewRequest("tools.x.y.z", map[string]any{"a": value}); err == nil {
			t.Errorf("%v was taken", value)
		}
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
		refused.RetryDelay != 1500*time.Millisecond || refused.RequestID != "r" ||
		len(refused.QuotaViolations) != 1 || refused.QuotaViolations[0].QuotaValue != 10 ||
		!reflect.DeepEqual(refused.FieldViolations, []FieldViolation{{"arguments.a", "Too long."}}) {
		t.Errorf("got %+v", refused)
	}
	if want := "RATE_LIMITED: No.; arguments.a: Too long.; try again in 1.5s"; err.Error() != want {
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
		if refused.Error() != "Internal: No." {
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
		failed.Reason != aiv1.ErrorReason_ERROR_REASON_UPSTREAM_UNAVAILABLE || failed.Meta.TraceId != "t" ||
		!reflect.DeepEqual(failed.FieldViolations, []FieldViolation{{"f", "d"}}) {
		t.Errorf("got %+v", failed)
	}
	if want := "UPSTREAM_UNAVAILABLE: Down.; f: d; try again in 2s"; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}

func TestWaitsAsLongAsTheServerSays(t *testing.T) {
	limited := status.Error(codes.ResourceExhausted, "No.")
	target, served := serve(t, nil, nil, answer{err: limited, pushback: "400"}, answer{err: limited, pushback: "1"}, done())
	if err := call(t, target, WithWaitForLimit()); err != nil {
		t.Fatal(err)
	}
	if len(served.arrivals) != 3 {
		t.Fatalf("%d attempts", len(served.arrivals))
	}
	first, second, third := served.arrivals[0], served.arrivals[1], served.arrivals[2]
	// The backoff of the service config alone would be at most 0.12 s, and then 0.24 s.
	if waited := second.at.Sub(first.at); waited < 400*time.Millisecond {
		t.Errorf("waited %s", waited)
	}
	if third.at.Sub(second.at) > second.at.Sub(first.at) {
		t.Errorf("waited %s", third.at.Sub(second.at))
	}
	if first.request.RequestId != third.request.RequestId {
		t.Error("a retry has another request_id")
	}
}

func TestWhatIsSentAgain(t *testing.T) {
	limited, down := status.Error(codes.ResourceExhausted, "No."), status.Error(codes.Unavailable, "No.")
	for _, each := range []struct {
		name     string
		answer   answer
		options  []grpc.DialOption
		attempts int
	}{
		{"limit", answer{err: limited, pushback: "1"}, nil, 1},
		{"limit, waiting", answer{err: limited, pushback: "1"}, []grpc.DialOption{WithWaitForLimit()}, 5},
		{"limit, waiting in vain", answer{err: limited, pushback: "-1"}, []grpc.DialOption{WithWaitForLimit()}, 1},
		{"unavailable", answer{err: down, pushback: "1"}, nil, 5},
		{"unavailable, in vain", answer{err: down, pushback: "-1"}, nil, 1},
		{"unavailable, waiting", answer{err: down, pushback: "1"}, []grpc.DialOption{WithWaitForLimit()}, 5},
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

func TestLargestRequestIsSentAgain(t *testing.T) {
	limited := answer{err: status.Error(codes.ResourceExhausted, "No."), pushback: "1"}
	target, served := serve(t, nil, nil, limited, done())
	request, err := NewRequest("tools.x.y.z", map[string]any{"a": strings.Repeat("x", 1<<20-200)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CallTool(t.Context(), dial(t, target, WithWaitForLimit()), request, nil); err != nil {
		t.Error(err)
	}
	if len(served.arrivals) != 2 {
		t.Errorf("%d attempts", len(served.arrivals))
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

func TestKeyIsSentWhereNobodyReadsAlong(t *testing.T) {
	own, pool := certificate(t)
	encrypted := grpc.Creds(credentials.NewServerTLSFromCert(&own))
	socket, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	loopback, overLoopback := serve(t, nil, nil, done())
	path, overSocket := serve(t, socket, nil, done())
	secure, overTLS := serve(t, nil, []grpc.ServerOption{encrypted}, done())
	for _, each := range []struct {
		target  string
		served  *service
		options []grpc.DialOption
	}{
		{loopback, overLoopback, nil},
		{"unix:" + path, overSocket, nil},
		{secure, overTLS, []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(pool, ""))}},
	} {
		if err := call(t, each.target, append(each.options, WithAPIKey("aai_k"))...); err != nil {
			t.Errorf("%s: %v", each.target, err)
			continue
		}
		if seen := each.served.arrivals[0].authorization; !reflect.DeepEqual(seen, []string{"ApiKey aai_k"}) {
			t.Errorf("%s: got %v", each.target, seen)
		}
	}
}

func TestKeyThatIsNotSent(t *testing.T) {
	for name, options := range map[string][]grpc.DialOption{
		"plaintext to anywhere": {WithAPIKey("secret"), grpc.WithTransportCredentials(insecure.NewCredentials())},
		"newline":               {WithAPIKey("secret\n")},
	} {
		target, served := serve(t, nil, nil, done())
		err := call(t, target, options...)
		if status.Code(err) != codes.Unauthenticated || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v", name, err)
		}
		if len(served.arrivals) > 0 {
			t.Errorf("%s: sent", name)
		}
	}
	if shown := fmt.Sprintf("%v %+v %s", apiKey("secret"), apiKey("secret"), apiKey("secret")); strings.Contains(shown, "secret") {
		t.Errorf("shown as %s", shown)
	}
}

func TestEmptyKeyIsNotSent(t *testing.T) {
	target, served := serve(t, nil, nil, done())
	if err := call(t, target, WithAPIKey("")); err != nil {
		t.Fatal(err)
	}
	if seen := served.arrivals[0].authorization; len(seen) > 0 {
		t.Errorf("got %v", seen)
	}
}

func TestPlaintextStaysOnThisMachine(t *testing.T) {
	for target, local := range map[string]bool{
		"127.0.0.1:50051": true, "127.8.8.8:1": true, "[::1]:50051": true, "localhost:50051": true, "localhost": true,
		"dns:///localhost:50051": true, "unix:/run/agenta.sock": true, "unix:///run/agenta.sock": true,
		"10.0.0.1:50051": false, "agenta.example:443": false, "localhost.example:443": false, "[::]:50051": false,
		"0.0.0.0:50051": false, "dns:///agenta.example": false, "127.0.0.1.example:1": false, "": false,
	} {
		if isLocal(target) != local {
			t.Errorf("isLocal(%q) is %t", target, !local)
		}
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
	if status.Code(err) != codes.Unavailable || len(served.arrivals) > 0 {
		t.Errorf("got %v and %d arrivals", err, len(served.arrivals))
	}
}

type elsewhereConn struct{ net.Conn }

func (elsewhereConn) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 1} }
