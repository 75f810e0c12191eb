// Calls the three tools of examples/tools.toml by code that was generated from their .proto files. In this folder:
//
//   npm install
//   agenta-ai-server tools proto --file ../../tools.toml --out protos
//   buf generate && npx tsc
//   agenta-ai-server dev --tools ../../tools.toml -- node dist/main.js
import { CallError, Client, ToolError } from "agenta-ai";
import { SalesToolsService } from "./gen/agenta/ai/tools/examples/sales/v1/sales_tools_service_pb.js";
import { SupportToolsService } from "./gen/agenta/ai/tools/examples/support/v1/support_tools_service_pb.js";
import { TextToolsService } from "./gen/agenta/ai/tools/examples/text/v1/text_tools_service_pb.js";

const ORDER = "Two blue mugs and a teapot to Ada Lovelace, 12 St James's Square, London.";
const MEETING = "The meeting on Monday was moved to Tuesday at ten, because the room is taken.";

// The client adds the credential, a deadline, a request_id and retries to each call.
const client = new Client(process.env.AGENTA_AI_TARGET ?? "127.0.0.1:50051", {
  apiKey: process.env.AGENTA_AI_API_KEY,
});
try {
  const ticket = { arguments: { ticket: "My invoice is wrong." } };
  const classified = await client.call(SupportToolsService.method.classifyTicket, ticket);
  if (classified.outcome.case === "result") {
    const { queue, urgency } = classified.outcome.value;
    console.log(`${queue}, urgency ${urgency}`);
  }
  const extracted = await client.call(SalesToolsService.method.extractOrder, { arguments: { text: ORDER } });
  if (extracted.outcome.case === "result") {
    const { customer, items } = extracted.outcome.value;
    const list = items.map(({ quantity, product }) => `${quantity} ${product}`).join(", ");
    console.log(`${list} for ${customer?.name}, ${customer?.address?.city}`);
  }
  const summary = await client.call(TextToolsService.method.summarize, { arguments: { text: MEETING } });
  if (summary.outcome.case === "result") {
    console.log(summary.outcome.value.text);
  }
} catch (error) {
  if (!(error instanceof CallError || error instanceof ToolError)) {
    throw error;
  }
  process.exitCode = 1;
  console.error(error.message);
} finally {
  client.close();
}
