/** The conformance program, by the line protocol of tests/conformance. */
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import {
  create,
  createRegistry,
  type DescMessage,
  type DescMethodUnary,
  fromBinary,
  fromJson,
  type JsonObject,
  type JsonValue,
  type MessageShape,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { type Any, AnySchema, durationFromMs, ValueSchema } from "@bufbuild/protobuf/wkt";
import { credentials, Client as GrpcClient, type StatusObject, status } from "@grpc/grpc-js";
import { Client } from "./client.js";
import { Code } from "./code.js";
import { CallError, ToolError } from "./errors.js";
import { file_google_rpc_error_details } from "./gen/google/rpc/error_details_pb.js";
import { fromGrpc, toGrpc } from "./metadata.js";
import type { CallOptions, Metadata } from "./options.js";
import { type Progress, toProgress } from "./progress.js";
import { ApiToolsService } from "./refine_prompt.js";
import { Transport } from "./transport.js";
import {
  type CallToolResponse,
  CallToolResponseSchema,
  CallToolStreamResponseSchema,
  ProgressSchema,
  ToolService,
} from "./v1.js";

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
  retries?: boolean;
  close_after?: number;
  read_after?: number;
}

type Sent = Promise<MessageShape<DescMessage>>;
type SendOptions = CallOptions & { timeoutMs: number; requestId: string };

const STREAM = ToolService.method.callToolStream;
const TYPED = ApiToolsService.method.refinePrompt;
// The client makes a stream of what would be a single call.
const METHODS = new Map<string, DescMethodUnary>(
  [...ToolService.methods, TYPED].map((method) => {
    const unary = method === STREAM ? ToolService.method.callTool : method;
    return [method.name, unary as DescMethodUnary];
  }),
);
const REGISTRY = createRegistry(file_google_rpc_error_details);
const transports = new Map<string, Transport>();
const clients = new Map<string, GrpcClient>();
const shipped = new Map<string, Client>();

for await (const line of createInterface({ input: process.stdin })) {
  const asked: Case = JSON.parse(line);
  const result = await run(asked).catch((error) => ({ error: String(error) }));
  process.stdout.write(`${JSON.stringify({ id: asked.id, ...result })}\n`);
}
for (const open of [...transports.values(), ...clients.values(), ...shipped.values()]) {
  open.close();
}

async function run(asked: Case): Promise<JsonObject> {
  const method = METHODS.get(asked.method);
  if (!method) {
    throw new Error(`no method ${asked.method}`);
  }
  const received: Record<string, string[]> = {};
  const keep = (metadata: Metadata) => {
    for (const [name, values] of Object.entries(metadata).filter(([name]) => !name.endsWith("-bin"))) {
      received[name] = [...(received[name] ?? []), ...values.map(String)];
    }
  };
  const request = bytes(asked, method);
  const { requestId = "" } = (asked.request ?? {}) as { requestId?: string };
  const transport = transportFor(asked);
  const began = performance.now();
  const closing =
    asked.close_after === undefined ? undefined : setTimeout(() => transport.close(), asked.close_after * 1000);
  const progress: JsonValue[] = [];
  const streams = asked.method === STREAM.name;
  const options: SendOptions = {
    timeoutMs: asked.timeout === undefined ? Number.POSITIVE_INFINITY : asked.timeout * 1000,
    signal: asked.cancel_after === undefined ? undefined : AbortSignal.timeout(asked.cancel_after * 1000),
    metadata: asked.metadata ?? {},
    onProgress: streams ? (came) => progress.push(toJson(ProgressSchema, toMessage(came))) : undefined,
    onHeader: keep,
    onTrailer: keep,
    requestId,
  };
  const outcome = await send(asked, transport, method, request, options).then(
    (response) => answered(method, response),
    refused,
  );
  clearTimeout(closing);
  const took = (performance.now() - began) / 1000;
  return { ...outcome, ...(streams && { progress }), metadata: received, seconds: took };
}

function send(
  asked: Case,
  transport: Transport,
  method: DescMethodUnary,
  request: Uint8Array,
  options: SendOptions,
): Sent {
  if (asked.client === "bare" && asked.method === STREAM.name) {
    return stream(asked, request, options);
  }
  return asked.client === "shipped" && asked.method === TYPED.name
    ? typed(asked, request, options)
    : transport.send(method, request, options);
}

