import { onAbort } from "./abort.js";
import type { ToolResult } from "./client.js";
import type { CallOptions } from "./options.js";
import type { Progress } from "./v1.js";

/** What is happening to a call of a tool, or, as the last event, its result. */
export type ToolEvent<T> =
  | { readonly type: "progress"; readonly progress: Progress }
  | ({ readonly type: "result" } & ToolResult<T>);

/** More progress than this isn't kept for a slow reader. */
const MAX_PENDING = 16;

/**
 * Makes a call, and yields its progress and then its result. The call is cancelled when the reader leaves before its end.
 * What a slow reader doesn't take is left out, the oldest first.
 */
export async function* follow<T>(
  call: (options: CallOptions) => Promise<ToolResult<T>>,
  { signal, onProgress }: CallOptions,
): AsyncGenerator<ToolEvent<T>, void, undefined> {
  const pending: Progress[] = [];
  let notify = () => {};
  const left = new AbortController();
  const leave = () => left.abort(signal?.reason);
  const ignore = onAbort(signal, leave);
  if (signal?.aborted) {
    leave();
  }
  let ended = false;
  const result = call({
    signal: left.signal,
    onProgress: (progress) => {
      onProgress?.(progress);
      if (pending.length >= MAX_PENDING) {
        pending.shift();
      }
      pending.push(progress);
      notify();
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
