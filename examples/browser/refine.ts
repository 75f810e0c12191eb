// Refines a prompt from a browser, through gRPC-Web, and shows the progress.
import { toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { ToolService } from "agenta-ai/v1";

export function connect(baseUrl: string, token: string) {
  return createClient(
    ToolService,
    createGrpcWebTransport({
      baseUrl,
      defaultTimeoutMs: 90_000,
      interceptors: [
        (next) => (request) => {
          request.header.set("authorization", token);
          return next(request);
        },
      ],
    }),
  );
}

export async function refine(
  client: ReturnType<typeof connect>,
  template: object,
  guidelines: string,
  show: (text: string) => void,
): Promise<string> {
  const request = {
    name: "tools.agenta.api.refine_prompt",
    arguments: { prompt_template_json: JSON.stringify(template), guidelines },
    requestId: crypto.randomUUID(), // keep it if you send the call again: it is billed only once
  };
  for await (const { event } of client.callToolStream(request)) {
    if (event.case === "progress") {
      show(event.value.text);
    }
    if (event.case === "result") {
      const { isError, content, structuredContent } = event.value;
      if (isError || !structuredContent) {
        throw new Error(content.map(({ kind }) => kind.value).join());
      }
      const refined = toJson(ValueSchema, structuredContent) as { prompt_template_json: string };
      return refined.prompt_template_json;
    }
  }
  throw new Error("The stream ended without a result.");
}
