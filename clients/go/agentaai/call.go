package agentaai

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/structpb"

	aiv1 "github.com/Agenta-AI/agenta-ai-grpc/clients/go/agenta/ai/v1"
)

// CallTimeout is the time that [CallTool] gives to a tool if its context has no deadline.
const CallTimeout = 90 * time.Second

// NewRequest makes a request with a request_id of its own: a UUID, version 4. To repeat a call, send its request again.
//
// The arguments are what [structpb.NewStruct] takes, by the tool's input_schema. Numbers are sent as doubles.
func NewRequest(tool string, arguments map[string]any) (*aiv1.CallToolRequest, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, fmt.Errorf("agentaai: no request id: %w", err)
	}
	packed, err := structpb.NewStruct(arguments)
	if err != nil {
		return nil, fmt.Errorf("agentaai: arguments of %s: %w", tool, err)
	}
	return &aiv1.CallToolRequest{Name: tool, Arguments: packed, RequestId: id.String()}, nil
}

// CallTool runs a tool, and puts its structured content into result as [json.Unmarshal] does; nil is for none.
//
// It fails with a [*CallError] if the call was refused or had no answer, and with a [*ToolError] if the tool ran and
// failed. A result that doesn't fit is any other error; then alone the response comes besides the error, because the tool
// did its work.
func CallTool(
	ctx context.Context, conn grpc.ClientConnInterface, request *aiv1.CallToolRequest, result any,
	options ...grpc.CallOption,
) (*aiv1.CallToolResponse, error) {
	if _, found := ctx.Deadline(); !found {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, CallTimeout)
		defer cancel()
	}
	response, err := aiv1.NewToolServiceClient(conn).CallTool(ctx, request, options...)
	if err != nil {
		return nil, newCallError(err)
	}
	if response.GetIsError() {
		return nil, newToolError(response)
	}
	if result != nil {
		if err := decode(response.GetStructuredContent(), result); err != nil {
			return response, fmt.Errorf("agentaai: result of %s: %w", request.GetName(), err)
		}
	}
	return response, nil
}

func decode(content *structpb.Value, result any) error {
	text, err := content.MarshalJSON()
	if err != nil {
		return err
	}
	return json.Unmarshal(text, result)
}
