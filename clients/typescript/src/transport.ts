import { type DescMessage, type DescMethodUnary, fromBinary, type MessageShape } from "@bufbuild/protobuf";
import { type CallCredentials, type ChannelOptions, Client, credentials, Metadata, status } from "@grpc/grpc-js";
import { onAbort, sleep } from "./abort.js";
import { Code } from "./code.js";
import { authorizationOf } from "./credentials.js";
import { CallError, type CallErrorInit } from "./errors.js";
import { fromGrpc, toGrpc } from "./metadata.js";
import type { CallOptions, ClientOptions, Metadata as PlainMetadata } from "./options.js";
import { SERVICE_CONFIG, UNRETRIED_SERVICE_CONFIG } from "./service_config.js";
import { checkTarget, isLocal } from "./target.js";
import { ipOf, serverNameOf, tlsCredentials } from "./tls.js";
import { ErrorReason, ToolService } from "./v1.js";
import { VERSION } from "./version.js";

/** How long a limited call waits if the server doesn't say. */
const UNKNOWN_DELAY_MS = 1000;

interface SendOptions extends CallOptions {
  readonly timeoutMs: number;
  /** The request_id. Empty if no tool is called. */
  readonly requestId?: string;
}

/** One call, over all its attempts. */
interface Call {
  readonly isTool: boolean;
  readonly requestId: string;
  readonly deadline: number;
  readonly metadata: Metadata;
  readonly options: SendOptions;
  /** Aborted by the caller's signal, or by close. */
  readonly ended: AbortController;
}

/** Why close ends a call. */
const CLOSED = Symbol("closed");

/** A connection of grpc-js, with our defaults. */
export class Transport {
  readonly #client: Client;
  readonly #authorize: (() => string | Promise<string>) | undefined;
  readonly #waitForLimit: boolean;
  readonly #running = new Set<AbortController>();
  #closed = false;

  /** @throws TypeError if the target is no address, or an option can't be used. */
  constructor(target: string, options: ClientOptions = {}) {
    checkTarget(target);
    const local = isLocal(target);
    const secure = options.tls === undefined ? !local : options.tls !== false;
    this.#authorize = authorizationOf(options);
    if (this.#authorize && !secure && !local) {
      throw new TypeError("Credentials are not sent in plaintext to another machine: use TLS");
    }
    this.#waitForLimit = options.waitForLimit ?? false;
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
    if (this.#authorize && Object.keys(metadata).some((name) => name.toLowerCase() === "authorization")) {
      throw new TypeError("metadata: the client has credentials of its own, so authorization can't be given");
    }
    const call: Call = {
      isTool: method.name === ToolService.method.callTool.name,
      requestId,
      deadline: Date.now() + timeoutMs,
      metadata: toGrpc(metadata),
      options,
      ended: new AbortController(),
    };
    if (this.#closed) {
      throw unsent(call, Code.CANCELLED, "The client is closed");
    }
    if (signal?.aborted) {
      throw unsent(call, Code.CANCELLED, "The call was cancelled", { cause: signal.reason });
    }
    this.#running.add(call.ended);
    const ignore = onAbort(signal, () => call.ended.abort(signal?.reason));
    try {
      return await this.#attempts(call, method, request);
    } finally {
      ignore();
      this.#running.delete(call.ended);
    }
  }

