package agentaai

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	aiv1 "github.com/Agenta-AI/agenta-ai-grpc/clients/go/agenta/ai/v1"
)

// streamed makes one call with progress, and returns the texts that were reported.
func streamed(t *testing.T, conn *Conn, request *aiv1.CallToolRequest) (any, []string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var texts []string
	result, _, err := CallTool[any](ctx, conn, request, WithProgress(func(progress *aiv1.Progress) {
		texts = append(texts, progress.Text)
	}))
	return result, texts, err
}

func TestProgress(t *testing.T) {
	unavailable := status.Error(codes.Unavailable, "No.")
	begun := done()
	begun.progress = []string{"a", "b"}
	broken := answer{progress: []string{"x"}, err: unavailable, pushback: "1"}
	early := answer{err: unavailable, pushback: "1"}
	limit := limited(t, time.Millisecond)
	old := answer{err: status.Error(codes.Unimplemented, "No such method.")}
	refused := answer{progress: []string{"x"}, err: refusal(t, codes.FailedPrecondition,
		&errdetails.ErrorInfo{Reason: "ERROR_REASON_TOOL_NOT_FOUND", Domain: "agenta.ai"})}
	for _, each := range []struct {
		name     string
		options  []grpc.DialOption
		answers  []answer
		code     codes.Code
		texts    string
		attempts int
	}{
		{"result", nil, []answer{begun}, codes.OK, "ab", 1},
		{"broken after its first message", nil, []answer{broken, begun}, codes.OK, "xab", 2},
		{"broken before and after", nil, []answer{early, broken, early, broken, begun}, codes.OK, "xxab", 5},
		{"broken for good", nil, []answer{broken}, codes.Unavailable, "xxxxx", 5},
		{"without retries", []grpc.DialOption{WithoutRetries()}, []answer{broken}, codes.Unavailable, "x", 1},
		{"result that isn't confirmed", nil, []answer{
			{response: done().response, err: unavailable, pushback: "1"}, begun,
		}, codes.OK, "ab", 2},
		{"never again", nil, []answer{{err: unavailable, pushback: "-1"}}, codes.Unavailable, "", 1},
		{"pushback that is no number", nil, []answer{{err: unavailable, pushback: "soon"}}, codes.Unavailable, "", 1},
		{"refused", nil, []answer{refused}, codes.FailedPrecondition, "x", 1},
		{"limited", []grpc.DialOption{WithWaitForLimit()}, []answer{limit, begun}, codes.OK, "ab", 2},
		{"limited and not told to wait", nil, []answer{limit}, codes.ResourceExhausted, "", 1},
		{"retries start anew after a limit", []grpc.DialOption{WithWaitForLimit()}, []answer{
			broken, broken, limit, broken, broken, broken, broken, begun,
		}, codes.OK, "xxxxxxab", 8},
		{"older server", nil, []answer{old, done()}, codes.OK, "", 2},
		{"no result", nil, []answer{{progress: []string{"x"}}}, codes.Internal, "x", 1},
	} {
		t.Run(each.name, func(t *testing.T) {
			target, served := serve(t, nil, nil, each.answers...)
			request := newRequest(t)
			result, texts, err := streamed(t, dial(t, target, each.options...), request)
			if status.Code(err) != each.code || strings.Join(texts, "") != each.texts || len(served.arrivals) != each.attempts {
				t.Errorf("got %v, %v after %d attempts", err, texts, len(served.arrivals))
			}
			if (err == nil) != (result == "done") {
				t.Errorf("got the result %v", result)
			}
			for _, seen := range served.arrivals {
				if seen.request.RequestId != request.RequestId {
					t.Error("an attempt has another request_id")
				}
			}
		})
	}
}

func TestStreamThatBreaksIsInDoubt(t *testing.T) {
	broken := answer{progress: []string{"x"}, err: status.Error(codes.Unavailable, "No."), pushback: "-1"}
	target, _ := serve(t, nil, nil, broken)
	request := newRequest(t)
	_, _, err := streamed(t, dial(t, target), request)
	if refused, ok := FromError(err); !ok || refused.NotRun || !strings.HasSuffix(err.Error(), inDoubt+request.RequestId+".") {
		t.Errorf("got %v", err)
	}
}

func TestEndsOfStream(t *testing.T) {
	for name, each := range map[string]struct {
		end   func(*Conn, context.CancelFunc)
		cause error
	}{
		"cancel": {func(_ *Conn, cancel context.CancelFunc) { cancel() }, context.Canceled},
		"close":  {func(conn *Conn, _ context.CancelFunc) { _ = conn.Close() }, ErrClosed},
	} {
		for _, options := range [][]grpc.DialOption{nil, {WithoutRetries()}} {
			t.Run(name, func(t *testing.T) {
				target, served := serve(t, nil, nil, answer{progress: []string{"x"}, never: true})
				conn := dial(t, target, options...)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				_, _, err := CallTool[any](ctx, conn, newRequest(t), WithProgress(func(*aiv1.Progress) { each.end(conn, cancel) }))
				refused, ok := FromError(err)
				if !ok || refused.Code != codes.Canceled || refused.NotRun || !errors.Is(err, each.cause) {
					t.Errorf("got %v", err)
				}
				<-served.left
			})
		}
	}
}

func TestReportThatPanicsEndsTheStream(t *testing.T) {
	target, served := serve(t, nil, nil, answer{progress: []string{"x"}, never: true})
	conn := dial(t, target)
	func() {
		defer func() {
			if came := recover(); came != "oops" {
				t.Errorf("recovered %v", came)
			}
		}()
		_, _, _ = CallTool[any](t.Context(), conn, newRequest(t), WithProgress(func(*aiv1.Progress) { panic("oops") }))
	}()
	<-served.left
}

func TestReportThatIsSlowLosesNothing(t *testing.T) {
	late := done()
	late.progress = slices.Repeat([]string{"x"}, 20)
	target, _ := serve(t, nil, nil, late)
	came := 0
	result, _, err := CallTool[any](t.Context(), dial(t, target), newRequest(t), WithProgress(func(*aiv1.Progress) {
		came++
		time.Sleep(10 * time.Millisecond)
	}))
	if err != nil || result != "done" || came != 20 {
		t.Errorf("got %v, %v after %d messages", result, err, came)
	}
}

func TestProgressOfWhatIsNoTool(t *testing.T) {
	target, _ := serve(t, nil, nil, answer{})
	report := WithProgress(func(*aiv1.Progress) { t.Error("reported") })
	said, err := aiv1.NewToolServiceClient(dial(t, target)).Status(t.Context(), &aiv1.StatusRequest{}, report)
	if err != nil || !said.Enabled {
		t.Errorf("got %v, %v", said, err)
	}
}

func TestBackoffFollowsTheServiceConfig(t *testing.T) {
	if streamPolicy.MaxAttempts != 5 || len(streamPolicy.RetryableStatusCodes) != 2 {
		t.Fatalf("got %+v", streamPolicy)
	}
	for retries, want := range []time.Duration{100, 200, 400, 800, 1600, 2000, 2000} {
		got, want := streamPolicy.backoff(retries), want*time.Millisecond
		if got < want*8/10 || got > want*12/10 {
			t.Errorf("waited %s before retry %d", got, retries+1)
		}
	}
}
