// Conformance is this client as a conformance program: see tests/conformance/README.md.
package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	_ "google.golang.org/genproto/googleapis/rpc/errdetails" // knows the details of errors
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // is what encodes all but raw bytes
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	apiv1 "github.com/Agenta-AI/agenta-ai-grpc/clients/go/agenta/ai/tools/agenta/api/v1"
	aiv1 "github.com/Agenta-AI/agenta-ai-grpc/clients/go/agenta/ai/v1"
	"github.com/Agenta-AI/agenta-ai-grpc/clients/go/agentaai"
)

const (
	servicePath  = "/agenta.ai.v1.ToolService/"
	streamMethod = "CallToolStream"
	typedMethod  = "RefinePrompt"
)

// call is what the runner asks for.
type call struct {
	ID            string            `json:"id"`
	Target        string            `json:"target"`
	Method        string            `json:"method"`
	Request       json.RawMessage   `json:"request"`
	RequestBase64 *string           `json:"request_base64"`
	Metadata      map[string]string `json:"metadata"`
	Timeout       *float64          `json:"timeout"`
	CancelAfter   *float64          `json:"cancel_after"`
	Client        string            `json:"client"`
	WaitForLimit  bool              `json:"wait_for_limit"`
	Retries       *bool             `json:"retries"`
	CloseAfter    *float64          `json:"close_after"`
	ReadAfter     float64           `json:"read_after"`
}

// result is what came of it.
type result struct {
	ID       string              `json:"id"`
	Code     string              `json:"code"`
	Message  string              `json:"message"`
	Details  []any               `json:"details"`
	Response json.RawMessage     `json:"response,omitempty"`
	Progress *[]json.RawMessage  `json:"progress,omitempty"`
	Native   json.RawMessage     `json:"native,omitempty"`
	Metadata map[string][]string `json:"metadata"`
	Seconds  float64             `json:"seconds"`
	Outcome  *outcome            `json:"outcome,omitempty"`
}

// outcome is what an error of the shipped client says of the call.
type outcome struct {
	NotRun    bool   `json:"not_run"`
	RequestID string `json:"request_id"`
	Sentence  string `json:"sentence"`
}

type failure struct {
	ID    string `json:"id"`
	Error string `json:"error"`
}

// connections has those that are open, by all that makes them differ.
type connections map[connection]grpc.ClientConnInterface

type connection struct {
	target, client string
	waits, retries bool
}

func main() {
	log.SetFlags(0)
	// Not a bufio.Scanner: lines have a megabyte and more.
	input, output, open := bufio.NewReader(os.Stdin), json.NewEncoder(os.Stdout), connections{}
	for {
		line, err := input.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return
		}
		var asked call
		if err == nil {
			err = json.Unmarshal(line, &asked)
		}
		if err != nil {
			log.Fatal(err)
		}
		var answer any
		if answer, err = open.run(asked); err != nil {
			answer = failure{asked.ID, err.Error()}
		}
		if err := output.Encode(answer); err != nil {
			log.Fatal(err)
		}
	}
}

func (open connections) run(asked call) (*result, error) {
	wanted := connection{asked.Target, asked.Client, asked.WaitForLimit, asked.Retries == nil || *asked.Retries}
	conn, err := open.to(wanted)
	if err != nil {
		return nil, err
	}
	request, response, err := messages(asked)
	if err != nil {
		return nil, err
	}
	// Before the timers, which must not seem to be early.
	began := time.Now()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if asked.Timeout != nil {
		var done context.CancelFunc
		ctx, done = context.WithTimeout(ctx, seconds(*asked.Timeout))
		defer done()
	}
	if asked.CancelAfter != nil {
		defer time.AfterFunc(seconds(*asked.CancelAfter), cancel).Stop()
	}
	if asked.CloseAfter != nil {
		delete(open, wanted)
		closing := conn.(io.Closer)
		defer time.AfterFunc(seconds(*asked.CloseAfter), func() { _ = closing.Close() }).Stop()
	}
	ctx = metadata.NewOutgoingContext(ctx, metadata.New(asked.Metadata))
	var header, trailer metadata.MD
	var progress *[]json.RawMessage
	options := []grpc.CallOption{
		grpc.Header(&header), grpc.Trailer(&trailer), grpc.ForceCodecV2(rawCodec{encoding.GetCodecV2("proto")}),
	}
	if asked.Method == streamMethod {
		progress = &[]json.RawMessage{}
		err = stream(ctx, conn, asked, request, response, func(came *aiv1.Progress) {
			text, _ := protojson.Marshal(came)
			*progress = append(*progress, text)
		}, options)
	} else {
		err = conn.Invoke(ctx, path(asked.Method), request, response, options...)
	}
	if _, ran := errors.AsType[*agentaai.ToolError](err); ran { // of a typed method, whose response says why it failed
		err = nil
	}
	said := status.Convert(err)
	answer := &result{
		ID:       asked.ID,
		Code:     code.Code(said.Code()).String(),
		Message:  said.Message(),
		Details:  details(said.Proto().GetDetails()),
		Progress: progress,
		Metadata: texts(header, trailer),
		Seconds:  time.Since(began).Seconds(),
	}
	if err == nil {
		err = answer.show(response)
		return answer, err
	}
	if refused, ok := errors.AsType[*agentaai.CallError](err); ok {
		answer.Outcome = &outcome{refused.NotRun, refused.RequestID, refused.Error()}
	}
	return answer, nil
}

