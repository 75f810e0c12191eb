// Probe calls a tool as its flags say, and prints what came of each call as a line of JSON: for tests/clients.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	aiv1 "github.com/Agenta-AI/agenta-ai-grpc/clients/go/agenta/ai/v1"
	"github.com/Agenta-AI/agenta-ai-grpc/clients/go/agentaai"
)

// outcome is what came of one call.
type outcome struct {
	Seconds  float64
	Result   map[string]any        `json:",omitempty"`
	Refused  *agentaai.CallError   `json:",omitempty"`
	Failed   *agentaai.ToolError   `json:",omitempty"`
	Reason   string                `json:",omitempty"`
	Error    string                `json:",omitempty"`
	Attempts []map[string][]string // the trailers of each
}

func main() {
	log.SetFlags(0)
	target := flag.String("target", "", "address of the server")
	tool := flag.String("tool", "tools.agenta.api.refine_prompt", "name of the tool")
	arguments := flag.String("arguments", "{}", "its arguments, a JSON object")
	timeout := flag.Duration("timeout", 20*time.Second, "deadline of each call")
	calls := flag.Int("calls", 1, "how many calls to make")
	together := flag.Bool("together", false, "make them at the same time, and not one after the other")
	wait := flag.Bool("wait", false, "wait for the rate limit")
	flag.Parse()

	var given map[string]any
	if err := json.Unmarshal([]byte(*arguments), &given); err != nil {
		log.Fatal(err)
	}
	seen := new(attempts)
	options := []grpc.DialOption{agentaai.WithAPIKey(os.Getenv("AGENTA_AI_API_KEY")), grpc.WithStatsHandler(seen)}
	if *wait {
		options = append(options, agentaai.WithWaitForLimit())
	}
	conn, err := agentaai.Dial(*target, options...)
	if err != nil {
		log.Fatal(err)
	}
	output := json.NewEncoder(os.Stdout)
	var writing sync.Mutex
	probe := func() {
		request, err := agentaai.NewRequest(*tool, given)
		if err != nil {
			log.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), *timeout)
		defer cancel()
		result := outcomeOf(ctx, conn, request)
		writing.Lock()
		defer writing.Unlock()
		result.Attempts = seen.take()
		if err := output.Encode(result); err != nil {
			log.Fatal(err)
		}
	}
	var probes sync.WaitGroup
	for range *calls {
		if *together {
			probes.Go(probe)
		} else {
			probe()
		}
	}
	probes.Wait()
}

func outcomeOf(ctx context.Context, conn *agentaai.Conn, request *aiv1.CallToolRequest) outcome {
	var result outcome
	var err error
	began := time.Now()
	result.Result, _, err = agentaai.CallTool[map[string]any](ctx, conn, request)
	result.Seconds = time.Since(began).Seconds()
	if err != nil {
		result.Error = err.Error()
	}
	if refused, ok := errors.AsType[*agentaai.CallError](err); ok {
		result.Refused, result.Reason = refused, refused.Reason.String()
	}
	if failed, ok := errors.AsType[*agentaai.ToolError](err); ok {
		result.Failed, result.Reason = failed, failed.Reason.String()
	}
	return result
}

// attempts keeps the trailers of all that is sent, retries included, which the caller of a stub doesn't see.
type attempts struct {
	mu       sync.Mutex
	trailers []map[string][]string
}

func (a *attempts) take() []map[string][]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	taken := a.trailers
	a.trailers = nil
	return taken
}

func (a *attempts) HandleRPC(ctx context.Context, event stats.RPCStats) {
	if _, isTool := ctx.Value(isToolKey{}).(bool); !isTool {
		return
	}
	if end, ok := event.(*stats.InTrailer); ok {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.trailers = append(a.trailers, end.Trailer)
	}
}

type isToolKey struct{}

// TagRPC marks calls of tools: the connection also asks for the server's health.
func (*attempts) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	if info.FullMethodName == "/agenta.ai.v1.ToolService/CallTool" {
		return context.WithValue(ctx, isToolKey{}, true)
	}
	return ctx
}

func (*attempts) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*attempts) HandleConn(context.Context, stats.ConnStats)                       {}
