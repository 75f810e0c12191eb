import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import { create, type JsonObject } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { status } from "@grpc/grpc-js";
import { Client, MAX_REQUEST_BYTES } from "../client.js";
import { Code } from "../code.js";
import { CallError } from "../errors.js";
import type { CallOptions, CallToolOptions, Metadata } from "../options.js";
import { CallToolResponseSchema, ErrorReason, ToolService } from "../v1.js";
import { connect, done, inDoubt, limited, serve } from "./service.js";

const ID = /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

test("a result is of native types", async (t) => {
  const content = { count: 3, names: ["a", "b"], none: null, nested: { yes: true } };
  const empty = { response: create(CallToolResponseSchema) };
  const { target } = await serve(t, [done(content), done(null), empty]);
  const client = connect(t, target);
  const { result, response } = await client.callTool<typeof content>("tools.x.y.z");
  assert.deepEqual(result, content);
  assert.equal(result.nested.yes, true);
  assert.equal(response.isError, false);
  for (const _ of ["null", "not set"]) {
    assert.equal((await client.callTool("tools.x.y.z")).result, null);
  }
});

test("answers can be written by JSON.stringify", async (t) => {
  const response = create(CallToolResponseSchema, {
    structuredContent: { kind: { case: "numberValue", value: 3 } },
    content: [{ kind: { case: "resourceLink", value: { uri: "x:y", size: 5n } } }],
    meta: { attempts: [{ duration: durationFromMs(2500) }] },
  });
  const { target } = await serve(t, [{ response }]);
  const client = connect(t, target);
  const result = await client.callTool("tools.x.y.z", {}, { requestId: "r" });
  const written = {
    result: 3,
    response: {
      content: [{ resourceLink: { uri: "x:y", size: "5" } }],
      structuredContent: 3,
      meta: { attempts: [{ duration: "2.500s" }] },
    },
    requestId: "r",
  };
  assert.deepEqual(JSON.parse(JSON.stringify(result)), written);
  for await (const event of client.streamTool("tools.x.y.z", {}, { requestId: "r" })) {
    assert.deepEqual(JSON.parse(JSON.stringify(event)), { type: "result", ...written });
  }
  assert.deepEqual(JSON.parse(JSON.stringify(await client.status())), { enabled: true });
  // The messages in it, too.
  const { content, meta, structuredContent } = result.response;
  assert.deepEqual(JSON.parse(JSON.stringify({ content, meta, structuredContent })), written.response);
  assert.deepEqual(JSON.parse(JSON.stringify([content[0]?.kind.value, meta?.attempts[0]?.duration])), [
    { uri: "x:y", size: "5" },
    "2.500s",
  ]);
});

test("each call has an id of its own, a UUID of version 4", async (t) => {
  const { target, arrivals } = await serve(t, [done()]);
  const client = connect(t, target);
  const returned = [(await client.callTool("t")).requestId, (await client.callTool("t")).requestId];
  assert.deepEqual(
    arrivals.map(({ request }) => request?.requestId),
    returned,
  );
  assert.notEqual(returned[0], returned[1]);
  assert.match(returned[0] ?? "", ID);
});

test("a call can be named, and run again if its outcome is unknown", async (t) => {
  const { target, arrivals } = await serve(t, [done()]);
  const client = connect(t, target);
  const requestId = "00000000-0000-4000-8000-000000000000";
  assert.equal((await client.callTool("t", {}, { requestId, rerunIfOutcomeUnknown: true })).requestId, requestId);
  await client.callTool("t", {}, { requestId: undefined });
  const [first, second] = arrivals.map(({ request }) => request);
  assert.deepEqual([first?.requestId, first?.rerunIfOutcomeUnknown], [requestId, true]);
  assert.match(second?.requestId ?? "", ID);
  assert.equal(second?.rerunIfOutcomeUnknown, false);
});

test("an empty id is an error", async (t) => {
  const { target, arrivals } = await serve(t, [done()]);
  const client = connect(t, target);
  await assert.rejects(client.callTool("t", {}, { requestId: "" }), TypeError);
  await assert.rejects(client.call(ToolService.method.callTool, { name: "t" }), TypeError);
  assert.equal(arrivals.length, 0);
});

