import { Code } from "./code.js";
import type { CallError } from "./errors.js";
import { SERVICE_CONFIG } from "./service_config.js";
import { ErrorReason } from "./v1.js";

/** How long a limited call waits if the server doesn't say. */
const UNKNOWN_DELAY_MS = 1000;

/** Whether and when one call is sent again: the retry policy of the service config, as gRPC has it, and rate limits. */
export class Repeats {
  readonly #policy: RetryPolicy | undefined;
  readonly #waitForLimit: boolean;
  #attempts = 1;
  #backoffMs: number;

  constructor(method: string, retries: boolean, waitForLimit: boolean) {
    const config = SERVICE_CONFIG.methodConfig.find(({ name }) => name.some((each) => each.method === method));
    this.#policy = retries ? config?.retryPolicy : undefined;
    this.#waitForLimit = waitForLimit;
    this.#backoffMs = this.#policy ? milliseconds(this.#policy.initialBackoff) : 0;
  }

  /**
   * Milliseconds to wait before the next attempt; undefined if there is none.
   *
   * @param error - How the last one ended.
   * @param answered - Whether an answer had begun to come that must not be repeated.
   * @param deadline - That of the call, as Date.now() has it.
   */
  delay(error: CallError, answered: boolean, deadline: number): number | undefined {
    return this.#limitDelay(error, deadline) ?? (answered ? undefined : this.#retryDelay(error));
  }

  #limitDelay(error: CallError, deadline: number): number | undefined {
    if (!this.#waitForLimit || error.reason !== ErrorReason.RATE_LIMITED || pushback(error) === NEVER) {
      return undefined;
    }
    const delay = error.retryDelayMs || UNKNOWN_DELAY_MS;
    const spare = deadline - Date.now() - delay;
    // Calls that were refused together must not come back together.
    return spare > 0 ? delay + Math.random() * Math.min(Math.max(delay / 2, 100), spare / 2) : undefined;
  }

  #retryDelay(error: CallError): number | undefined {
    const policy = this.#policy;
    const told = pushback(error);
    if (
      !policy?.retryableStatusCodes.includes(Code[error.code]) ||
      this.#attempts >= policy.maxAttempts ||
      told === NEVER
    ) {
      return undefined;
    }
    this.#attempts++;
    if (told !== undefined) {
      this.#backoffMs = milliseconds(policy.initialBackoff);
      return told;
    }
    const backoff = this.#backoffMs;
    this.#backoffMs = Math.min(backoff * policy.backoffMultiplier, milliseconds(policy.maxBackoff));
    return backoff * (0.8 + 0.4 * Math.random());
  }
}

type RetryPolicy = (typeof SERVICE_CONFIG.methodConfig)[number]["retryPolicy"];

/** A pushback that forbids another attempt. */
const NEVER = -1;

/** Milliseconds that the server tells to wait; what can't be read means never, as in gRPC. */
function pushback(error: CallError): number | undefined {
  const [value] = error.trailer["grpc-retry-pushback-ms"] ?? [];
  return value === undefined ? undefined : /^\d+$/.test(String(value)) ? Number(value) : NEVER;
}

/** Of a duration such as "0.1s". */
function milliseconds(duration: string): number {
  return Number.parseFloat(duration) * 1000;
}
