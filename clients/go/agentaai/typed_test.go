package agentaai

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	apiv1 "github.com/Agenta-AI/agenta-ai-grpc/clients/go/agenta/ai/tools/agenta/api/v1"
	aiv1 "github.com/Agenta-AI/agenta-ai-grpc/clients/go/agenta/ai/v1"
)

// typedService answers calls in turn, and keeps what it got.
type typedService struct {
	apiv1.UnimplementedApiToolsServiceServer
	answers  []error
	failure  *aiv1.ToolError
	ids      []string
	deadline time.Duration
}

func (s *typedService) RefinePrompt(
	ctx context.Context, request *apiv1.RefinePromptRequest,
) (*apiv1.RefinePromptResponse, error) {
	s.ids = append(s.ids, request.GetRequestId())
	if deadline, ok := ctx.Deadline(); ok {
		s.deadline = time.Until(deadline)
	}
	if len(s.answers) > 0 {
		answer := s.answers[0]
		s.answers = s.answers[1:]
		return nil, answer
	}
	content := []*aiv1.ContentBlock{{Kind: &aiv1.ContentBlock_Text{Text: "said"}}}
	if s.failure != nil {
		_ = grpc.SetTrailer(ctx, metadata.Pairs("x-request-id", "c"))
		return &apiv1.RefinePromptResponse{
			Outcome: &apiv1.RefinePromptResponse_Error{Error: s.failure}, Content: content,
		}, nil
	}
	summary := "done"
	result := &apiv1.RefinePromptResponse_Result{Summary: &summary}
	return &apiv1.RefinePromptResponse{
		Outcome: &apiv1.RefinePromptResponse_Result_{Result: result}, Content: content,
	}, nil
}

// typed returns a generated client of the service.
func typed(t *testing.T, served *typedService, options ...grpc.DialOption) apiv1.ApiToolsServiceClient {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	healthy := health.NewServer()
	healthy.SetServingStatus(aiv1.ToolService_ServiceDesc.ServiceName, healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(server, healthy)
	apiv1.RegisterApiToolsServiceServer(server, served)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	return apiv1.NewApiToolsServiceClient(dial(t, listener.Addr().String(), options...))
}

func TestTypedCall(t *testing.T) {
	served := &typedService{}
	client := typed(t, served)
	request := &apiv1.RefinePromptRequest{}
	for range 2 {
		response, err := client.RefinePrompt(t.Context(), request)
		if err != nil || response.GetResult().GetSummary() != "done" {
			t.Fatal(response, err)
		}
	}
	if served.ids[0] == "" || served.ids[0] == served.ids[1] || request.GetRequestId() != "" {
		t.Error("each call has a request_id of its own, and the caller's request stays as it is:", served.ids)
	}
	if served.deadline <= 0 || served.deadline > CallTimeout {
		t.Error("deadline", served.deadline)
	}
	request.RequestId = served.ids[0]
	if _, err := client.RefinePrompt(t.Context(), request); err != nil || served.ids[2] != served.ids[0] {
		t.Error("a request_id is kept:", served.ids, err)
	}
}

func TestTypedCallIsRetried(t *testing.T) {
	lost := status.Error(codes.Unavailable, "lost")
	served := &typedService{answers: []error{lost, lost}}
	if _, err := typed(t, served).RefinePrompt(t.Context(), &apiv1.RefinePromptRequest{}); err != nil {
		t.Fatal(err)
	}
	if len(served.ids) != 3 || served.ids[0] != served.ids[2] {
		t.Error("all attempts have the same request_id:", served.ids)
	}
	served = &typedService{answers: []error{lost}}
	_, err := typed(t, served, WithoutRetries()).RefinePrompt(t.Context(), &apiv1.RefinePromptRequest{})
	failure, ok := errors.AsType[*CallError](err)
	if !ok || failure.Code != codes.Unavailable || failure.NotRun || failure.RequestID != served.ids[0] {
		t.Error(err)
	}
}

func TestTypedToolError(t *testing.T) {
	reason := aiv1.ErrorReason_ERROR_REASON_UPSTREAM_TIMEOUT
	served := &typedService{failure: &aiv1.ToolError{Reason: reason}}
	_, err := typed(t, served).RefinePrompt(t.Context(), &apiv1.RefinePromptRequest{})
	failed, ok := errors.AsType[*ToolError](err)
	if !ok || failed.Reason != reason || failed.Message != "said" || failed.CallID != "c" || failed.RequestID != served.ids[0] {
		t.Error(err)
	}
}
