import {
  type DescMessage,
  type DescMethod,
  type DescMethodUnary,
  fromBinary,
  type MessageShape,
} from "@bufbuild/protobuf";
import {
  type CallCredentials,
  type ChannelOptions,
  Client,
  type ClientReadableStream,
  type ClientUnaryCall,
  credentials,
  Metadata,
  type StatusObject,
  status,
} from "@grpc/grpc-js";
import { onAbort, sleep } from "./abort.js";
import { Code } from "./code.js";
import { authorizationOf } from "./credentials.js";
import { CallError, type CallErrorInit, isRefusal, type Outcome } from "./errors.js";
import { fromGrpc, hasAuthorization, toGrpc } from "./metadata.js";
import type { CallOptions, ClientOptions, Metadata as PlainMetadata } from "./options.js";
import { type Progress, toProgress } from "./progress.js";
import { Repeats } from "./repeats.js";
import { SERVICE_CONFIG } from "./service_config.js";
import { checkTarget, isLocal } from "./target.js";
import { ipOf, serverNameOf, tlsCredentials } from "./tls.js";
import { callsTool, isCallTool, isTyped } from "./tools.js";
import { type CallToolResponse, type CallToolStreamResponse, CallToolStreamResponseSchema, ToolService } from "./v1.js";
import { VERSION } from "./version.js";

interface SendOptions extends CallOptions {
  readonly timeoutMs: number;
  /** The request_id. Empty if no tool is called. */
  readonly requestId?: string;
}

/** One call, over all its attempts. */
interface Call {
  readonly method: DescMethodUnary<DescMessage, DescMessage>;
  readonly request: Uint8Array;
  readonly requestId: string;
  readonly deadline: number;
  readonly metadata: Metadata;
  readonly options: SendOptions;
  /** Aborted by the caller's signal, by close, or because a callback threw. */
  readonly ended: AbortController;
  /** What a callback threw. */
  thrown?: { readonly error: unknown };
  /** Whether it is made as a stream that reports progress. */
  streams: boolean;
  /** What became of the attempts until now, should no other be sent. */
  outcome: Outcome;
}

/** How a call ended well. */
interface Answer {
  readonly response: MessageShape<DescMessage>;
  readonly trailer: PlainMetadata;
}

/** Takes how an attempt ended, and the metadata that came last. */
type End = (answer: MessageShape<DescMessage> | CallError, trailer: Metadata) => void;

/** One attempt of a call. */
interface Attempt {
  /** Whether there was a connection that any of it may have been sent over. */
  sent: boolean;
  /** Whether an answer has begun to come. It isn't retried then. */
  answered: boolean;
  /** Whether it has a connection, and waits for its credentials if nothing is sent. */
  connected: boolean;
  credentialError?: { readonly error: unknown };
}

/** The longest time-out that gRPC can send. A longer one is none. */
const MAX_TIMEOUT_MS = 99_999_999 * 3_600_000;

/** Why close ends a call. */
const CLOSED = Symbol("closed");

/** A connection of grpc-js, with our defaults. */
export class Transport {
  readonly #client: Client;
  readonly #authorize: (() => string | Promise<string>) | undefined;
  readonly #waitForLimit: boolean;
  readonly #retries: boolean;
  /** Whether nobody else can read what is sent. */
  readonly #confidential: boolean;
  readonly #running = new Set<AbortController>();
  #closed = false;

