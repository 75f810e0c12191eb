/// <reference lib="esnext.disposable" preserve="true" />
import { randomUUID } from "node:crypto";
import {
  clone,
  create,
  type DescMessage,
  type DescMethodUnary,
  isMessage,
  type JsonValue,
  type MessageInitShape,
  type MessageShape,
  toBinary,
  toJson,
} from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { toArguments } from "./arguments.js";
import { Code } from "./code.js";
import { CallError, ToolError, type ToolFailure } from "./errors.js";
import { makeSerializable } from "./json.js";
import type { CallOptions, CallToolOptions, ClientOptions } from "./options.js";
import { follow, type ToolEvent } from "./progress.js";
import { callsTool, isTyped, type ToolRequest } from "./tools.js";
import { Transport } from "./transport.js";
import {
  CallToolRequestSchema,
  type CallToolResponse,
  ErrorReason,
  type StatusResponse,
  type Tool,
  ToolService,
} from "./v1.js";

/** Bytes of the largest request. A larger one is not sent. */
export const MAX_REQUEST_BYTES = 1 << 20;

const READ_TIMEOUT_MS = 10_000;
const CALL_TIMEOUT_MS = 90_000;

/** What a tool answered. */
export interface ToolResult<T> {
  /** Its structured content; null if it has none. */
  readonly result: T;
  /** The whole answer. JSON.stringify writes it, too. */
  readonly response: CallToolResponse;
  /** The request_id that the call was sent with. */
  readonly requestId: string;
}

/**
 * A connection to Agenta AI services. The first call opens it. One client serves many concurrent calls.
 *
 * Every call that fails does so with a {@link CallError}, or a {@link ToolError} if a tool ran and failed.
 */
export class Client implements Disposable {
  readonly #transport: Transport;

  /**
   * @param target - The server, such as "host:port" or "unix:/run/agenta.sock".
   * @throws TypeError if the target is not an address, an option can't be used, or credentials would be sent to another
   * machine in plaintext.
   */
  constructor(target: string, options: ClientOptions = {}) {
    this.#transport = new Transport(target, options);
  }

  /** Returns the state of the service, and what this caller may use. */
  status(options: CallOptions = {}): Promise<StatusResponse> {
    return this.call(ToolService.method.status, {}, options);
  }

  /** Returns all tools that this caller may call, sorted by name. The time-out is that of each page. */
  async listTools(options: CallOptions = {}): Promise<Tool[]> {
    const tools: Tool[] = [];
    const seen = new Set<string>();
    let pageToken = "";
    do {
      const page = await this.call(ToolService.method.listTools, { pageToken }, options);
      tools.push(...page.tools);
      pageToken = page.nextPageToken;
      if (seen.has(pageToken)) {
        throw new Error("The server repeats a page of its tools: report it to its operator");
      }
      seen.add(pageToken);
    } while (pageToken);
    return tools;
  }

  /**
   * Runs a tool.
   *
   * @param name - Full name of the tool, such as "tools.agenta.api.refine_prompt".
   * @param args - An object of JSON values, by the tool's input_schema. Properties that are undefined are left out, and
   * numbers are sent as doubles.
   * @typeParam T - The type of the result, by the tool's output_schema. It isn't checked.
   * @throws TypeError if an argument can't be sent, or the request_id is empty.
   * @throws CallError if the call was refused or had no answer.
   * @throws ToolError if the tool ran and failed.
   */
  async callTool<T = JsonValue>(
    name: string,
    args: object = {},
    options: CallToolOptions = {},
  ): Promise<ToolResult<T>> {
    const { requestId = randomUUID(), rerunIfOutcomeUnknown = false, ...rest } = options;
    const request = { name, arguments: toArguments(args), requestId, rerunIfOutcomeUnknown };
    const response = await this.call(ToolService.method.callTool, request, rest);
    if (response.isError) {
      throw new ToolError(response, requestId);
    }
    const content = response.structuredContent;
    return { result: (content ? toJson(ValueSchema, content) : null) as T, response, requestId };
  }

  /**
   * Runs a tool, and yields what is happening to it while it runs; the last event is its result. The call is that of
   * {@link Client.callTool}, with the same errors and retries. It begins when the first event is asked for, and leaving the
   * loop before its end cancels it. Progress that a slow reader doesn't take in time is left out.
   *
   * @param name - As for `callTool`.
   * @param args - As for `callTool`.
   * @typeParam T - As for `callTool`.
   * @throws TypeError, CallError and ToolError as `callTool` does.
   */
  streamTool<T = JsonValue>(
    name: string,
    args: object = {},
    options: CallToolOptions = {},
  ): AsyncGenerator<ToolEvent<T>, void, undefined> {
    return follow((following) => this.callTool<T>(name, args, { ...options, ...following }), options);
  }

  /**
   * Calls any method of the contract with a message, such as `ToolService.method.status`, or one that a tool has of its own,
   * from code that was generated from the files of "agenta-ai-server tools proto".
   *
   * A call of a tool by its own method gets a request_id if the request has none. It reports no progress.
   *
   * @throws CallError if the call ends with a status other than OK.
   * @throws ToolError if a tool was called by its own method, ran and failed.
   */
  async call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    options: CallOptions = {},
  ): Promise<MessageShape<O>> {
    let message = create(method.input, request);
    if (isMessage(message, CallToolRequestSchema) && message.requestId === "") {
      throw new TypeError("requestId is empty: callTool makes one if it is left out");
    }
    const isTool = callsTool(method);
    if (isTyped(method) && requestIdOf(message) === "") {
      // The caller's message stays as it is: another call with it is another one.
      message = Object.assign(clone(method.input, message), { requestId: randomUUID() });
    }
    const { timeoutMs = isTool ? CALL_TIMEOUT_MS : READ_TIMEOUT_MS } = options;
    const requestId = isTool ? requestIdOf(message) : "";
    const bytes = toBinary(method.input, message);
    if (bytes.length > MAX_REQUEST_BYTES) {
      throw new CallError({
        code: Code.INVALID_ARGUMENT,
        reason: ErrorReason.REQUEST_TOO_LARGE,
        text: `The request has ${bytes.length} bytes, and the limit is ${MAX_REQUEST_BYTES}: shorten its arguments`,
        isTool,
        requestId,
        outcome: "unsent",
      });
    }
    const response = await this.#transport.send(method, bytes, { ...options, timeoutMs, requestId });
    makeSerializable(method.output, response);
    if (isTyped(method)) {
      throwIfFailed(response as unknown as ToolResponse, requestId);
    }
    return response;
  }

  /**
   * Closes the connection. Calls in flight end at once with CANCELLED, and their outcome is unknown: their
   * {@link CallError} has the request_id to ask again with. Later calls fail and send nothing.
   */
  close(): void {
    this.#transport.close();
  }

  /** Closes the connection, for `using`. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/** What the responses of all tools have. */
interface ToolResponse extends Pick<ToolFailure, "content" | "meta"> {
  readonly outcome: { readonly case?: string; readonly value?: unknown };
}

function throwIfFailed({ outcome, content, meta }: ToolResponse, requestId: string): void {
  if (outcome.case === "error") {
    throw new ToolError({ error: outcome.value as ToolFailure["error"], content, meta }, requestId);
  }
}

function requestIdOf(message: unknown): string {
  return (message as ToolRequest).requestId;
}
