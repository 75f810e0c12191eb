// Refines a prompt.
import { CallError, callTool, dial, newRequest, ToolError } from "agenta-ai";

// Plaintext to this machine, TLS to any other. One connection serves a whole program.
const connection = dial(process.env.AGENTA_AI_TARGET ?? "127.0.0.1:50051", {
  apiKey: process.env.AGENTA_AI_API_KEY,
  waitForLimit: true,
});
// The request has a new request_id, and keeps it if it is sent again.
const request = newRequest("tools.agenta.api.refine_prompt", {
  prompt_template_json: '{"messages": [{"role": "user", "content": "Please translate {{text}}"}]}',
  guidelines: "Be brief.",
});
try {
  const { result } = await callTool(connection, request, { timeoutMs: 90_000 });
  const refined = result as { prompt_template_json: string; summary: string };
  console.log(refined.prompt_template_json);
} catch (error) {
  process.exitCode = 1;
  if (error instanceof CallError && error.notRun) {
    for (const { field, description } of error.fieldViolations) {
      console.error(`${field}: ${description}`);
    }
    console.error(`not run, so nothing to pay: ${error.message}`);
  } else if (error instanceof ToolError && error.retryable) {
    console.error(`send the same request again after ${error.retryDelayMs ?? 0} ms: ${error.message}`);
  } else if (error instanceof CallError) {
    console.error(`it may have run: ${error.message}`);
  } else {
    throw error;
  }
} finally {
  connection.close();
}
