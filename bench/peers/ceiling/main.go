// The tool as a Go server has it: about the least that forwarding a call can cost.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"time"

	aiv1 "github.com/Agenta-AI/agenta-ai-grpc/clients/go/agenta/ai/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
)

var variable = regexp.MustCompile(`\{\{\s*([^{}]+?)\s*\}\}`)

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type refinement struct {
	Messages []message `json:"messages"`
	Summary  string    `json:"summary"`
}

type server struct {
	aiv1.UnimplementedToolServiceServer
	client *http.Client
	url    string
}

func (s *server) CallTool(ctx context.Context, request *aiv1.CallToolRequest) (*aiv1.CallToolResponse, error) {
	var template map[string]any
	var given refinement
	source := []byte(request.GetArguments().GetFields()["prompt_template_json"].GetStringValue())
	if json.Unmarshal(source, &template) != nil || json.Unmarshal(source, &given) != nil || len(given.Messages) == 0 {
		return nil, status.Error(codes.InvalidArgument, "arguments.prompt_template_json: no template")
	}
	written, err := s.complete(ctx, given.Messages)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	if !slices.EqualFunc(given.Messages, written.Messages, same) {
		text := &aiv1.ContentBlock{Kind: &aiv1.ContentBlock_Text{Text: "The refinement would break the prompt."}}
		return &aiv1.CallToolResponse{Content: []*aiv1.ContentBlock{text}, IsError: true}, nil
	}
	return answer(template, written)
}

func (s *server) complete(ctx context.Context, messages []message) (refinement, error) {
	var written refinement
	prompt, err := json.Marshal(map[string]any{"messages": messages})
	if err != nil {
		return written, err
	}
	inputs := map[string]string{"__ag_prompt_template_json": string(prompt), "__ag_guidelines": "", "__ag_context": ""}
	body, err := json.Marshal(map[string]any{"inputs": inputs, "environment": "production", "app": "ai-refine"})
	if err != nil {
		return written, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return written, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Authorization", "ApiKey standin-key")
	response, err := s.client.Do(request)
	if err != nil {
		return written, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return written, err
	}
	var completion struct {
		Data string `json:"data"`
	}
	if err := json.Unmarshal(data, &completion); err != nil {
		return written, err
	}
	return written, json.Unmarshal([]byte(completion.Data), &written)
}

// same says whether role and variables are.
func same(one, other message) bool {
	return one.Role == other.Role && slices.Equal(variables(one.Content), variables(other.Content))
}

func variables(text string) []string {
	found := variable.FindAllString(text, -1)
	slices.Sort(found)
	return slices.Compact(found)
}

func answer(template map[string]any, written refinement) (*aiv1.CallToolResponse, error) {
	template["messages"] = written.Messages
	source, err := json.Marshal(template)
	if err != nil {
		return nil, err
	}
	messages := make([]any, len(written.Messages))
	for index, each := range written.Messages {
		messages[index] = map[string]any{"role": each.Role, "content": each.Content}
	}
	structured, err := structpb.NewValue(map[string]any{
		"messages": messages, "summary": written.Summary, "prompt_template_json": string(source),
	})
	if err != nil {
		return nil, err
	}
	text := &aiv1.ContentBlock{Kind: &aiv1.ContentBlock_Text{Text: written.Summary}}
	return &aiv1.CallToolResponse{Content: []*aiv1.ContentBlock{text}, StructuredContent: structured}, nil
}

func main() {
	transport := &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 4096, IdleConnTimeout: time.Minute}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	running := grpc.NewServer()
	aiv1.RegisterToolServiceServer(running, &server{
		client: &http.Client{Transport: transport}, url: os.Getenv("UPSTREAM") + "/services/completion/run",
	})
	log.Printf("listening on %s", listener.Addr())
	log.Fatal(running.Serve(listener))
}
