// Refines a prompt, and shows the progress.
import { Client } from "agenta-ai";

using client = new Client(process.env.AGENTA_AI_TARGET ?? "127.0.0.1:50051", { apiKey: process.env.AGENTA_AI_API_KEY });
const events = client.streamTool<{ summary: string }>("tools.agenta.api.refine_prompt", {
  prompt_template_json: '{"messages": [{"role": "user", "content": "Please translate {{text}}"}]}',
});
for await (const event of events) {
  if (event.type === "progress") {
    console.error(event.progress.text);
  } else if (event.type === "result") {
    console.log(event.result.summary);
  }
}
