package agentaai

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/structpb"

	aiv1 "github.com/Agenta-AI/agenta-ai-grpc/clients/go/agenta/ai/v1"
)

const (
	// CallTimeout is how long a tool may take if the context of [CallTool] has no deadline.
	CallTimeout = 90 * time.Second

	// maxDepth is the deepest nesting of arguments: protobuf reads at most 100 nested messages, and each level takes three.
	maxDepth = 32

	// replacement is what encoding/json writes and reads in place of text that isn't Unicode. It writes a genuine one as it
	// is, and the others escaped.
	replacement = "\ufffd"
)

// NewRequest returns a request with a new request_id: a UUID, version 4. To repeat a call, send the same request again:
// the server runs it once and returns its result.
//
// The arguments are anything that [json.Marshal] encodes as an object, such as a struct or a map, according to the tool's
// input_schema. nil stands for no arguments. Numbers are sent as doubles, so an integer that a double can't hold exactly
// is an error, and so is text that isn't UTF-8.
//
// If the first run of a request may have been billed and its result is lost, the tool fails with OUTCOME_UNKNOWN. Set
// RerunIfOutcomeUnknown of the request to run it again in that case, which may be billed twice.
func NewRequest(tool string, arguments any) (*aiv1.CallToolRequest, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, fmt.Errorf("agentaai: no request_id: %w", err)
	}
	packed, err := pack(arguments)
	if err != nil {
		return nil, fmt.Errorf("agentaai: arguments of %s: %w", tool, err)
	}
	return &aiv1.CallToolRequest{Name: tool, Arguments: packed, RequestId: id.String()}, nil
}

// CallTool runs a tool and decodes its structured content into a value of type R, as [json.Unmarshal] does. Use any as R
// for whatever comes. R is its zero value if the tool has no structured content.
//
// It fails with a [*CallError] if the call was refused or had no answer, and with a [*ToolError] if the tool ran and
// failed. Any other error means that the tool did its work and its result doesn't fit R; only then is the response
// returned besides an error.
//
// The request must have a request_id, because calls are retried. Without a deadline, ctx gets one of [CallTimeout].
func CallTool[R any](
	ctx context.Context, conn grpc.ClientConnInterface, request *aiv1.CallToolRequest, options ...grpc.CallOption,
) (R, *aiv1.CallToolResponse, error) {
	var result R
	if request.GetRequestId() == "" {
		return result, nil, unsentError(aiv1.ToolService_CallTool_FullMethodName, request, codes.InvalidArgument,
			"The request_id is empty: make the request with NewRequest", nil)
	}
	if _, found := ctx.Deadline(); !found {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, CallTimeout)
		defer cancel()
	}
	var trailer metadata.MD
	all := append(options[:len(options):len(options)], grpc.Trailer(&trailer))
	response, err := aiv1.NewToolServiceClient(conn).CallTool(ctx, request, all...)
	if err != nil {
		if failure, ok := FromError(err); ok {
			failure.describe(aiv1.ToolService_CallTool_FullMethodName, request)
			err = failure
		}
		return result, nil, err
	}
	if response.GetIsError() {
		return result, nil, newToolError(request.GetRequestId(), response, trailer)
	}
	if content := response.GetStructuredContent(); content != nil {
		if err := decode(content, &result); err != nil {
			return result, response, fmt.Errorf("agentaai: result of %s: %w", request.GetName(), err)
		}
	}
	return result, response, nil
}

func decode(content *structpb.Value, result any) error {
	text, err := content.MarshalJSON()
	if err != nil {
		return err
	}
	return json.Unmarshal(text, result)
}

// pack makes arguments a Struct.
func pack(arguments any) (*structpb.Struct, error) {
	if arguments == nil {
		return &structpb.Struct{}, nil
	}
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(arguments); err != nil {
		return nil, err
	}
	genuine := bytes.Count(buffer.Bytes(), []byte(replacement))
	decoder := json.NewDecoder(&buffer)
	decoder.UseNumber()
	var fields map[string]any
	if err := decoder.Decode(&fields); err != nil {
		return nil, fmt.Errorf("%T isn't encoded as a JSON object", arguments)
	}
	if err := check(fields, "arguments", maxDepth); err != nil {
		return nil, err
	}
	if replacements(fields) > genuine {
		return nil, errors.New("a text isn't UTF-8, or has half of a surrogate pair")
	}
	return structpb.NewStruct(fields)
}

// replacements counts what stands for text that isn't Unicode.
func replacements(value any) int {
	count := 0
	switch value := value.(type) {
	case string:
		count = strings.Count(value, replacement)
	case map[string]any:
		for key, item := range value {
			count += strings.Count(key, replacement) + replacements(item)
		}
	case []any:
		for _, item := range value {
			count += replacements(item)
		}
	}
	return count
}

// check returns an error that names the first value that wouldn't arrive as it is.
func check(value any, path string, depth int) error {
	switch value := value.(type) {
	case json.Number:
		return checkNumber(value.String(), path)
	case map[string]any:
		if depth == 0 {
			return errTooDeep(path)
		}
		for key, item := range value {
			if err := check(item, path+"."+key, depth-1); err != nil {
				return err
			}
		}
	case []any:
		if depth == 0 {
			return errTooDeep(path)
		}
		for index, item := range value {
			if err := check(item, fmt.Sprintf("%s[%d]", path, index), depth-1); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkNumber(number, path string) error {
	if strings.ContainsAny(number, ".eE") {
		if _, err := strconv.ParseFloat(number, 64); err != nil {
			return fmt.Errorf("%s: the number %.80s doesn't fit a double: send it as a string", path, number)
		}
		return nil
	}
	if integer, ok := new(big.Int).SetString(number, 10); ok {
		if _, accuracy := new(big.Float).SetInt(integer).Float64(); accuracy == big.Exact {
			return nil
		}
	}
	return fmt.Errorf("%s: the integer %.80s doesn't fit a double: send it as a string", path, number)
}

func errTooDeep(path string) error {
	return fmt.Errorf("%.80s…: nested too deep to be sent: send it as a string of JSON", path)
}
