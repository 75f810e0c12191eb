/** The conformance program, by the line protocol of tests/conformance. */
import { createInterface } from "node:readline";
import {
  createRegistry,
  type DescMessage,
  type DescMethodUnary,
  fromJson,
  type JsonObject,
  type JsonValue,
  type MessageShape,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { type Any, AnySchema, ValueSchema } from "@bufbuild/protobuf/wkt";
import { Client, credentials, Metadata, status } from "@grpc/grpc-js";
import { type CallOptions, send } from "./call.js";
import { dial } from "./dial.js";
import { CallError, statusDetails } from "./errors.js";
import { file_google_rpc_error_details } from "./gen/google/rpc/error_details_pb.js";
import { type CallToolResponse, ToolService } from "./v1.js";

interface Case {
  id: string;
  target: string;
  method: string;
  request?: JsonValue;
  request_base64?: string;
  metadata?: Record<string, string>;
  timeout?: number;
  cancel_after?: number;
  client: "bare" | "shipped";
  wait_for_limit?: boolean;
}

const METHODS = new Map<string, DescMethodUnary>(
  ToolService.methods.map((method) => [method.name, method as DescMethodUnary]),
);
const REGISTRY = createRegistry(file_google_rpc_error_details);
const clients = new Map<string, Client>();

for await (const line of createInterface({ input: process.stdin })) {
  const asked: Case = JSON.parse(line);
  const result = await run(asked).catch((error) => ({ error: String(error) }));
  process.stdout.write(`${JSON.stringify({ id: asked.id, ...result })}\n`);
}
for (const client of clients.values()) {
  client.close();
}

async function run(asked: Case): Promise<JsonObject> {
  const method = METHODS.get(asked.method);
  if (!method) {
    throw new Error(`no method ${asked.method}`);
  }
  const received: Record<string, string[]> = {};
  const keep = (metadata: Metadata) => {
    for (const name of Object.keys(metadata.getMap()).filter((name) => !name.endsWith("-bin"))) {
      received[name] = [...(received[name] ?? []), ...metadata.get(name).map(String)];
    }
  };
  const options: CallOptions = {
    timeoutMs: asked.timeout === undefined ? Number.POSITIVE_INFINITY : asked.timeout * 1000,
    metadata: Metadata.fromHttp2Headers(asked.metadata ?? {}),
    onHeader: keep,
    onTrailer: keep,
  };
  const request = bytes(asked, method);
  const began = performance.now();
  if (asked.cancel_after !== undefined) {
    options.signal = AbortSignal.timeout(asked.cancel_after * 1000);
  }
  const outcome = await send(clientFor(asked), method, request, options).then(
    (response) => answered(method, response),
    refused,
  );
  return { ...outcome, metadata: received, seconds: (performance.now() - began) / 1000 };
}

function bytes(asked: Case, method: DescMethodUnary): Uint8Array {
  return asked.request_base64 === undefined
    ? toBinary(method.input, fromJson(method.input, asked.request ?? {}))
    : Buffer.from(asked.request_base64, "base64");
}

function clientFor({ target, client, wait_for_limit = false }: Case): Client {
  const key = JSON.stringify([target, client, wait_for_limit]);
  const made =
    clients.get(key) ??
    (client === "bare"
      ? new Client(target, credentials.createInsecure(), { "grpc.enable_retries": 0, "grpc.enable_http_proxy": 0 })
      : dial(target, { waitForLimit: wait_for_limit }));
  clients.set(key, made);
  return made;
}

function answered(method: DescMethodUnary, response: MessageShape<DescMessage>): JsonObject {
  const result: JsonObject = { code: "OK", message: "", details: [], response: toJson(method.output, response) };
  const content = method === ToolService.method.callTool && (response as CallToolResponse).structuredContent;
  return content ? { ...result, native: toJson(ValueSchema, content) } : result;
}

function refused(error: unknown): JsonObject {
  if (!(error instanceof CallError)) {
    throw error;
  }
  const code = status[error.code] ?? String(error.code);
  return { code, message: error.text, details: statusDetails(error.cause).map(detail) };
}

function detail(packed: Any): JsonValue {
  try {
    return toJson(AnySchema, packed, { registry: REGISTRY });
  } catch {
    return { "@type": packed.typeUrl, value: Buffer.from(packed.value).toString("base64") };
  }
}
