import { durationMs } from "@bufbuild/protobuf/wkt";
import { onAbort } from "./abort.js";
import type { ToolResult } from "./client.js";
import type { CallOptions } from "./options.js";
import { type Progress as ProgressMessage, ProgressStage } from "./v1.js";

/** What is happening to a call of a tool. It is plain data, which JSON.stringify can write. */
export interface Progress {
  /** What is happening, for programs. UNSPECIFIED if this version doesn't know it. */
  readonly stage: ProgressStage;
  /** The same in one sentence for people. */
  readonly text: string;
  /** Steps that are done, from 0 to `total`. */
  readonly done: number;
  /** Steps in all. 0 if steps aren't counted. */
  readonly total: number;
  /** The call's estimated place in the queue: 1 is next. 0 if it isn't QUEUED. */
  readonly queuePosition: number;
  /** Milliseconds until the next attempt. Undefined if it isn't WAITING_FOR_RETRY. */
  readonly retryDelayMs: number | undefined;
}

export function toProgress({ stage, text, done, total, queuePosition, retryDelay }: ProgressMessage): Progress {
  return {
    stage: stage in ProgressStage ? stage : ProgressStage.UNSPECIFIED,
    text,
    done,
    total,
    queuePosition,
    retryDelayMs: retryDelay && durationMs(retryDelay),
  };
}

/**
 * What is happening to a call of a tool, or, as the last event, its result. Later versions may add types: ignore those that
 * you don't know.
 */
export type ToolEvent<T> =
  | { readonly type: "progress"; readonly progress: Progress }
  | ({ readonly type: "result" } & ToolResult<T>);

/** More progress than this isn't kept for a slow reader. */
const MAX_PENDING = 16;

/**
 * Makes a call, and yields its progress and then its result. The call is cancelled when the reader leaves before its end.
 * What a slow reader doesn't take is left out, the oldest first.
 */
export function follow<T>(
  call: (options: CallOptions) => Promise<ToolResult<T>>,
  options: CallOptions,
): AsyncGenerator<ToolEvent<T>, void, undefined> {
  const left = new AbortController();
  const events = read(call, options, left);
  const end = events.return.bind(events);
  // A generator would go on until its next event before it returns, and the tool would run meanwhile.
  events.return = (value) => {
    left.abort(LEFT);
    return end(value);
  };
  return events;
}

/** Why a call is cancelled whose reader has left. */
const LEFT = Symbol("left");

async function* read<T>(
  call: (options: CallOptions) => Promise<ToolResult<T>>,
  { signal, onProgress }: CallOptions,
  left: AbortController,
): AsyncGenerator<ToolEvent<T>, void, undefined> {
  const pending: Progress[] = [];
  let notify = () => {};
  const leave = () => left.abort(signal?.reason);
  const ignore = onAbort(signal, leave);
  if (signal?.aborted) {
    leave();
  }
  let ended = false;
  const result = call({
    signal: left.signal,
    onProgress: (progress) => {
      const handled = onProgress?.(progress);
      if (pending.length >= MAX_PENDING) {
        pending.shift();
      }
      pending.push(progress);
      notify();
      return handled;
    },
  }).finally(() => {
    ended = true;
    notify();
  });
  // It is awaited below, unless the reader leaves.
  result.catch(() => {});
  try {
    for (;;) {
      const progress = pending.shift();
      if (progress) {
        yield { type: "progress", progress };
      } else if (left.signal.reason === LEFT) {
        return;
      } else if (ended) {
        yield { type: "result", ...(await result) };
        return;
      } else {
        await new Promise<void>((resolve) => {
          notify = resolve;
        });
      }
    }
  } finally {
    ignore();
    left.abort();
  }
}