/** Calls a tool by its own method, as the README has it. */
async function typed(asked: Case, request: Uint8Array, { timeoutMs, ...options }: SendOptions): Sent {
  const limit = asked.timeout === undefined ? {} : { timeoutMs };
  try {
    return await shippedFor(asked).call(TYPED, fromBinary(TYPED.input, request), { ...options, ...limit });
  } catch (error) {
    if (!(error instanceof ToolError)) {
      throw error;
    }
    const { reason, retryable, text, meta } = error;
    const outcome = { case: "error" as const, value: { reason, retryable } };
    return create(TYPED.output, { outcome, content: [{ kind: { case: "text", value: text } }], ...(meta && { meta }) });
  }
}

/** Makes a call with progress by grpc-js alone. */
async function stream(asked: Case, request: Uint8Array, options: SendOptions): Sent {
  const { onProgress, onHeader, onTrailer, signal, timeoutMs, metadata = {} } = options;
  const client = clientFor(asked.target);
  const opened = client.makeServerStreamRequest(
    `/${STREAM.parent.typeName}/${STREAM.name}`,
    (bytes: Uint8Array) => Buffer.from(bytes),
    (bytes) => fromBinary(CallToolStreamResponseSchema, bytes),
    request,
    toGrpc(metadata),
    { deadline: Date.now() + timeoutMs },
  );
  let last: StatusObject | undefined;
  opened.on("metadata", (header) => onHeader?.(fromGrpc(header)));
  opened.on("error", () => {}); // is the status, too, and may come before anything is read
  opened.on("status", (ended) => {
    last = ended;
    onTrailer?.(fromGrpc(ended.metadata));
  });
  signal?.addEventListener("abort", () => opened.cancel());
  let result = create(CallToolResponseSchema);
  await delay((asked.read_after ?? 0) * 1000);
  try {
    for await (const { event } of opened) {
      if (event.case === "progress") {
        onProgress?.(toProgress(event.value));
      } else if (event.case === "result") {
        result = event.value;
      }
    }
  } catch (error) {
    if (last === undefined) {
      throw error;
    }
  }
  if (last && last.code !== status.OK) {
    const said = { code: last.code as number, text: last.details, trailer: fromGrpc(last.metadata) };
    throw new CallError({ ...said, isTool: true, requestId: "", outcome: "open" });
  }
  return result;
}

function toMessage({ retryDelayMs, ...same }: Progress) {
  return create(ProgressSchema, {
    ...same,
    ...(retryDelayMs !== undefined && { retryDelay: durationFromMs(retryDelayMs) }),
  });
}

function clientFor(target: string): GrpcClient {
  const made =
    clients.get(target) ?? new GrpcClient(target, credentials.createInsecure(), { "grpc.enable_retries": 0 });
  clients.set(target, made);
  return made;
}

function bytes(asked: Case, method: DescMethodUnary): Uint8Array {
  return asked.request_base64 === undefined
    ? toBinary(method.input, fromJson(method.input, asked.request ?? {}))
    : Buffer.from(asked.request_base64, "base64");
}

function transportFor(asked: Case): Transport {
  const { target, client, wait_for_limit: waitForLimit = false } = asked;
  const retries = client === "shipped" && (asked.retries ?? true);
  const key = JSON.stringify([target, retries, waitForLimit]);
  const made = transports.get(key) ?? new Transport(target, { retries, waitForLimit });
  if (asked.close_after === undefined) {
    transports.set(key, made);
  } else {
    transports.delete(key);
  }
  return made;
}

function shippedFor({ target, wait_for_limit: waitForLimit = false, retries = true }: Case): Client {
  const key = JSON.stringify([target, retries, waitForLimit]);
  const made = shipped.get(key) ?? new Client(target, { retries, waitForLimit });
  shipped.set(key, made);
  return made;
}

function isTool(method: DescMethodUnary): boolean {
  return method.name === ToolService.method.callTool.name;
}

function answered(method: DescMethodUnary, response: MessageShape<DescMessage>): JsonObject {
  const result: JsonObject = { code: "OK", message: "", details: [], response: toJson(method.output, response) };
  const content = isTool(method) && (response as CallToolResponse).structuredContent;
  return content ? { ...result, native: toJson(ValueSchema, content) } : result;
}

function refused(error: unknown): JsonObject {
  if (!(error instanceof CallError)) {
    throw error;
  }
  const outcome = { not_run: error.notRun, request_id: error.requestId, sentence: error.message };
  const details = error.details.map(detail);
  return { code: Code[error.code] ?? String(error.code), message: error.text, details, outcome };
}

function detail(packed: Any): JsonValue {
  try {
    return toJson(AnySchema, packed, { registry: REGISTRY });
  } catch {
    return { "@type": packed.typeUrl, value: Buffer.from(packed.value).toString("base64") };
  }
}
