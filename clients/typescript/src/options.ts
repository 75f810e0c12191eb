import type { Progress } from "./progress.js";

/** A text, or the bytes of a name that ends in "-bin". */
export type MetadataValue = string | Uint8Array;

/** Metadata to send. Names are lower case. */
export type MetadataInit = Readonly<Record<string, MetadataValue | readonly MetadataValue[]>>;

/** Metadata that came: all values of each name. */
export type Metadata = Readonly<Record<string, readonly MetadataValue[]>>;

/** Who calls. At most one of these is given. */
export interface Credentials {
  /** A key to send with every call: one of the server, "aai_…", or of Agenta. An empty one is not sent. */
  readonly apiKey?: string | undefined;
  /** A bearer token to send with every call. An empty one is not sent. */
  readonly token?: string | undefined;
  /**
   * Returns the bearer token of a call. It is called for each attempt, when the connection is ready, and should cache a
   * token until it expires. If it fails, the call fails with a `CallError` whose cause is its error.
   */
  readonly tokenSource?: (() => string | Promise<string>) | undefined;
}

/** PEM texts for TLS. */
export interface TlsOptions {
  /** The certificate authorities to trust instead of those of Node. */
  readonly ca?: string | Uint8Array | undefined;
  /** The certificate chain that proves who calls. Needs `key`. */
  readonly certificate?: string | Uint8Array | undefined;
  /** The private key of `certificate`. */
  readonly key?: string | Uint8Array | undefined;
}

/** How a `Client` connects, and who calls. */
export interface ClientOptions extends Credentials {
  /**
   * `true`: TLS with Node's certificate authorities. An object: TLS with what it has. `false`: plaintext, without
   * credentials unless the target is local. By default plaintext to a local target, and TLS to any other.
   */
  readonly tls?: boolean | TlsOptions | undefined;
  /**
   * Whether a call of a tool that a rate limit refuses (reason RATE_LIMITED) waits as long as the server says, plus a random
   * delay of up to half of that, and is then sent again with the same request_id, until its deadline. If the wait would
   * outlast the deadline, the call fails at once. A refused call runs no tool, so nothing is billed twice. Off by default.
   */
  readonly waitForLimit?: boolean | undefined;
  /** Whether calls are retried automatically. On by default. It doesn't affect `waitForLimit`. */
  readonly retries?: boolean | undefined;
  /** Options of grpc-js for the connection, by their names, such as "grpc.ssl_target_name_override". */
  readonly channelOptions?: Readonly<Record<string, string | number>> | undefined;
}

/** How one call is made. */
export interface CallOptions {
  /** Milliseconds until the deadline: by default 90 seconds for a tool, 10 for all else. Infinity is for none. */
  readonly timeoutMs?: number | undefined;
  /** Cancels the call. Its reason is the cause of the `CallError`. */
  readonly signal?: AbortSignal | undefined;
  /** More metadata to send. */
  readonly metadata?: MetadataInit | undefined;
  /**
   * Receives what is happening to a call of a tool while it runs; other calls report nothing. The call has the same result,
   * errors, deadline and retries as without it. Progress is for display: stages may be skipped, and repeated after a retry. A
   * server that is older than this option reports nothing. If it throws, the call ends and fails with what it threw. If it
   * is async, the call doesn't wait for it, and also fails if it rejects before the call has ended.
   */
  readonly onProgress?: ((progress: Progress) => unknown) | undefined;
  /**
   * Receives the metadata that comes before the answer; with `onProgress`, that of each attempt. If it throws or rejects,
   * the same holds as for `onProgress`.
   */
  readonly onHeader?: ((metadata: Metadata) => unknown) | undefined;
  /**
   * Receives the metadata that comes after the answer, or with an error. If it throws, the call fails with that. If it is
   * async, the call waits for it, and fails if it rejects.
   */
  readonly onTrailer?: ((metadata: Metadata) => unknown) | undefined;
}

/** How one call of a tool is made. */
export interface CallToolOptions extends CallOptions {
  /**
   * A UUID, version 4, that names the call. A repeat with the same tool and arguments joins the running call or gets its
   * result. By default each call has a new one.
   */
  readonly requestId?: string | undefined;
  /**
   * Whether to run the tool again if the first run of this request_id may have been billed and its result is lost, which
   * may be billed twice. By default the tool fails with reason OUTCOME_UNKNOWN.
   */
  readonly rerunIfOutcomeUnknown?: boolean | undefined;
}