for (const value of [1n, () => 1, Symbol("s"), Number.NaN, Infinity, new Date(0), new Map(), "\ud800"]) {
  test(`an argument that can't be sent: ${String(value)}`, async (t) => {
    const client = connect(t, "127.0.0.1:1");
    for (const [args, path] of [
      [{ a: value }, "arguments.a: "],
      [{ a: [{ b: value }] }, "arguments.a[0].b: "],
    ] as const) {
      await assert.rejects(
        client.callTool("tools.x.y.z", args),
        (error) => error instanceof TypeError && error.message.startsWith(path),
      );
    }
  });
}

for (const { name, args } of [
  { name: "a key", args: { "\udc00": 1 } },
  { name: "a list", args: [1] },
  { name: "undefined in a list", args: { a: [undefined] } },
  { name: "33 levels", args: nested(33) },
]) {
  test(`arguments that can't be sent: ${name}`, async (t) => {
    await assert.rejects(connect(t, "127.0.0.1:1").callTool("tools.x.y.z", args), TypeError);
  });
}

test("arguments of every type are sent", async (t) => {
  class Point {
    readonly x = 1;
    readonly y = undefined;
  }
  interface Typed {
    readonly text: string;
    readonly left?: string | undefined;
  }
  const typed: Typed = { text: "ä😀", left: undefined };
  const { target, arrivals } = await serve(t, [done()]);
  const same = { number: -1.5, yes: true, none: null, list: [[], {}], nested: { "": "empty", __proto__x: 1 } };
  const client = connect(t, target);
  await client.callTool("tools.x.y.z", { ...same, typed, point: new Point(), left: undefined });
  assert.deepEqual(arrivals[0]?.request?.arguments, { ...same, typed: { text: "ä😀" }, point: { x: 1 } });
  await client.callTool("tools.x.y.z", nested(32));
  await client.callTool("tools.x.y.z", typed);
  assert.deepEqual(arrivals[2]?.request?.arguments, { text: "ä😀" });
});

function nested(levels: number): JsonObject {
  let made: JsonObject = {};
  for (let level = 1; level < levels; level++) {
    made = { a: made };
  }
  return made;
}

for (const { name, make, least, most } of [
  { name: "a tool", make: tool(), least: 80_000, most: 90_000 },
  { name: "a tool, set", make: tool({ timeoutMs: 20_000 }), least: 10_000, most: 20_000 },
  { name: "a read", make: status_(), least: 1, most: 10_000 },
  { name: "a read, set", make: status_({ timeoutMs: 30_000 }), least: 20_000, most: 30_000 },
  { name: "one too long to be sent", make: tool({ timeoutMs: Number.MAX_VALUE }), least: Infinity, most: Infinity },
  { name: "none", make: tool({ timeoutMs: Number.POSITIVE_INFINITY }), least: Infinity, most: Infinity },
]) {
  test(`deadline of ${name}`, async (t) => {
    const { target, arrivals } = await serve(t, [done()]);
    await make(connect(t, target));
    const left = arrivals[0]?.left ?? Number.NaN;
    assert(least <= left && left <= most, `${left} ms were left`);
  });
}

for (const timeoutMs of [0, -1, Number.NaN]) {
  test(`a time-out that is none: ${timeoutMs}`, async (t) => {
    await assert.rejects(tool({ timeoutMs })(connect(t, "127.0.0.1:1")), RangeError);
  });
}

test("a deadline that passes", async (t) => {
  const { target } = await serve(t, [{}]);
  await assert.rejects(tool({ timeoutMs: 2000 })(connect(t, target)), (error) => {
    assert(error instanceof CallError);
    assert.deepEqual([error.code, error.notRun], [Code.DEADLINE_EXCEEDED, false]);
    assert.match(error.requestId, ID);
    assert(error.message.endsWith(`. ${inDoubt(error.requestId)}`), error.message);
    return true;
  });
});

for (const when of ["before", "during"]) {
  test(`a call that is cancelled ${when}`, async (t) => {
    const { target, arrivals } = await serve(t, [{}]);
    const client = connect(t, target);
    const controller = new AbortController();
    const reason = new Error("no longer wanted");
    if (when === "before") {
      controller.abort(reason);
    }
    const ended = assert.rejects(tool({ signal: controller.signal })(client), (error) => {
      assert(error instanceof CallError);
      assert.deepEqual([error.code, error.notRun, error.cause], [Code.CANCELLED, when === "before", reason]);
      const remark = error.notRun ? "Nothing was sent, so the tool was not run." : inDoubt(error.requestId);
      assert.equal(error.message, `CANCELLED: The call was cancelled. ${remark}`);
      return true;
    });
    while (when === "during" && arrivals.length === 0) {
      await new Promise(setImmediate);
    }
    controller.abort(reason);
    await ended;
    assert.equal(arrivals.length, when === "before" ? 0 : 1);
  });
}

