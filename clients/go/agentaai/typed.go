package agentaai

import (
	"context"
	"strings"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	aiv1 "github.com/Agenta-AI/agenta-ai-grpc/clients/go/agenta/ai/v1"
)

// typedPrefix begins the names of the methods that tools have of their own.
const typedPrefix = "/agenta.ai.tools."

// toolResponse is what the responses of all tools have.
type toolResponse interface {
	GetError() *aiv1.ToolError
	GetContent() []*aiv1.ContentBlock
	GetMeta() *aiv1.CallMeta
}

// invokeTyped makes a call by a tool's own method: with a request_id, because it is retried, and with a deadline.
func (c *Conn) invokeTyped(
	ctx context.Context, method string, request, reply any, options ...grpc.CallOption,
) error {
	request, err := withRequestID(request)
	if err != nil {
		return err
	}
	if _, found := ctx.Deadline(); !found {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, CallTimeout)
		defer cancel()
	}
	var trailer metadata.MD
	all := append(options[:len(options):len(options)], grpc.Trailer(&trailer))
	if err := c.invoke(ctx, method, request, reply, all...); err != nil {
		return err
	}
	if response, ok := reply.(toolResponse); ok && response.GetError() != nil {
		return newToolError(requestIDOf(request), response, trailer)
	}
	return nil
}

// withRequestID returns the request, or a copy with a new request_id if it has none.
func withRequestID(request any) (any, error) {
	message, ok := request.(proto.Message)
	if !ok || requestIDOf(request) != "" {
		return request, nil
	}
	field := message.ProtoReflect().Descriptor().Fields().ByName("request_id")
	if field == nil || field.Kind() != protoreflect.StringKind {
		return request, nil
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, err
	}
	named := proto.Clone(message)
	named.ProtoReflect().Set(field, protoreflect.ValueOfString(id.String()))
	return named, nil
}

func requestIDOf(request any) string {
	if named, ok := request.(interface{ GetRequestId() string }); ok {
		return named.GetRequestId()
	}
	return ""
}

// isTyped is whether a tool has this method of its own.
func isTyped(method string) bool { return strings.HasPrefix(method, typedPrefix) }
