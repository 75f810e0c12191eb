import assert from "node:assert/strict";
import { test } from "node:test";
import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { status } from "@grpc/grpc-js";
import type { Client } from "../client.js";
import { Code } from "../code.js";
import { CallError } from "../errors.js";
import { ErrorInfoSchema } from "../gen/google/rpc/error_details_pb.js";
import type { CallToolOptions, ClientOptions } from "../options.js";
import { toProgress } from "../progress.js";
import { ProgressSchema, ProgressStage, ToolService } from "../v1.js";
import { type Answer, connect, detail, done, inDoubt, limited, serve } from "./service.js";

const again = { "grpc-retry-pushback-ms": "1" };
const begun: Answer = { ...done(), progress: ["a", "b"] };
const broken: Answer = { progress: ["x"], code: status.UNAVAILABLE, trailer: again };
const early: Answer = { code: status.UNAVAILABLE, trailer: again };
const endless: Answer = { progress: ["x"] };
const NOT_FOUND = detail(ErrorInfoSchema, { reason: "ERROR_REASON_TOOL_NOT_FOUND", domain: "agenta.ai" });

for (const { name, options = {}, answers, code, texts, attempts } of [
  { name: "result", answers: [begun], texts: "ab", attempts: 1 },
  { name: "broken after its first message", answers: [broken, begun], texts: "xab", attempts: 2 },
  { name: "broken before and after", answers: [early, broken, early, broken, begun], texts: "xxab", attempts: 5 },
  { name: "broken for good", answers: [broken], code: Code.UNAVAILABLE, texts: "xxxxx", attempts: 5 },
  {
    name: "without retries",
    options: { retries: false },
    answers: [broken],
    code: Code.UNAVAILABLE,
    texts: "x",
    attempts: 1,
  },
  { name: "result that isn't confirmed", answers: [{ ...broken, ...done() }, begun], texts: "xab", attempts: 2 },
  {
    name: "never again",
    answers: [{ ...broken, trailer: { "grpc-retry-pushback-ms": "-1" } }],
    code: Code.UNAVAILABLE,
    texts: "x",
    attempts: 1,
  },
  {
    name: "refused",
    answers: [{ progress: ["x"], code: status.NOT_FOUND, details: [NOT_FOUND] }],
    code: Code.NOT_FOUND,
    texts: "x",
    attempts: 1,
  },
  { name: "limited", options: { waitForLimit: true }, answers: [limited(1), begun], texts: "ab", attempts: 2 },
  { name: "older server", answers: [{ code: status.UNIMPLEMENTED }, done()], texts: "", attempts: 2 },
  { name: "no result", answers: [{ progress: ["x"], trailer: {} }], code: Code.INTERNAL, texts: "x", attempts: 1 },
] satisfies {
  name: string;
  options?: ClientOptions;
  answers: Answer[];
  code?: Code;
  texts: string;
  attempts: number;
}[]) {
  test(`progress by callback: ${name}`, async (t) => {
    const { target, arrivals } = await serve(t, answers);
    const client = connect(t, target, options);
    let came = "";
    const call = client.callTool("t", {}, { onProgress: ({ text }) => (came += text), timeoutMs: 20_000 });
    await (code === undefined ? call : assert.rejects(call, { code }));
    assert.equal(code === undefined && (await call).result, code === undefined && "done");
    assert.equal(came, texts);
    assert.equal(arrivals.length, attempts);
    assert.equal(new Set(arrivals.map(({ request }) => request?.requestId)).size, 1, "a retry has another request_id");
  });

  test(`progress by iterator: ${name}`, async (t) => {
    const { target, arrivals } = await serve(t, answers);
    const came: unknown[] = [];
    const reading = read(connect(t, target, options), came, { timeoutMs: 20_000 });
    await (code === undefined ? reading : assert.rejects(reading, { code }));
    assert.deepEqual(came, [...texts, ...(code === undefined ? ["result: done"] : [])]);
    assert.equal(arrivals.length, attempts);
  });
}

async function read(client: Client, came: unknown[], options: CallToolOptions = {}): Promise<void> {
  for await (const event of client.streamTool("t", {}, options)) {
    came.push(event.type === "progress" ? event.progress.text : `result: ${event.result}`);
  }
}

test("a stream that breaks is in doubt", async (t) => {
  const { target } = await serve(t, [broken]);
  const call = connect(t, target, { retries: false }).callTool("t", {}, { onProgress: () => {} });
  await assert.rejects(call, (error) => {
    assert(error instanceof CallError);
    assert.equal(error.notRun, false);
    return error.message.endsWith(inDoubt(error.requestId));
  });
});

for (const options of [{}, { retries: false }]) {
  test(`a client that is closed in mid-stream, ${JSON.stringify(options)}`, async (t) => {
    const { target, left } = await serve(t, [endless]);
    const client = connect(t, target, options);
    const call = client.callTool("t", {}, { onProgress: () => client.close() });
    await assert.rejects(call, { code: Code.CANCELLED, text: "The client was closed", notRun: false });
    await left;
  });
}

for (const by of ["callback", "iterator"]) {
  test(`a stream that is cancelled, by ${by}`, async (t) => {
    const { target, left } = await serve(t, [endless]);
    const client = connect(t, target);
    const { signal, abort } = aborter();
    const cancel = () => abort("enough");
    const call =
      by === "callback"
        ? client.callTool("t", {}, { signal, onProgress: cancel })
        : read(client, [], { signal, onProgress: cancel });
    await assert.rejects(call, { code: Code.CANCELLED, cause: "enough", notRun: false });
    await left;
  });
}

