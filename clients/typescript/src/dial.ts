import {
  type ChannelCredentials,
  type ChannelOptions,
  Client,
  credentials,
  InterceptingCall,
  type Interceptor,
} from "@grpc/grpc-js";
import { ToolService } from "./v1.js";

export interface DialOptions {
  /** A key to send with every call, one of the server's, "aai_…", or of Agenta. An empty one is not sent. */
  apiKey?: string | undefined;
  /**
   * Whether a call of a tool that a rate limit refuses waits as long as the server says, and is then sent again: within
   * its deadline, and four times at most. Where the wait would outlast the deadline, it fails at once. A refused call
   * runs no tool, so none is paid for twice.
   */
  waitForLimit?: boolean | undefined;
  /** Other credentials than the defaults, for other authorities or a certificate of your own. */
  credentials?: ChannelCredentials | undefined;
  /** More of what grpc-js can be told about a connection. */
  channel?: ChannelOptions | undefined;
}

/**
 * Makes a connection to target, "host:port" or any name that gRPC knows, such as "unix:/run/agenta.sock". It is opened by
 * its first call, and serves many at once.
 *
 * Without credentials, it is in plaintext to a loopback address or a Unix socket, and has TLS with Node's certificate
 * authorities to any other. The API key never leaves this machine in plaintext.
 *
 * @throws if the API key can't be sent.
 */
export function dial(target: string, options: DialOptions = {}): Client {
  const local = LOCAL.test(target);
  const transport = options.credentials ?? (local ? credentials.createInsecure() : credentials.createSsl());
  const interceptors = [];
  if (options.apiKey) {
    if (!local && !transport._isSecure()) {
      throw new Error("the API key is not sent in plaintext to another machine: use TLS");
    }
    interceptors.push(sending(options.apiKey));
  }
  return new Client(target, transport, {
    "grpc.service_config": JSON.stringify(serviceConfig(options.waitForLimit ?? false)),
    // A record in the DNS can't change what is retried.
    "grpc.service_config_disable_resolution": 1,
    // Sooner than the last retry, or a server that has just restarted is found too late.
    "grpc.initial_reconnect_backoff_ms": 200,
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.max_receive_message_length": 16 * 1024 * 1024,
    // A request that doesn't fit is never sent again. The default is 1 MiB, five bytes less than the largest request takes.
    "grpc.per_rpc_retry_buffer_size": 2 * 1024 * 1024,
    "grpc.primary_user_agent": "agenta-ai-typescript",
    // Calls to this machine would be handed in plaintext to the proxy that http_proxy names.
    "grpc.enable_http_proxy": local ? 0 : 1,
    ...options.channel,
    interceptors,
  });
}

// What a caller gets when the connection breaks, and when a server stops before it has begun the call: gRPC cancels it.
const LOST = ["UNAVAILABLE", "CANCELLED"];

/**
 * How a connection balances and retries. Each call has a request_id, so that the server knows the repeat of one that it is
 * running or has run. grpc-js allows no more attempts than these, and doesn't watch the health of a server.
 */
function serviceConfig(waitForLimit: boolean): object {
  const { status, listTools, callTool } = ToolService.method;
  return {
    loadBalancingConfig: [{ round_robin: {} }],
    methodConfig: [
      retried([status.name, listTools.name], LOST, 4),
      retried([callTool.name], waitForLimit ? [...LOST, "RESOURCE_EXHAUSTED"] : LOST, 5),
    ],
  };
}

function retried(methods: string[], codes: string[], maxAttempts: number): object {
  return {
    name: methods.map((method) => ({ service: ToolService.typeName, method })),
    retryPolicy: {
      maxAttempts,
      // Where the server sends grpc-retry-pushback-ms, that counts instead.
      initialBackoff: "0.1s",
      maxBackoff: "2s",
      backoffMultiplier: 2,
      retryableStatusCodes: codes,
    },
  };
}

function sending(apiKey: string): Interceptor {
  if (!/^[!-~]+$/.test(apiKey)) {
    throw new Error("the API key holds blanks, a newline or other characters that can't be sent");
  }
  return (options, next) =>
    new InterceptingCall(next(options), {
      start(metadata, listener, proceed) {
        const own = metadata.clone();
        own.set("authorization", `ApiKey ${apiKey}`);
        proceed(own, listener);
      },
    });
}

const OCTET = String.raw`(?:25[0-5]|2[0-4]\d|1?\d?\d)`;
const LOOPBACK = String.raw`(?:localhost|\[::1\]|127(?:\.${OCTET}){3})(?::\d+)?`;
/** Targets that are on this machine by their name alone. */
export const LOCAL = new RegExp(`^(?:(?:dns:(?:///)?|ipv[46]:)?${LOOPBACK}(?:,${LOOPBACK})*|unix:.+)$`, "i");
