import { randomUUID } from "node:crypto";
import {
  create,
  type DescMessage,
  type DescMethodUnary,
  fromBinary,
  type JsonObject,
  type JsonValue,
  type MessageInitShape,
  type MessageShape,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { type Client, Metadata } from "@grpc/grpc-js";
import { CallError, ToolError } from "./errors.js";
import { type CallToolRequest, CallToolRequestSchema, type CallToolResponse, ToolService } from "./v1.js";

const READ_TIMEOUT_MS = 10_000;
const CALL_TIMEOUT_MS = 90_000;

export interface CallOptions {
  /** Milliseconds until the deadline: 90 seconds for a tool if you don't say, 10 for all else. Infinity is for none. */
  timeoutMs?: number | undefined;
  /** Cancels the call. The tool may have run then. */
  signal?: AbortSignal | undefined;
  /** More metadata to send. */
  metadata?: Metadata | undefined;
  /** Takes the metadata that comes before the answer. */
  onHeader?: ((metadata: Metadata) => void) | undefined;
  /** Takes the metadata that comes after the answer, or with an error. */
  onTrailer?: ((metadata: Metadata) => void) | undefined;
}

/**
 * Makes a request with a request_id of its own: a UUID, version 4. To repeat a call, send its request again.
 *
 * The arguments are by the tool's input_schema. Numbers are sent as doubles.
 *
 * @throws {TypeError} if an argument can't be sent as it stands.
 */
export function newRequest(tool: string, args: JsonObject): CallToolRequest {
  check(args, "arguments");
  return create(CallToolRequestSchema, { name: tool, arguments: args, requestId: randomUUID() });
}

/**
 * Runs a tool. The result is its structured content; null if it has none.
 *
 * @throws {CallError} if the call was refused or had no answer.
 * @throws {ToolError} if the tool ran and failed.
 */
export async function callTool(
  client: Client,
  request: CallToolRequest,
  options: CallOptions = {},
): Promise<{ result: JsonValue; response: CallToolResponse }> {
  const timeoutMs = options.timeoutMs ?? CALL_TIMEOUT_MS;
  const response = await call(client, ToolService.method.callTool, request, { ...options, timeoutMs });
  if (response.isError) {
    throw new ToolError(response);
  }
  const content = response.structuredContent;
  return { result: content ? toJson(ValueSchema, content) : null, response };
}

/**
 * Calls any method, such as `ToolService.method.status`.
 *
 * @throws {CallError} if the call ends with a status other than OK.
 */
export async function call<I extends DescMessage, O extends DescMessage>(
  client: Client,
  method: DescMethodUnary<I, O>,
  request: MessageInitShape<I>,
  options: CallOptions = {},
): Promise<MessageShape<O>> {
  return send(client, method, toBinary(method.input, create(method.input, request)), options);
}

/** Sends a message as it stands. */
export function send<O extends DescMessage>(
  client: Client,
  method: DescMethodUnary<DescMessage, O>,
  request: Uint8Array,
  options: CallOptions,
): Promise<MessageShape<O>> {
  const { timeoutMs = READ_TIMEOUT_MS, signal, metadata = new Metadata(), onHeader, onTrailer } = options;
  return new Promise((resolve, reject) => {
    const sent = client.makeUnaryRequest(
      `/${method.parent.typeName}/${method.name}`,
      (bytes: Uint8Array) => Buffer.from(bytes),
      (bytes) => fromBinary(method.output, bytes),
      request,
      metadata,
      { deadline: Date.now() + timeoutMs },
      (error, response) => {
        signal?.removeEventListener("abort", cancel);
        // There is a response exactly if there is no error.
        error ? reject(new CallError(error)) : resolve(response as MessageShape<O>);
      },
    );
    const cancel = () => sent.cancel();
    signal?.aborted ? cancel() : signal?.addEventListener("abort", cancel);
    sent.on("metadata", (received) => onHeader?.(received));
    sent.on("status", (status) => onTrailer?.(status.metadata));
  });
}

// protobuf would leave out what isn't JSON, and put other characters in the place of halves of a surrogate pair.
function check(value: unknown, path: string): void {
  if (Array.isArray(value)) {
    value.forEach((item, index) => {
      check(item, `${path}[${index}]`);
    });
  } else if (Object.prototype.toString.call(value) === "[object Object]") {
    for (const [key, item] of Object.entries(value as object)) {
      check(key, `${path}: a key`);
      check(item, `${path}.${key}`);
    }
  } else if (typeof value === "string" ? !value.isWellFormed() : !isScalar(value)) {
    throw new TypeError(
      `${path}: ${typeof value === "string" ? "half of a surrogate pair" : String(value)} can't be sent`,
    );
  }
}

function isScalar(value: unknown): boolean {
  return value === null || typeof value === "boolean" || Number.isFinite(value);
}