function aborter() {
  const controller = new AbortController();
  return { signal: controller.signal, abort: (reason: string) => controller.abort(reason) };
}

test("a signal that is aborted before the stream begins", async (t) => {
  const { target, arrivals } = await serve(t, [begun]);
  const reading = read(connect(t, target), [], { signal: AbortSignal.abort("enough") });
  await assert.rejects(reading, { code: Code.CANCELLED, cause: "enough", notRun: true });
  assert.equal(arrivals.length, 0);
});

test("leaving the loop cancels the call", async (t) => {
  const { target, left } = await serve(t, [endless]);
  for await (const event of connect(t, target).streamTool("t")) {
    assert.equal(event.type, "progress");
    break;
  }
  await left;
});

test("a reader that leaves between two events cancels the call", async (t) => {
  const { target, left } = await serve(t, [endless]);
  const events = connect(t, target).streamTool("t");
  await events.next();
  const next = events.next();
  assert.deepEqual(await events.return(), { done: true, value: undefined });
  assert.deepEqual(await next, { done: true, value: undefined });
  await left;
});

test("progress is plain data", () => {
  const { QUEUED, UNSPECIFIED } = ProgressStage;
  const counts = { text: "Wait.", done: 1, total: 2, queuePosition: 3 };
  const retryDelay = durationFromMs(1500);
  assert.deepEqual(
    JSON.parse(JSON.stringify(toProgress(create(ProgressSchema, { ...counts, stage: QUEUED, retryDelay })))),
    {
      ...counts,
      stage: QUEUED,
      retryDelayMs: 1500,
    },
  );
  assert.deepEqual(toProgress(create(ProgressSchema, { ...counts, stage: 99 as ProgressStage })), {
    ...counts,
    stage: UNSPECIFIED,
    retryDelayMs: undefined,
  });
});

test("what the callback throws, the call throws", async (t) => {
  const { target, arrivals, left } = await serve(t, [{ progress: ["x", "y"] }]);
  const thrown = new Error("oops");
  let calls = 0;
  const onProgress = () => {
    calls++;
    throw thrown;
  };
  await assert.rejects(connect(t, target).callTool("t", {}, { onProgress }), thrown);
  await left;
  assert.deepEqual([calls, arrivals.length], [1, 1]);
});

for (const by of ["callback", "iterator"]) {
  test(`what an async callback throws, the call throws, by ${by}`, async (t) => {
    const { target, left } = await serve(t, [endless]);
    const client = connect(t, target);
    const thrown = new Error("oops");
    const onProgress = async () => {
      throw thrown;
    };
    const call = by === "callback" ? client.callTool("t", {}, { onProgress }) : read(client, [], { onProgress });
    await assert.rejects(call, thrown);
    await left;
  });
}

test("an async callback that throws while the call waits for its next attempt", async (t) => {
  const { target, arrivals } = await serve(t, [{ ...broken, trailer: { "grpc-retry-pushback-ms": "60000" } }]);
  const thrown = new Error("oops");
  const onTrailer = () => assert.fail("The call did not end by itself");
  const onProgress = () => new Promise((_, reject) => setTimeout(() => reject(thrown), 200));
  await assert.rejects(connect(t, target).callTool("t", {}, { onProgress, onTrailer }), thrown);
  assert.equal(arrivals.length, 1);
});

test("a slow reader gets the result, and the newest progress", async (t) => {
  const texts = Array.from({ length: 100 }, (_, index) => String(index));
  const { target } = await serve(t, [{ ...done(), progress: texts }]);
  const came: unknown[] = [];
  let last = () => {};
  const all = new Promise<void>((resolve) => {
    last = resolve;
  });
  const onProgress = ({ text }: { text: string }) => text === "99" && last();
  for await (const event of connect(t, target).streamTool("t", {}, { onProgress })) {
    came.push(event.type === "progress" ? event.progress.text : event.result);
    await all;
  }
  assert.equal(came.length, 18);
  assert.deepEqual(came.slice(-3), ["98", "99", "done"]);
});

test("a loop that is never entered sends nothing", async (t) => {
  const { target, arrivals } = await serve(t, [begun]);
  const client = connect(t, target);
  client.streamTool("t");
  await client.callTool("t");
  assert.equal(arrivals.length, 1);
});

test("arguments that can't be sent are an error of the loop", async (t) => {
  await assert.rejects(connect(t, "127.0.0.1:1").streamTool("t", { a: 1n }).next(), TypeError);
});

test("what calls no tool reports nothing", async (t) => {
  const { target } = await serve(t, [{ ...done() }]);
  const onProgress = () => assert.fail("reported");
  assert.equal((await connect(t, target).status({ onProgress })).enabled, true);
});

test("any call of a tool can report", async (t) => {
  const { target } = await serve(t, [begun]);
  const came: string[] = [];
  const onProgress = ({ text }: { text: string }) => came.push(text);
  const response = await connect(t, target).call(
    ToolService.method.callTool,
    { name: "t", requestId: "r" },
    { onProgress },
  );
  assert.deepEqual([came, response.isError], [["a", "b"], false]);
});