  /** @throws TypeError if the target is no address, or an option can't be used. */
  constructor(target: string, options: ClientOptions = {}) {
    checkTarget(target);
    const local = isLocal(target);
    const secure = options.tls === undefined ? !local : options.tls !== false;
    this.#authorize = authorizationOf(options);
    this.#confidential = secure || local;
    if (this.#authorize) {
      this.#checkConfidential();
    }
    this.#waitForLimit = options.waitForLimit ?? false;
    this.#retries = options.retries ?? true;
    const named = "grpc.ssl_target_name_override" in (options.channelOptions ?? {});
    const ip = named ? undefined : ipOf(target);
    this.#client = new Client(
      target,
      secure ? tlsCredentials(typeof options.tls === "object" ? options.tls : {}, ip) : credentials.createInsecure(),
      channelOptions(local, ip, options),
    );
  }

  /** Ends the calls in flight, and closes the connection. */
  close(): void {
    this.#closed = true;
    for (const ended of this.#running) {
      ended.abort(CLOSED);
    }
    this.#client.close();
  }

  /**
   * Sends a message as it stands.
   *
   * @throws CallError if the call ends with a status other than OK.
   */
  async send<O extends DescMessage>(
    method: DescMethodUnary<DescMessage, O>,
    request: Uint8Array,
    options: SendOptions,
  ): Promise<MessageShape<O>> {
    const { timeoutMs, signal, metadata = {}, requestId = "" } = options;
    if (!(timeoutMs > 0)) {
      throw new RangeError(`timeoutMs: must be greater than 0, and is ${timeoutMs}`);
    }
    if (hasAuthorization(metadata)) {
      if (this.#authorize) {
        throw new TypeError("metadata: the client has credentials of its own, so authorization can't be given");
      }
      this.#checkConfidential();
    }
    const call: Call = {
      method,
      request,
      requestId,
      deadline: timeoutMs > MAX_TIMEOUT_MS ? Number.POSITIVE_INFINITY : Date.now() + timeoutMs,
      metadata: toGrpc(metadata),
      options,
      ended: new AbortController(),
      streams: options.onProgress !== undefined && isCallTool(method),
      outcome: "unsent",
    };
    if (this.#closed) {
      throw failed(call, Code.CANCELLED, "The client is closed");
    }
    if (signal?.aborted) {
      throw failed(call, Code.CANCELLED, "The call was cancelled", { cause: signal.reason });
    }
    this.#running.add(call.ended);
    const ignore = onAbort(signal, () => call.ended.abort(signal?.reason));
    let answer: Answer | CallError;
    try {
      answer = await this.#attempts(call);
    } finally {
      ignore();
      this.#running.delete(call.ended);
    }
    if (call.thrown) {
      throw call.thrown.error;
    }
    await options.onTrailer?.(answer.trailer);
    if (answer instanceof CallError) {
      throw answer;
    }
    return answer.response as MessageShape<O>;
  }

  #checkConfidential(): void {
    if (!this.#confidential) {
      throw new TypeError("Credentials are not sent in plaintext to another machine: use TLS");
    }
  }

  /**
   * Makes attempts for as long as they may be repeated. grpc-js could retry, too, but wouldn't tell whether an attempt before
   * the last may have run the tool, and gives a stream up that has begun.
   */
  async #attempts(call: Call): Promise<Answer | CallError> {
    const repeats = new Repeats(
      isTyped(call.method) ? ToolService.method.callTool.name : call.method.name,
      this.#retries,
      this.#waitForLimit,
    );
    for (;;) {
      const attempt: Attempt = { sent: false, answered: false, connected: false };
      const answer = await this.#attempt(call, attempt);
      if (!(answer instanceof CallError) || call.ended.signal.aborted) {
        return answer;
      }
      if (call.streams && answer.code === Code.UNIMPLEMENTED) {
        // The server is older than the method.
        call.streams = false;
        continue;
      }
      const delay = repeats.delay(answer, attempt.answered && !call.streams, call.deadline);
      if (delay === undefined) {
        return answer;
      }
      await sleep(Math.min(delay, call.deadline - Date.now()), call.ended.signal);
      if (call.ended.signal.aborted) {
        return aborted(call);
      }
      if (call.deadline <= Date.now()) {
        return failed(call, Code.DEADLINE_EXCEEDED, "The deadline passed between two attempts");
      }
    }
  }

  #attempt(call: Call, attempt: Attempt): Promise<Answer | CallError> {
    const { signal } = call.ended;
    const { onHeader, onProgress } = call.options;
    const fail = (error: unknown) => {
      call.thrown ??= { error };
      call.ended.abort();
    };
    const guarded = (callback: () => unknown) => {
      if (!call.thrown) {
        try {
          // It may be async.
          Promise.resolve(callback()).catch(fail);
        } catch (error) {
          fail(error);
        }
      }
    };
    return new Promise((resolve) => {
      const end: End = (answer, trailer) => {
        signal.removeEventListener("abort", cancel);
        resolve(answer instanceof CallError ? answer : { response: answer, trailer: fromGrpc(trailer) });
      };
      const sent = call.streams
        ? this.#stream(call, attempt, (progress) => guarded(() => onProgress?.(progress)), end)
        : this.#unary(call, attempt, end);
      const cancel = () => sent.cancel();
      signal.addEventListener("abort", cancel);
      sent.on("metadata", (header) => {
        attempt.answered = true;
        guarded(() => onHeader?.(fromGrpc(header)));
      });
    });
  }

  #unary(call: Call, attempt: Attempt, end: End): ClientUnaryCall {
    let answer: MessageShape<DescMessage> | CallError;
    const sent = this.#client.makeUnaryRequest(
      pathOf(call.method),
      (bytes: Uint8Array) => Buffer.from(bytes),
      (bytes) => fromBinary(call.method.output, bytes),
      call.request,
      call.metadata,
      { deadline: call.deadline, credentials: this.#credentials(attempt) },
      (error, response) => {
        // There is a response exactly if there is no error.
        answer = error ? failureOf(call, attempt, error) : (response as MessageShape<DescMessage>);
      },
    );
    // Comes last, after the callback.
    sent.on("status", ({ metadata }) => end(answer, metadata));
    return sent;
  }

  #stream(
    call: Call,
    attempt: Attempt,
    report: (progress: Progress) => void,
    end: End,
  ): ClientReadableStream<CallToolStreamResponse> {
    let result: CallToolResponse | undefined;
    let last: StatusObject;
    const sent = this.#client.makeServerStreamRequest(
      pathOf(ToolService.method.callToolStream),
      // Both methods have the same fields.
      (bytes: Uint8Array) => Buffer.from(bytes),
      (bytes) => fromBinary(CallToolStreamResponseSchema, bytes),
      call.request,
      call.metadata,
      { deadline: call.deadline, credentials: this.#credentials(attempt) },
    );
    sent.on("data", ({ event }: CallToolStreamResponse) => {
      if (event.case === "progress") {
        report(toProgress(event.value));
      } else if (event.case === "result") {
        result = event.value;
      }
    });
    sent.on("error", () => {}); // is the status, too
    sent.on("status", (status) => {
      last = status;
    });
    // Comes last, after all messages.
    sent.on("end", () => {
      if (last.code !== status.OK) {
        end(failureOf(call, attempt, last), last.metadata);
      } else if (result) {
        end(result, last.metadata);
      } else {
        const none = { ...last, code: status.INTERNAL, details: "The stream ended without a result" };
        end(failureOf(call, attempt, none), last.metadata);
      }
    });
    return sent;
  }

  /** Those of one call: grpc-js asks for them for each attempt that has a connection, just before it is sent. */
  #credentials(attempt: Attempt): CallCredentials {
    return credentials.createFromMetadataGenerator((_, callback) => {
      attempt.connected = true;
      this.#authorization().then(
        (metadata) => {
          attempt.sent = true;
          callback(null, metadata);
        },
        (error) => {
          attempt.credentialError = { error };
          callback(Object.assign(new Error("no credentials"), { code: status.UNAUTHENTICATED }));
        },
      );
    });
  }

  async #authorization(): Promise<Metadata> {
    const metadata = new Metadata();
    if (this.#authorize) {
      metadata.set("authorization", await this.#authorize());
    }
    return metadata;
  }
}

