/** A real server that gives the answers that a test wants, and keeps what arrives. */
import type { TestContext } from "node:test";
import {
  create,
  type DescMessage,
  fromBinary,
  fromJson,
  isMessage,
  type JsonValue,
  type Message,
  type MessageInitShape,
  toBinary,
} from "@bufbuild/protobuf";
import { type Any, anyPack, durationFromMs, ValueSchema } from "@bufbuild/protobuf/wkt";
import {
  type handleServerStreamingCall,
  type handleUnaryCall,
  Metadata,
  Server,
  ServerCredentials,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
  status,
} from "@grpc/grpc-js";
import { Client } from "../client.js";
import { ErrorInfoSchema, RetryInfoSchema } from "../gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../gen/google/rpc/status_pb.js";
import type { ClientOptions } from "../options.js";
import {
  type CallToolRequest,
  CallToolRequestSchema,
  type CallToolResponse,
  CallToolResponseSchema,
  type CallToolStreamRequest,
  type CallToolStreamResponse,
  CallToolStreamResponseSchema,
  ListToolsRequestSchema,
  ListToolsResponseSchema,
  StatusResponseSchema,
  ToolService,
} from "../v1.js";

export interface Answer {
  /** None: it never comes. */
  response?: CallToolResponse;
  /** Of a stream: the texts of what is reported first. */
  progress?: string[];
  code?: status;
  details?: Any[];
  trailer?: Record<string, string | Buffer>;
  /** Of a list of tools: the token of the page after each. */
  pages?: Record<string, string>;
}

type ToolCall = CallToolRequest | CallToolStreamRequest;

export interface Arrival {
  at: number;
  /** Of a tool's call alone. */
  request: ToolCall | undefined;
  metadata: Metadata;
  /** Milliseconds until its deadline. */
  left: number;
}

export interface Service {
  target: string;
  arrivals: Arrival[];
  /** Resolves when the caller of a stream has left before its end. */
  left: Promise<void>;
}

/** Gives one answer to each attempt of a call, and the last one to all that follow; or what a function returns. */
export async function serve(
  t: TestContext,
  answers: Answer[] | (() => Answer),
  address = "127.0.0.1:0",
  transport = ServerCredentials.createInsecure(),
): Promise<Service> {
  const arrivals: Arrival[] = [];
  const arrived = (
    call: ServerUnaryCall<Message, Message> | ServerWritableStream<Message, Message>,
    tool?: ToolCall,
  ) => {
    const at = Date.now();
    arrivals.push({ at, request: tool, metadata: call.metadata, left: Number(call.getDeadline()) - at });
    return typeof answers === "function" ? answers() : (answers[Math.min(arrivals.length, answers.length) - 1] ?? {});
  };
  const handle: handleUnaryCall<Message, Message> = (call, callback) => {
    const request = isMessage(call.request, CallToolRequestSchema) ? call.request : undefined;
    const answer = arrived(call, request);
    if (answer.code !== undefined) {
      callback({ code: answer.code, details: "No.", metadata: trailer(answer) });
    } else if (isMessage(call.request, ListToolsRequestSchema)) {
      const { pageToken } = call.request;
      const nextPageToken = answer.pages?.[pageToken] ?? "";
      callback(null, create(ListToolsResponseSchema, { tools: [{ name: `tool ${pageToken}` }], nextPageToken }));
    } else if (answer.response) {
      callback(null, request ? answer.response : create(StatusResponseSchema, { enabled: true }), trailer(answer));
    }
  };
  let leave = () => {};
  const left = new Promise<void>((resolve) => {
    leave = resolve;
  });
  const stream: handleServerStreamingCall<Message, Message> = (call) => {
    const answer = arrived(call, call.request as CallToolStreamRequest);
    call.on("cancelled", leave);
    for (const text of answer.progress ?? []) {
      call.write(event({ case: "progress", value: { text } }));
    }
    if (answer.response) {
      call.write(event({ case: "result", value: answer.response }));
    }
    if (answer.code !== undefined) {
      call.emit("error", { code: answer.code, details: "No.", metadata: trailer(answer) });
    } else if (answer.response || answer.trailer) {
      call.end(trailer(answer));
    }
  };
  const server = new Server({ "grpc.max_receive_message_length": 2 << 20 });
  server.addService(DEFINITION, { CallTool: handle, CallToolStream: stream, ListTools: handle, Status: handle });
  t.after(() => server.forceShutdown());
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(address, transport, (error, port) => (error ? reject(error) : resolve(port)));
  });
  return { target: address.replace(/:0$/, `:${port}`), arrivals, left };
}

export function connect(t: TestContext, target: string, options?: ClientOptions): Client {
  const client = new Client(target, options);
  t.after(() => client.close());
  return client;
}

/** What is said of a call whose outcome is open. */
export function inDoubt(requestId: string): string {
  const open = "The call may have run and may have been billed.";
  return `${open} To get its result, send it again with request_id ${requestId}.`;
}

export function done(content: JsonValue = "done"): Answer {
  return { response: create(CallToolResponseSchema, { structuredContent: fromJson(ValueSchema, content) }) };
}

/** A refusal by a rate limit. */
export function limited(delayMs: number): Answer {
  const info = detail(ErrorInfoSchema, { reason: "ERROR_REASON_RATE_LIMITED", domain: "agenta.ai" });
  const retry = detail(RetryInfoSchema, { retryDelay: durationFromMs(delayMs) });
  return { code: status.RESOURCE_EXHAUSTED, details: [info, retry] };
}

export function detail<Desc extends DescMessage>(schema: Desc, init: MessageInitShape<Desc>): Any {
  return anyPack(schema, create(schema, init));
}

function event(given: MessageInitShape<typeof CallToolStreamResponseSchema>["event"]): CallToolStreamResponse {
  return create(CallToolStreamResponseSchema, given && { event: given });
}

function trailer({ code = 0, details = [], trailer = {} }: Answer): Metadata {
  const metadata = new Metadata();
  if (details.length > 0) {
    const packed = toBinary(StatusSchema, create(StatusSchema, { code, message: "No.", details }));
    metadata.set("grpc-status-details-bin", Buffer.from(packed));
  }
  for (const [name, value] of Object.entries(trailer)) {
    metadata.set(name, value);
  }
  return metadata;
}

const DEFINITION: ServiceDefinition = Object.fromEntries(
  ToolService.methods.map(({ name, input, output, methodKind }) => [
    name,
    {
      path: `/${ToolService.typeName}/${name}`,
      requestStream: false,
      responseStream: methodKind !== "unary",
      requestSerialize: (message) => Buffer.from(toBinary(input, message)),
      requestDeserialize: (bytes) => fromBinary(input, bytes),
      responseSerialize: (message) => Buffer.from(toBinary(output, message)),
      responseDeserialize: (bytes) => fromBinary(output, bytes),
    },
  ]),
);
