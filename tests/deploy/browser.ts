// What the page of browser.py does: calls the service as the example does, and reports what came.
import { Code, ConnectError } from "@connectrpc/connect";
import { connect, refine } from "../../examples/browser/refine.ts";

const { envoy, token } = Object.fromEntries(new URLSearchParams(location.search));
const client = connect(envoy, token);
const template = { messages: [{ role: "user", content: "Please translate {{text}} in order to help." }] };

async function failure(call: Promise<unknown>) {
  const error = ConnectError.from(await call.then(() => undefined, (reason: unknown) => reason));
  return { code: Code[error.code], details: error.details.map((detail) => ("type" in detail ? detail.type : "")) };
}

async function report() {
  const progress: string[] = [];
  return {
    status: (await client.status({})).tools.length,
    refined: await refine(client, template, "Be brief.", (text) => progress.push(text)),
    progress,
    refused: await failure(client.callTool({ name: "tools.agenta.api.refine_prompt", arguments: {} })),
    unauthenticated: await failure(connect(envoy, "ApiKey nobody").status({})),
    late: await failure(client.callTool({ name: "tools.agenta.api.refine_prompt" }, { timeoutMs: 1 })),
  };
}

const result = await report().catch((error: unknown) => ({ error: String(error) }));
await fetch("/result", { method: "POST", body: JSON.stringify(result) });