test("a signal that outlives its calls is left alone, and many calls share one", async (t) => {
  const warnings: Error[] = [];
  const warn = (warning: Error) => warnings.push(warning);
  process.on("warning", warn);
  t.after(() => process.off("warning", warn));
  const { target, arrivals } = await serve(t, [{}]);
  const client = connect(t, target);
  const controller = new AbortController();
  const { signal } = controller;
  const calls = Array.from({ length: 30 }, () => tool({ signal })(client).catch((error) => error));
  while (arrivals.length < 30) {
    await new Promise(setImmediate);
  }
  controller.abort();
  for (const error of await Promise.all(calls)) {
    assert(error instanceof CallError);
    assert.equal(error.cause, signal.reason);
  }
  assert.equal(getEventListeners(signal, "abort").length, 0);
  assert.deepEqual(warnings, []);
});

test("metadata, both ways", async (t) => {
  const answer = { ...done(), trailer: { "x-request-id": "r", "x-bin": Buffer.from([1, 2]) } };
  const { target, arrivals } = await serve(t, [answer, { code: status.INTERNAL, trailer: { "x-request-id": "e" } }]);
  const client = connect(t, target);
  const trailers: Metadata[] = [];
  const headers: Metadata[] = [];
  const options: CallOptions = {
    metadata: { traceparent: "00-1-2-01", "b-bin": Uint8Array.of(3), two: ["a", "b"] },
    onHeader: (header) => headers.push(header),
    onTrailer: (trailer) => trailers.push(trailer),
  };
  await tool(options)(client);
  const sent = arrivals[0]?.metadata;
  assert.deepEqual(sent?.get("traceparent"), ["00-1-2-01"]);
  assert.deepEqual(sent?.get("b-bin"), [Buffer.from([3])]);
  assert.deepEqual(sent?.get("two"), ["a, b"]);
  assert.equal(headers.length, 1);
  await assert.rejects(tool(options)(client), (error) => {
    assert(error instanceof CallError);
    assert.deepEqual(error.trailer["x-request-id"], ["e"]);
    return true;
  });
  assert.deepEqual(
    trailers.map((trailer) => trailer["x-request-id"]),
    [["r"], ["e"]],
  );
  assert.deepEqual(trailers[0]?.["x-bin"], [Buffer.from([1, 2])]);
});

for (const metadata of [{ "b-bin": "text" }, { ä: "x" }, { a: "line\nline" }]) {
  test(`metadata that can't be sent: ${JSON.stringify(metadata)}`, async (t) => {
    await assert.rejects(tool({ metadata })(connect(t, "127.0.0.1:1")), TypeError);
  });
}

