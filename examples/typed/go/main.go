// Typed calls the three tools of examples/tools.toml by clients that were generated from their .proto files. It needs
// Go, agenta-ai-server and buf, https://buf.build/docs/installation. In this folder:
//
//	agenta-ai-server tools proto --file ../../tools.toml --out protos
//	buf generate
//	agenta-ai-server dev --tools ../../tools.toml -- go run .
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"

	"github.com/Agenta-AI/agenta-ai-grpc/clients/go/agentaai"

	salesv1 "example.com/typed/agenta/ai/tools/examples/sales/v1"
	supportv1 "example.com/typed/agenta/ai/tools/examples/support/v1"
	textv1 "example.com/typed/agenta/ai/tools/examples/text/v1"
)

const (
	order   = "Two blue mugs and a teapot to Ada Lovelace, 12 St James's Square, London."
	meeting = "The meeting on Monday was moved to Tuesday at ten, because the room is taken."
)

func main() {
	if err := run(context.Background()); err != nil {
		if refused, ok := errors.AsType[*agentaai.CallError](err); ok && refused.NotRun {
			log.Print("not run, so nothing is billed")
		}
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	// The connection adds the credential, a deadline, a request_id and retries to each call.
	conn, err := agentaai.Dial(cmp.Or(os.Getenv("AGENTA_AI_TARGET"), "127.0.0.1:50051"),
		agentaai.WithAPIKey(os.Getenv("AGENTA_AI_API_KEY")))
	if err != nil {
		return err
	}
	defer conn.Close()

	ticket := "My invoice is wrong."
	classified, err := supportv1.NewSupportToolsServiceClient(conn).ClassifyTicket(ctx,
		&supportv1.ClassifyTicketRequest{Arguments: &supportv1.ClassifyTicketRequest_Arguments{Ticket: &ticket}})
	if err != nil {
		return err
	}
	fmt.Printf("%s, urgency %d\n", classified.GetResult().GetQueue(), classified.GetResult().GetUrgency())

	text := order
	extracted, err := salesv1.NewSalesToolsServiceClient(conn).ExtractOrder(ctx,
		&salesv1.ExtractOrderRequest{Arguments: &salesv1.ExtractOrderRequest_Arguments{Text: &text}})
	if err != nil {
		return err
	}
	var items []string
	for _, item := range extracted.GetResult().GetItems() {
		items = append(items, fmt.Sprintf("%d %s", item.GetQuantity(), item.GetProduct()))
	}
	customer := extracted.GetResult().GetCustomer()
	fmt.Printf("%s for %s, %s\n", strings.Join(items, ", "), customer.GetName(), customer.GetAddress().GetCity())

	text = meeting
	summary, err := textv1.NewTextToolsServiceClient(conn).Summarize(ctx,
		&textv1.SummarizeRequest{Arguments: &textv1.SummarizeRequest_Arguments{Text: &text}})
	if err != nil {
		return err
	}
	fmt.Println(summary.GetResult().GetText())
	return nil
}
