// Refines a prompt.
import { CallError, Client, ToolError } from "agenta-ai";

interface Refinement {
  readonly prompt_template_json: string;
  readonly summary: string;
}

// Plaintext to this machine, TLS to any other. One client serves a whole program.
const client = new Client(process.env.AGENTA_AI_TARGET ?? "127.0.0.1:50051", {
  apiKey: process.env.AGENTA_AI_API_KEY,
  waitForLimit: true,
});
try {
  // The call has a new request_id, which retries keep.
  const { result } = await client.callTool<Refinement>(
    "tools.agenta.api.refine_prompt",
    {
      prompt_template_json: '{"messages": [{"role": "user", "content": "Please translate {{text}}"}]}',
      guidelines: "Be brief.",
    },
    { timeoutMs: 90_000 },
  );
  console.log(result.prompt_template_json);
} catch (error) {
  process.exitCode = 1;
  if (error instanceof CallError && error.notRun) {
    for (const { field, description } of error.fieldViolations) {
      console.error(`${field}: ${description}`);
    }
    console.error(`not run, so nothing is billed: ${error.message}`);
  } else if (error instanceof ToolError && error.retryable) {
    console.error(`send ${error.requestId} again after ${error.retryDelayMs ?? 0} ms: ${error.message}`);
  } else if (error instanceof CallError) {
    console.error(error.message); // the call may have run: the message has the request_id to repeat it with
  } else {
    throw error;
  }
} finally {
  client.close();
}
