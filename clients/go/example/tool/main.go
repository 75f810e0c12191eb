// Tool calls a tool that a tools file describes: start the server with agenta-ai-server dev --tools examples/tools.toml.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/Agenta-AI/agenta-ai-grpc/clients/go/agentaai"
)

func main() {
	if err := classify(cmp.Or(os.Getenv("TICKET"), "My invoice is wrong.")); err != nil {
		log.Fatal(err)
	}
}

func classify(ticket string) error {
	conn, err := agentaai.Dial(cmp.Or(os.Getenv("AGENTA_AI_TARGET"), "127.0.0.1:50051"),
		agentaai.WithAPIKey(os.Getenv("AGENTA_AI_API_KEY")))
	if err != nil {
		return err
	}
	defer conn.Close()
	request, err := agentaai.NewRequest("tools.examples.support.classify_ticket", map[string]any{"ticket": ticket})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	type classification struct {
		Queue   string `json:"queue"`
		Urgency int    `json:"urgency"`
	}
	found, _, err := agentaai.CallTool[classification](ctx, conn, request)
	if err != nil {
		return err
	}
	fmt.Println(found.Queue, found.Urgency)
	return nil
}
