import assert from "node:assert/strict";
import { getEventListeners } from "node:events";
import { test } from "node:test";
import { create, type JsonObject } from "@bufbuild/protobuf";
import { type Client, Metadata, status } from "@grpc/grpc-js";
import { type CallOptions, call, callTool, newRequest } from "../call.js";
import { CallError } from "../errors.js";
import { CallToolResponseSchema, ToolService } from "../v1.js";
import { connect, done, serve } from "./service.js";

test("a result is of native types", async (t) => {
  const content = { count: 3, names: ["a", "b"], none: null, nested: { yes: true } };
  const empty = { response: create(CallToolResponseSchema) };
  const { target } = await serve(t, [done(content), done(null), empty]);
  const client = connect(t, target);
  const { result, response } = await callTool(client, newRequest("tools.x.y.z", {}));
  assert.deepEqual(result, content);
  assert.equal(response.isError, false);
  for (const _ of ["null", "not set"]) {
    assert.equal((await callTool(client, newRequest("tools.x.y.z", {}))).result, null);
  }
});

test("each request has an id of its own, a UUID of version 4", () => {
  const ids = [newRequest("t", {}), newRequest("t", {})].map(({ requestId }) => requestId);
  assert.notEqual(ids[0], ids[1]);
  for (const id of ids) {
    assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  }
});

for (const value of [undefined, 1n, () => 1, Symbol("s"), Number.NaN, Infinity, new Date(0), new Map(), "\ud800"]) {
  test(`an argument that can't be sent: ${String(value)}`, () => {
    for (const [args, path] of [
      [{ a: value }, "arguments.a: "],
      [{ a: [{ b: value }] }, "arguments.a[0].b: "],
    ] as unknown as [JsonObject, string][]) {
      assert.throws(
        () => newRequest("tools.x.y.z", args),
        (error) => error instanceof TypeError && error.message.startsWith(path),
      );
    }
  });
}

test("a key that can't be sent", () => {
  assert.throws(() => newRequest("tools.x.y.z", { "\udc00": 1 }), TypeError);
});

test("arguments of every type are sent", async (t) => {
  const { target, arrivals } = await serve(t, [done()]);
  const args = { text: "ä😀", number: -1.5, yes: true, none: null, list: [[], {}], nested: { "": "empty" } };
  await callTool(connect(t, target), newRequest("tools.x.y.z", args));
  assert.deepEqual(arrivals[0]?.request?.arguments, args);
});

for (const { name, make, least, most } of [
  { name: "a tool", make: tool(), least: 80_000, most: 90_000 },
  { name: "a tool, set", make: tool({ timeoutMs: 20_000 }), least: 10_000, most: 20_000 },
  { name: "a read", make: status_(), least: 1, most: 10_000 },
  { name: "a read, set", make: status_({ timeoutMs: 30_000 }), least: 20_000, most: 30_000 },
  { name: "none", make: tool({ timeoutMs: Number.POSITIVE_INFINITY }), least: Infinity, most: Infinity },
]) {
  test(`deadline of ${name}`, async (t) => {
    const { target, arrivals } = await serve(t, [done()]);
    await make(connect(t, target));
    const left = arrivals[0]?.left ?? Number.NaN;
    assert(least <= left && left <= most, `${left} ms were left`);
  });
}

test("a deadline that passes", async (t) => {
  const { target } = await serve(t, [{}]);
  await assert.rejects(tool({ timeoutMs: 200 })(connect(t, target)), (error) => {
    assert(error instanceof CallError);
    assert.deepEqual([error.code, error.notRun], [status.DEADLINE_EXCEEDED, false]);
    return true;
  });
});

for (const when of ["before", "during"]) {
  test(`a call that is cancelled ${when}`, async (t) => {
    const { target, arrivals } = await serve(t, [{}]);
    const client = connect(t, target);
    const controller = new AbortController();
    if (when === "before") {
      controller.abort();
    }
    const ended = assert.rejects(tool({ signal: controller.signal })(client), (error) => {
      assert(error instanceof CallError);
      assert.deepEqual([error.code, error.notRun], [status.CANCELLED, false]);
      return true;
    });
    while (when === "during" && arrivals.length === 0) {
      await new Promise(setImmediate);
    }
    controller.abort();
    await ended;
    assert.equal(arrivals.length, when === "before" ? 0 : 1);
  });
}

test("a signal that outlives its calls is left alone", async (t) => {
  const { target } = await serve(t, [done()]);
  const { signal } = new AbortController();
  await tool({ signal })(connect(t, target));
  assert.equal(getEventListeners(signal, "abort").length, 0);
});

test("metadata, both ways", async (t) => {
  const answer = { ...done(), trailer: { "x-request-id": "r" } };
  const { target, arrivals } = await serve(t, [answer, { code: status.INTERNAL, trailer: { "x-request-id": "e" } }]);
  const client = connect(t, target);
  const trailers: unknown[] = [];
  const headers: Metadata[] = [];
  const options: CallOptions = {
    metadata: new Metadata(),
    onHeader: (header) => headers.push(header),
    onTrailer: (trailer) => trailers.push(...trailer.get("x-request-id")),
  };
  options.metadata?.set("traceparent", "00-1-2-01");
  await tool(options)(client);
  assert.deepEqual(arrivals[0]?.metadata.get("traceparent"), ["00-1-2-01"]);
  assert.equal(headers.length, 1);
  await assert.rejects(tool(options)(client));
  assert.deepEqual(trailers, ["r", "e"]);
});

function tool(options?: CallOptions) {
  return (client: Client) => callTool(client, newRequest("tools.x.y.z", {}), options);
}

function status_(options?: CallOptions) {
  return async (client: Client) => assert((await call(client, ToolService.method.status, {}, options)).enabled);
}