  /** Makes attempts for as long as a rate limit refuses them and there is time. */
  async #attempts<O extends DescMessage>(
    call: Call,
    method: DescMethodUnary<DescMessage, O>,
    request: Uint8Array,
  ): Promise<MessageShape<O>> {
    for (;;) {
      try {
        return await this.#attempt(call, method, request);
      } catch (error) {
        const delay = this.#waitForLimit && error instanceof CallError ? delayOf(error, call.deadline) : undefined;
        if (delay === undefined) {
          throw error;
        }
        await sleep(delay, call.ended.signal);
        if (call.ended.signal.aborted) {
          const closed = call.ended.signal.reason === CLOSED;
          const what = closed ? "The client was closed" : "The call was cancelled";
          const text = `${what} while the call waited for the rate limit`;
          const cause = closed ? {} : { cause: call.ended.signal.reason };
          throw failed(call, Code.CANCELLED, text, { sent: true, notRun: true, ...cause });
        }
      }
    }
  }

  /** Makes the call once, the retries of grpc-js included. */
  #attempt<O extends DescMessage>(
    call: Call,
    method: DescMethodUnary<DescMessage, O>,
    request: Uint8Array,
  ): Promise<MessageShape<O>> {
    const { onHeader, onTrailer } = call.options;
    const { signal } = call.ended;
    const record: AttemptRecord = { sent: false };
    return new Promise((resolve, reject) => {
      let settle = () => {};
      let thrown: { error: unknown } | undefined;
      const guard = (callback: () => void) => {
        try {
          callback();
        } catch (error) {
          thrown ??= { error };
          sent.cancel();
        }
      };
      const sent = this.#client.makeUnaryRequest(
        `/${method.parent.typeName}/${method.name}`,
        (bytes: Uint8Array) => Buffer.from(bytes),
        (bytes) => fromBinary(method.output, bytes),
        request,
        call.metadata,
        { deadline: call.deadline, credentials: this.#credentials(record) },
        (error, response) => {
          settle = error
            ? () => reject(failureOf(call, error.code as number, error.details, fromGrpc(error.metadata), record))
            : // There is a response exactly if there is no error.
              () => resolve(response as MessageShape<O>);
        },
      );
      const cancel = () => sent.cancel();
      signal.addEventListener("abort", cancel);
      sent.on("metadata", (received) => guard(() => onHeader?.(fromGrpc(received))));
      // Comes last, after the callback.
      sent.on("status", (ended) => {
        signal.removeEventListener("abort", cancel);
        guard(() => onTrailer?.(fromGrpc(ended.metadata)));
        thrown ? reject(thrown.error) : settle();
      });
    });
  }

  /** Those of one call: grpc-js asks for them for each attempt that has a connection, just before it is sent. */
  #credentials(record: AttemptRecord): CallCredentials {
    return credentials.createFromMetadataGenerator((_, callback) => {
      this.#authorization().then(
        (metadata) => {
          record.sent = true;
          callback(null, metadata);
        },
        (error) => {
          record.credentialError = { error };
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

/** What happened to a call, over the retries of grpc-js. */
interface AttemptRecord {
  /** Whether there was a connection that any of it may have been sent over. */
  sent: boolean;
  credentialError?: { readonly error: unknown };
}

function failed(call: Call, code: Code, text: string, init: Partial<CallErrorInit>): CallError {
  return new CallError({ code, text, isTool: call.isTool, requestId: call.requestId, sent: true, ...init });
}

function unsent(call: Call, code: Code, text: string, init: Partial<CallErrorInit> = {}): CallError {
  return failed(call, code, text, { ...init, sent: false });
}

function failureOf(call: Call, code: Code, text: string, trailer: PlainMetadata, record: AttemptRecord): CallError {
  const { sent, credentialError } = record;
  const { signal } = call.ended;
  if (credentialError && code === Code.UNAUTHENTICATED) {
    const { error } = credentialError;
    const why = error instanceof Error ? error.message : String(error);
    return failed(call, code, `The token source failed: ${why}`, { sent, cause: error });
  }
  if (signal.aborted && code === Code.CANCELLED) {
    return signal.reason === CLOSED
      ? failed(call, code, "The client was closed", { sent })
      : failed(call, code, "The call was cancelled", { sent, cause: signal.reason });
  }
  return failed(call, code, text, { sent, trailer });
}

/** Milliseconds to wait before a call that a rate limit refused is sent again; undefined if it isn't. */
function delayOf(error: CallError, deadline: number): number | undefined {
  const never = error.trailer["grpc-retry-pushback-ms"]?.includes("-1");
  if (error.reason !== ErrorReason.RATE_LIMITED || never) {
    return undefined;
  }
  const delay = error.retryDelayMs || UNKNOWN_DELAY_MS;
  const spare = deadline - Date.now() - delay;
  if (spare <= 0) {
    return undefined;
  }
  // Calls that were refused together must not come back together.
  return delay + Math.random() * Math.min(Math.max(delay / 2, 100), spare / 2);
}

function channelOptions(local: boolean, ip: string | undefined, options: ClientOptions): ChannelOptions {
  const { retries = true, channelOptions: theirs = {} } = options;
  if ("grpc.service_config" in theirs || "grpc.enable_retries" in theirs) {
    throw new TypeError(
      "channelOptions: a service config would replace the load balancing and retries of this client; " +
        "retries: false switches retries off",
    );
  }
  return {
    "grpc.service_config": JSON.stringify(retries ? SERVICE_CONFIG : UNRETRIED_SERVICE_CONFIG),
    "grpc.enable_retries": retries ? 1 : 0,
    // A DNS record can't change the service config.
    "grpc.service_config_disable_resolution": 1,
    // The first reconnect comes before the last retry, so that a server that has just restarted is found in time.
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.max_receive_message_length": 16 * 1024 * 1024,
    // A request that doesn't fit is never retried. The default is 1 MiB, five bytes less than the largest request takes.
    "grpc.per_rpc_retry_buffer_size": 2 * 1024 * 1024,
    "grpc.primary_user_agent": `agenta-ai-typescript/${VERSION}`,
    // Calls to this machine would be sent in plaintext to the proxy that http_proxy names.
    "grpc.enable_http_proxy": local ? 0 : 1,
    ...(ip && { "grpc.ssl_target_name_override": serverNameOf(ip) }),
    ...theirs,
  };
}