test("metadata that can't be sent isn't shown", async (t) => {
  const metadata = { authorization: "Bearer secret\n" };
  await assert.rejects(tool({ metadata })(connect(t, "127.0.0.1:1")), (error) => {
    assert(error instanceof TypeError);
    assert.match(error.message, /^metadata: "authorization" can't be sent/);
    return !error.message.includes("secret");
  });
});

const thrown = new Error("a fault of the caller");
const throws = () => {
  throw thrown;
};

for (const { name, callback } of [
  { name: "onHeader", callback: throws },
  { name: "onTrailer", callback: throws },
  { name: "onHeader", callback: async () => throws() },
  { name: "onTrailer", callback: async () => throws() },
] as const) {
  test(`${name} that throws rejects the call: ${callback}`, async (t) => {
    const { target } = await serve(t, [done(), { code: status.INTERNAL }]);
    const client = connect(t, target);
    await assert.rejects(tool({ [name]: callback })(client), (error) => error === thrown);
    // Of a refusal, no metadata comes before its status.
    const refused = name === "onTrailer" ? (error: unknown) => error === thrown : { code: Code.INTERNAL };
    await assert.rejects(tool({ [name]: callback })(client), refused);
    await assert.rejects(tool()(client), { code: Code.INTERNAL });
  });
}

test("a request that is too large is not sent", async (t) => {
  const { target, arrivals } = await serve(t, [done()]);
  await assert.rejects(connect(t, target).callTool("t", { a: "x".repeat(MAX_REQUEST_BYTES) }), (error) => {
    assert(error instanceof CallError);
    assert.deepEqual(
      [error.code, error.reason, error.notRun],
      [Code.INVALID_ARGUMENT, ErrorReason.REQUEST_TOO_LARGE, true],
    );
    assert.match(
      error.message,
      /^REQUEST_TOO_LARGE: The request has 1048\d{3} bytes, and the limit is 1048576: .*\. Nothing was sent, so the tool was not run\.$/,
    );
    return true;
  });
  assert.equal(arrivals.length, 0);
});

test("close ends calls in flight, and later ones send nothing", async (t) => {
  const { target, arrivals } = await serve(t, [{}]);
  const client = new Client(target);
  const calls = Array.from({ length: 3 }, () => tool()(client).catch((error) => error));
  const read = client.status().catch((error) => error);
  while (arrivals.length < 4) {
    await new Promise(setImmediate);
  }
  client.close();
  for (const error of await Promise.all(calls)) {
    assert(error instanceof CallError);
    assert.deepEqual([error.code, error.notRun, error.cause], [Code.CANCELLED, false, undefined]);
    assert.equal(error.message, `CANCELLED: The client was closed. ${inDoubt(error.requestId)}`);
  }
  assert.equal((await read).message, "CANCELLED: The client was closed");
  await assert.rejects(tool()(client), (error) => {
    assert(error instanceof CallError);
    assert.deepEqual([error.code, error.notRun], [Code.CANCELLED, true]);
    assert.equal(error.message, "CANCELLED: The client is closed. Nothing was sent, so the tool was not run.");
    return true;
  });
  client.close();
  assert.equal(arrivals.length, 4);
});

test("close ends a call between two attempts", async (t) => {
  const later = { code: status.UNAVAILABLE, trailer: { "grpc-retry-pushback-ms": "60000" } };
  const { target, arrivals } = await serve(t, [later]);
  const client = connect(t, target);
  const ended = assert.rejects(tool()(client), (error) => {
    assert(error instanceof CallError);
    assert.equal(error.message, `CANCELLED: The client was closed. ${inDoubt(error.requestId)}`);
    return true;
  });
  while (arrivals.length === 0) {
    await new Promise(setImmediate);
  }
  setTimeout(() => client.close(), 100);
  await ended;
});

for (const how of ["cancelled", "closed"]) {
  test(`a call that is ${how} while it waits for a limit was not run`, async (t) => {
    const { target, arrivals } = await serve(t, [limited(60_000)]);
    const client = connect(t, target, { waitForLimit: true });
    const controller = new AbortController();
    const ended = assert.rejects(tool({ signal: controller.signal })(client), (error) => {
      assert(error instanceof CallError);
      assert.deepEqual([error.code, error.notRun], [Code.CANCELLED, true]);
      const who = how === "closed" ? "The client was closed" : "The call was cancelled";
      assert.equal(error.message, `CANCELLED: ${who}. The tool was not run.`);
      return true;
    });
    while (arrivals.length === 0) {
      await new Promise(setImmediate);
    }
    setTimeout(() => (how === "closed" ? client.close() : controller.abort()), 1000);
    await ended;
  });
}

test("using closes", async (t) => {
  const { target } = await serve(t, [done()]);
  let client: Client;
  {
    using used = new Client(target);
    client = used;
    await tool()(used);
  }
  await assert.rejects(tool()(client), { text: "The client is closed" });
});

test("all pages of tools", async (t) => {
  const { target } = await serve(t, [{ pages: { "": "2", "2": "3" } }]);
  const tools = await connect(t, target).listTools();
  assert.deepEqual(
    tools.map(({ name }) => name),
    ["tool ", "tool 2", "tool 3"],
  );
});

test("pages without an end", async (t) => {
  const { target } = await serve(t, [{ pages: { "": "2", "2": "2" } }]);
  await assert.rejects(connect(t, target).listTools(), /repeats a page/);
});

function tool(options?: CallToolOptions) {
  return (client: Client) => client.callTool("tools.x.y.z", {}, options);
}

function status_(options?: CallOptions) {
  return async (client: Client) => assert((await client.status(options)).enabled);
}