// stream makes a call with progress: as the shipped client does, or message by message.
func stream(
	ctx context.Context, conn grpc.ClientConnInterface, asked call, request any, response proto.Message,
	report func(*aiv1.Progress), options []grpc.CallOption,
) error {
	if asked.Client == "shipped" {
		return conn.Invoke(ctx, servicePath+"CallTool", request, response, append(options, agentaai.WithProgress(report))...)
	}
	opened, err := conn.NewStream(ctx, &aiv1.ToolService_ServiceDesc.Streams[0], servicePath+streamMethod, options...)
	if err != nil {
		return err
	}
	if err := errors.Join(opened.SendMsg(request), opened.CloseSend()); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	time.Sleep(seconds(asked.ReadAfter))
	for {
		var event aiv1.CallToolStreamResponse
		if err := opened.RecvMsg(&event); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if progress := event.GetProgress(); progress != nil {
			report(progress)
		}
		if result := event.GetResult(); result != nil {
			proto.Merge(response, result)
		}
	}
}

func (open connections) to(wanted connection) (grpc.ClientConnInterface, error) {
	if conn, found := open[wanted]; found {
		return conn, nil
	}
	var conn grpc.ClientConnInterface
	var err error
	switch {
	case wanted.client == "bare":
		conn, err = grpc.NewClient(wanted.target,
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry())
	default:
		var options []grpc.DialOption
		if wanted.waits {
			options = append(options, agentaai.WithWaitForLimit())
		}
		if !wanted.retries {
			options = append(options, agentaai.WithoutRetries())
		}
		conn, err = agentaai.Dial(wanted.target, options...)
	}
	if err == nil {
		open[wanted] = conn
	}
	return conn, err
}

func path(method string) string {
	if method == typedMethod {
		return apiv1.ApiToolsService_RefinePrompt_FullMethodName
	}
	return servicePath + method
}

// messages are what is sent, a message or its bytes, and what is to be filled.
func messages(asked call) (any, proto.Message, error) {
	var request, response proto.Message
	switch asked.Method {
	case "Status":
		request, response = &aiv1.StatusRequest{}, &aiv1.StatusResponse{}
	case "ListTools":
		request, response = &aiv1.ListToolsRequest{}, &aiv1.ListToolsResponse{}
	case "CallTool":
		request, response = &aiv1.CallToolRequest{}, &aiv1.CallToolResponse{}
	case streamMethod:
		request, response = &aiv1.CallToolStreamRequest{}, &aiv1.CallToolResponse{}
		if asked.Client == "shipped" { // which makes a stream of what would be a single call
			request = &aiv1.CallToolRequest{}
		}
	case typedMethod:
		request, response = &apiv1.RefinePromptRequest{}, &apiv1.RefinePromptResponse{}
	default:
		return nil, nil, fmt.Errorf("unknown method %q", asked.Method)
	}
	if asked.RequestBase64 != nil {
		data, err := base64.StdEncoding.DecodeString(*asked.RequestBase64)
		return data, response, err
	}
	return request, response, protojson.Unmarshal(asked.Request, request)
}

// rawCodec sends bytes as they are.
type rawCodec struct{ encoding.CodecV2 }

func (codec rawCodec) Marshal(message any) (mem.BufferSlice, error) {
	if data, isRaw := message.([]byte); isRaw {
		return mem.BufferSlice{mem.SliceBuffer(data)}, nil
	}
	return codec.CodecV2.Marshal(message)
}

func details(packed []*anypb.Any) []any {
	shown := []any{}
	for _, each := range packed {
		if text, err := protojson.Marshal(each); err == nil {
			shown = append(shown, json.RawMessage(text))
		} else { // of a type that isn't known here
			shown = append(shown, map[string]any{"@type": each.GetTypeUrl(), "value": each.GetValue()})
		}
	}
	return shown
}

// show adds what a call was answered.
func (answer *result) show(response proto.Message) error {
	var err error
	if answer.Response, err = protojson.Marshal(response); err != nil {
		return err
	}
	if called, isCall := response.(*aiv1.CallToolResponse); isCall && called.GetStructuredContent() != nil {
		answer.Native, err = json.Marshal(called.GetStructuredContent().AsInterface())
	}
	return err
}

func texts(both ...metadata.MD) map[string][]string {
	found := map[string][]string{}
	for name, values := range metadata.Join(both...) {
		if !strings.HasSuffix(name, "-bin") {
			found[name] = values
		}
	}
	return found
}

func seconds(number float64) time.Duration { return time.Duration(number * float64(time.Second)) }
