/** The longest time that a timer takes. A longer one would end at once. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** Waits, or until the signal is aborted. */
export function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, Math.min(milliseconds, MAX_TIMER_MS));
    signal.addEventListener("abort", end);
  });
}

/** The callbacks of each signal. A signal with many listeners would be reported as a leak, so it has one of ours. */
const aborting = new WeakMap<AbortSignal, { callbacks: Set<() => void>; listener: () => void }>();

/** Calls back when the signal is aborted, and returns what ends that. */
export function onAbort(signal: AbortSignal | undefined, callback: () => void): () => void {
  if (!signal) {
    return () => {};
  }
  let entry = aborting.get(signal);
  if (!entry) {
    const callbacks = new Set<() => void>();
    const listener = () => {
      for (const each of callbacks) {
        each();
      }
    };
    entry = { callbacks, listener };
    aborting.set(signal, entry);
    signal.addEventListener("abort", listener);
  }
  const { callbacks, listener } = entry;
  callbacks.add(callback);
  return () => {
    callbacks.delete(callback);
    if (callbacks.size === 0 && aborting.get(signal)?.callbacks === callbacks) {
      aborting.delete(signal);
      signal.removeEventListener("abort", listener);
    }
  };
}
