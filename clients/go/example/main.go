// Example refines a prompt.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/Agenta-AI/agenta-ai-grpc/clients/go/agentaai"
)

func main() {
	if err := refine(); err != nil {
		log.Fatal(err)
	}
}

func refine() error {
	// Plaintext to this machine, TLS to any other. One connection serves a whole program.
	conn, err := agentaai.Dial(cmp.Or(os.Getenv("AGENTA_AI_TARGET"), "127.0.0.1:50051"),
		agentaai.WithAPIKey(os.Getenv("AGENTA_AI_API_KEY")),
		agentaai.WithWaitForLimit())
	if err != nil {
		return err
	}
	defer conn.Close()

	// The request has a new request_id, which retries keep. The arguments are anything that encodes as a JSON object.
	request, err := agentaai.NewRequest("tools.agenta.api.refine_prompt", map[string]any{
		"prompt_template_json": `{"messages": [{"role": "user", "content": "Please translate {{text}}"}]}`,
		"guidelines":           "Be brief.",
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	type refinement struct {
		Template string `json:"prompt_template_json"`
		Summary  string `json:"summary"`
	}
	refined, _, err := agentaai.CallTool[refinement](ctx, conn, request)
	if refused, ok := errors.AsType[*agentaai.CallError](err); ok && refused.NotRun {
		for _, broken := range refused.FieldViolations {
			log.Printf("%s: %s", broken.Field, broken.Description)
		}
		return fmt.Errorf("not run, so nothing is billed: %w", err)
	}
	if failed, ok := errors.AsType[*agentaai.ToolError](err); ok && failed.Retryable {
		return fmt.Errorf("send the same request again after %s: %w", failed.RetryDelay, err)
	}
	if err != nil {
		return err // the call may have run: repeat it with the request_id of the error
	}
	fmt.Println(refined.Template)
	return nil
}
