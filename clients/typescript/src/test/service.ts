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
  type handleUnaryCall,
  Metadata,
  Server,
  ServerCredentials,
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
  ListToolsRequestSchema,
  ListToolsResponseSchema,
  StatusResponseSchema,
  ToolService,
} from "../v1.js";

export interface Answer {
  /** None: it never comes. */
  response?: CallToolResponse;
  code?: status;
  details?: Any[];
  trailer?: Record<string, string | Buffer>;
  /** Of a list of tools: the token of the page after each. */
  pages?: Record<string, string>;
}

export interface Arrival {
  at: number;
  /** Of a tool's call alone. */
  request: CallToolRequest | undefined;
  metadata: Metadata;
  /** Milliseconds until its deadline. */
  left: number;
}

export interface Service {
  target: string;
  server: Server;
  arrivals: Arrival[];
}

/** Gives one answer to each attempt of a call, and the last one to all that follow; or what a function returns. */
export async function serve(
  t: TestContext,
  answers: Answer[] | (() => Answer),
  address = "127.0.0.1:0",
  transport = ServerCredentials.createInsecure(),
): Promise<Service> {
  const arrivals: Arrival[] = [];
  const handle: handleUnaryCall<Message, Message> = (call, callback) => {
    const at = Date.now();
    const request = isMessage(call.request, CallToolRequestSchema) ? call.request : undefined;
    arrivals.push({ at, request, metadata: call.metadata, left: Number(call.getDeadline()) - at });
    const answer =
      typeof answers === "function" ? answers() : (answers[Math.min(arrivals.length, answers.length) - 1] ?? {});
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
  const server = new Server({ "grpc.max_receive_message_length": 2 << 20 });
  server.addService(DEFINITION, { CallTool: handle, ListTools: handle, Status: handle });
  t.after(() => server.forceShutdown());
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(address, transport, (error, port) => (error ? reject(error) : resolve(port)));
  });
  return { target: address.replace(/:0$/, `:${port}`), server, arrivals };
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
  ToolService.methods.map(({ name, input, output }) => [
    name,
    {
      path: `/${ToolService.typeName}/${name}`,
      requestStream: false,
      responseStream: false,
      requestSerialize: (message) => Buffer.from(toBinary(input, message)),
      requestDeserialize: (bytes) => fromBinary(input, bytes),
      responseSerialize: (message) => Buffer.from(toBinary(output, message)),
      responseDeserialize: (bytes) => fromBinary(output, bytes),
    },
  ]),
);