function pathOf(method: DescMethod): string {
  return `/${method.parent.typeName}/${method.name}`;
}

function failed(call: Call, code: Code, text: string, init: Partial<CallErrorInit> = {}): CallError {
  const { requestId, outcome } = call;
  return new CallError({
    code,
    text,
    isTool: callsTool(call.method),
    requestId,
    outcome,
    ...init,
  });
}

function aborted(call: Call): CallError {
  const { reason } = call.ended.signal;
  return reason === CLOSED
    ? failed(call, Code.CANCELLED, "The client was closed")
    : failed(call, Code.CANCELLED, "The call was cancelled", { cause: reason });
}

function failureOf(call: Call, attempt: Attempt, error: StatusObject): CallError {
  const { sent, credentialError } = attempt;
  const [code, trailer] = [error.code as number, fromGrpc(error.metadata)];
  if (sent && call.outcome !== "open") {
    call.outcome = isRefusal(code, trailer) ? "refused" : "open";
  }
  if (credentialError && code === Code.UNAUTHENTICATED) {
    const cause = credentialError.error;
    // Anything else is left to the cause: it may hold a secret.
    const why = cause instanceof Error ? cause.message : "it threw no Error";
    return failed(call, code, `The token source failed: ${why}`, { cause });
  }
  if (attempt.connected && !sent && code === Code.DEADLINE_EXCEEDED) {
    return failed(call, code, "The deadline passed before the token source returned a token");
  }
  if (call.ended.signal.aborted && code === Code.CANCELLED) {
    return aborted(call);
  }
  return failed(call, code, sent ? error.details : reasonIn(error.details), { trailer });
}

const NO_CONNECTION =
  /^(?:\w+: )?(?:No connection established\. Last error: )+(?:Error: )?(.*?)(?: \(\d{4}-\S+\))?\. Resolution note: .*$/s;

/** Why no connection could be made, without what grpc-js says around it. */
function reasonIn(details: string): string {
  return details.replace(NO_CONNECTION, "No connection: $1");
}

function channelOptions(local: boolean, ip: string | undefined, options: ClientOptions): ChannelOptions {
  const { channelOptions: theirs = {} } = options;
  if ("grpc.service_config" in theirs || "grpc.enable_retries" in theirs) {
    throw new TypeError(
      "channelOptions: a service config would replace the load balancing and retries of this client; " +
        "retries: false switches retries off",
    );
  }
  return {
    // Repeats has the rest of it.
    "grpc.service_config": JSON.stringify({ loadBalancingConfig: SERVICE_CONFIG.loadBalancingConfig }),
    "grpc.enable_retries": 0,
    // A DNS record can't change the service config.
    "grpc.service_config_disable_resolution": 1,
    // The first reconnect comes before the last retry, so that a server that has just restarted is found in time.
    "grpc.initial_reconnect_backoff_ms": 200,
    // Each tool call's attempts include a new attempt to connect, however long the server was away. The default is two minutes.
    "grpc.max_reconnect_backoff_ms": 1_000,
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.max_receive_message_length": 16 * 1024 * 1024,
    "grpc.primary_user_agent": `agenta-ai-typescript/${VERSION}`,
    // Calls to this machine would be sent in plaintext to the proxy that http_proxy names.
    "grpc.enable_http_proxy": local ? 0 : 1,
    ...(ip && { "grpc.ssl_target_name_override": serverNameOf(ip) }),
    ...theirs,
  };
}
