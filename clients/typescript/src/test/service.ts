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
import { type Any, anyPack, ValueSchema } from "@bufbuild/protobuf/wkt";
import {
  type Client,
  type handleUnaryCall,
  Metadata,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  type status,
} from "@grpc/grpc-js";
import { type DialOptions, dial } from "../dial.js";
import { StatusSchema } from "../gen/google/rpc/status_pb.js";
import {
  type CallToolRequest,
  CallToolRequestSchema,
  type CallToolResponse,
  CallToolResponseSchema,
  StatusResponseSchema,
  ToolService,
} from "../v1.js";

export interface Answer {
  /** None: it never comes. */
  response?: CallToolResponse;
  code?: status;
  details?: Any[];
  trailer?: Record<string, string | Buffer>;
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
  arrivals: Arrival[];
}

/** Gives one answer to each attempt of a call, and the last one to all that follow. */
export async function serve(
  t: TestContext,
  answers: Answer[],
  address = "127.0.0.1:0",
  transport = ServerCredentials.createInsecure(),
): Promise<Service> {
  const arrivals: Arrival[] = [];
  const handle: handleUnaryCall<Message, Message> = (call, callback) => {
    const at = Date.now();
    const request = isMessage(call.request, CallToolRequestSchema) ? call.request : undefined;
    arrivals.push({ at, request, metadata: call.metadata, left: Number(call.getDeadline()) - at });
    const answer = answers[Math.min(arrivals.length, answers.length) - 1] ?? {};
    if (answer.code !== undefined) {
      callback({ code: answer.code, details: "No.", metadata: trailer(answer) });
    } else if (answer.response) {
      callback(null, request ? answer.response : create(StatusResponseSchema, { enabled: true }), trailer(answer));
    }
  };
  const server = new Server({ "grpc.max_receive_message_length": 2 << 20 });
  server.addService(DEFINITION, { CallTool: handle, Status: handle });
  t.after(() => server.forceShutdown());
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(address, transport, (error, port) => (error ? reject(error) : resolve(port)));
  });
  return { target: address.replace(/:0$/, `:${port}`), arrivals };
}

export function connect(t: TestContext, target: string, options?: DialOptions): Client {
  const client = dial(target, options);
  t.after(() => client.close());
  return client;
}

export function done(content: JsonValue = "done"): Answer {
  return { response: create(CallToolResponseSchema, { structuredContent: fromJson(ValueSchema, content) }) };
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
  [ToolService.method.callTool, ToolService.method.status].map(({ name, input, output }) => [
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
