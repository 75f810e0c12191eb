package agentaai

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	aiv1 "github.com/Agenta-AI/agenta-ai-grpc/clients/go/agenta/ai/v1"
)

type progressOption struct {
	grpc.EmptyCallOption
	report func(*aiv1.Progress)
}

// WithProgress makes a call of a tool report what is happening to it while it runs: that it is queued, has started, waits
// for a retry, and so on. The call has the same result, errors, deadline and retries as without it, and the same
// request_id is the same call.
//
// Progress is for display: stages may be skipped or repeated, for example after a retry. report is called in the goroutine
// of the call, one message after the other, and never after the call has returned. Meanwhile the server leaves out what
// would be too much, and only the result waits. A server that is older than this option reports nothing.
//
// Only a [Conn] understands it, in calls by CallTool: any other connection ignores it, and so does a tool's own method.
func WithProgress(report func(*aiv1.Progress)) grpc.CallOption {
	return progressOption{report: report}
}

// reportOf returns the function of the last [WithProgress], or nil.
func reportOf(options []grpc.CallOption) func(*aiv1.Progress) {
	var report func(*aiv1.Progress)
	for _, option := range options {
		if progress, ok := option.(progressOption); ok {
			report = progress.report
		}
	}
	return report
}

// send makes an attempt: a stream if progress is to be reported.
func (a *attempts) send(ctx context.Context, method string, request, reply any, options ...grpc.CallOption) error {
	if a.report != nil {
		err := a.stream(ctx, request.(*aiv1.CallToolRequest), reply.(*aiv1.CallToolResponse), options...)
		if status.Code(err) != codes.Unimplemented {
			return err
		}
		// The server is older than the method.
		a.report, a.policy = nil, retryPolicy{}
	}
	return a.conn.Invoke(ctx, method, request, reply, options...)
}

// stream makes an attempt that reports progress, and fills reply with the result.
func (a *attempts) stream(
	ctx context.Context, request *aiv1.CallToolRequest, reply *aiv1.CallToolResponse, options ...grpc.CallOption,
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // if report panics
	stream, err := aiv1.NewToolServiceClient(a.conn).CallToolStream(ctx, &aiv1.CallToolStreamRequest{
		Name:                  request.GetName(),
		Arguments:             request.GetArguments(),
		RequestId:             request.GetRequestId(),
		RerunIfOutcomeUnknown: request.GetRerunIfOutcomeUnknown(),
	}, options...)
	if err != nil {
		return err
	}
	var result *aiv1.CallToolResponse
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		switch event := response.GetEvent().(type) {
		case *aiv1.CallToolStreamResponse_Progress:
			a.report(event.Progress)
		case *aiv1.CallToolStreamResponse_Result:
			result = event.Result
		}
	}
	if result == nil {
		return status.Error(codes.Internal, "The stream ended without a result")
	}
	proto.Reset(reply)
	proto.Merge(reply, result)
	return nil
}
