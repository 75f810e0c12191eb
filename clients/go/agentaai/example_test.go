package agentaai_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	aiv1 "github.com/Agenta-AI/agenta-ai-grpc/clients/go/agenta/ai/v1"
	"github.com/Agenta-AI/agenta-ai-grpc/clients/go/agentaai"
)

// target is the address of a server for the examples.
var target = serve()

func ExampleCallTool() {
	conn, err := agentaai.Dial(target, agentaai.WithWaitForLimit())
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	type arguments struct {
		Template   string `json:"prompt_template_json"`
		Guidelines string `json:"guidelines,omitempty"`
	}
	request, err := agentaai.NewRequest("tools.agenta.api.refine_prompt", arguments{
		Template: `{"messages": [{"role": "user", "content": "Please translate {{text}}"}]}`, Guidelines: "Be brief.",
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	type refined struct {
		Summary string `json:"summary"`
	}
	result, _, err := agentaai.CallTool[refined](ctx, conn, request)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.Summary)
	// Output: Shorter.
}

func ExampleWithProgress() {
	conn, err := agentaai.Dial(target)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	request, err := agentaai.NewRequest("tools.agenta.api.refine_prompt", map[string]any{
		"prompt_template_json": `{"messages": [{"role": "user", "content": "Please translate {{text}}"}]}`,
	})
	if err != nil {
		log.Fatal(err)
	}
	result, _, err := agentaai.CallTool[map[string]any](context.Background(), conn, request,
		agentaai.WithProgress(func(progress *aiv1.Progress) {
			fmt.Println(progress.Text)
		}))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result["summary"])
	// Output:
	// Asking Agenta.
	// Shorter.
}

func ExampleCallError() {
	conn, err := agentaai.Dial(target)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	request, err := agentaai.NewRequest("tools.example.broken", nil)
	if err != nil {
		log.Fatal(err)
	}
	_, _, err = agentaai.CallTool[any](context.Background(), conn, request)
	if failed, ok := errors.AsType[*agentaai.CallError](err); ok && !failed.NotRun {
		fmt.Println(failed.Code, failed.RequestID == request.RequestId)
	}
	// Output: Internal true
}

func ExampleFromError() {
	conn, err := agentaai.Dial(target)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	_, err = aiv1.NewToolServiceClient(conn).Status(context.Background(), &aiv1.StatusRequest{})
	if failed, ok := agentaai.FromError(err); ok {
		fmt.Println(failed.Code)
	}
	// Output: Unimplemented
}

func ExampleWithTokenSource() {
	source := func(context.Context) (string, error) { return "", errors.New("no such account") }
	conn, err := agentaai.Dial(target, agentaai.WithTokenSource(source))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()

	_, err = aiv1.NewToolServiceClient(conn).Status(context.Background(), &aiv1.StatusRequest{})
	fmt.Println(err)
	// Output: Unauthenticated: transport: per-RPC creds failed due to error: the token source failed: no such account. Nothing was sent.
}

type service struct {
	aiv1.UnimplementedToolServiceServer
}

func (service) CallTool(_ context.Context, request *aiv1.CallToolRequest) (*aiv1.CallToolResponse, error) {
	if request.GetName() == "tools.example.broken" {
		return nil, status.Error(codes.Internal, "A bug.")
	}
	content := &structpb.Struct{Fields: map[string]*structpb.Value{"summary": structpb.NewStringValue("Shorter.")}}
	return &aiv1.CallToolResponse{StructuredContent: structpb.NewStructValue(content)}, nil
}

func (s service) CallToolStream(
	request *aiv1.CallToolStreamRequest, stream grpc.ServerStreamingServer[aiv1.CallToolStreamResponse],
) error {
	asking := &aiv1.Progress{Stage: aiv1.ProgressStage_PROGRESS_STAGE_ASKING, Text: "Asking Agenta."}
	result, err := s.CallTool(stream.Context(), &aiv1.CallToolRequest{Name: request.GetName()})
	return errors.Join(err,
		stream.Send(&aiv1.CallToolStreamResponse{Event: &aiv1.CallToolStreamResponse_Progress{Progress: asking}}),
		stream.Send(&aiv1.CallToolStreamResponse{Event: &aiv1.CallToolStreamResponse_Result{Result: result}}))
}

func serve() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	aiv1.RegisterToolServiceServer(server, service{})
	go func() { _ = server.Serve(listener) }()
	return listener.Addr().String()
}
