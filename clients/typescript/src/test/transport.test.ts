import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createSecureServer } from "node:http2";
import { createRequire } from "node:module";
import { type AddressInfo, createConnection, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { inspect } from "node:util";
import { create, toBinary } from "@bufbuild/protobuf";
import { ServerCredentials, status } from "@grpc/grpc-js";
import { Client, MAX_REQUEST_BYTES } from "../client.js";
import { Code } from "../code.js";
import { CallError } from "../errors.js";
import { ErrorInfoSchema } from "../gen/google/rpc/error_details_pb.js";
import type { ClientOptions } from "../options.js";
import { Repeats } from "../repeats.js";
import { SERVICE_CONFIG } from "../service_config.js";
import { checkTarget, isLocal } from "../target.js";
import { ipOf, serverNameOf } from "../tls.js";
import { CallToolRequestSchema } from "../v1.js";
import { VERSION } from "../version.js";
import { type Answer, connect, detail, done, inDoubt, limited, type Service, serve } from "./service.js";

const { CANCELLED, INTERNAL, RESOURCE_EXHAUSTED, UNAVAILABLE } = status;
const ROOT = new URL("../../../../", import.meta.url);

function failing(code: status, pushback: string): Answer {
  return { code, trailer: { "grpc-retry-pushback-ms": pushback } };
}

function ids({ arrivals }: Service): Set<string | undefined> {
  return new Set(arrivals.map(({ request }) => request?.requestId));
}

function shared(path: string) {
  return JSON.parse(readFileSync(new URL(path, ROOT), "utf8"));
}

const again = { "grpc-retry-pushback-ms": "1" };

for (const { name, answer, options, attempts } of [
  { name: "limit", answer: limited(1), options: {}, attempts: 1 },
  { name: "limit, waiting in vain", answer: limited(60_000), options: { waitForLimit: true }, attempts: 1 },
  {
    name: "limit, never",
    answer: { ...limited(1), trailer: { "grpc-retry-pushback-ms": "-1" } },
    options: { waitForLimit: true },
    attempts: 1,
  },
  {
    name: "a limit of others, waiting",
    answer: failing(RESOURCE_EXHAUSTED, "1"),
    options: { waitForLimit: true },
    attempts: 1,
  },
  { name: "unavailable", answer: failing(UNAVAILABLE, "1"), options: {}, attempts: 5 },
  { name: "unavailable, in vain", answer: failing(UNAVAILABLE, "-1"), options: {}, attempts: 1 },
  { name: "unavailable, waiting", answer: failing(UNAVAILABLE, "1"), options: { waitForLimit: true }, attempts: 5 },
  { name: "unavailable, without retries", answer: failing(UNAVAILABLE, "1"), options: { retries: false }, attempts: 1 },
  { name: "cancelled by the server", answer: failing(CANCELLED, "1"), options: {}, attempts: 5 },
  { name: "a bug", answer: failing(INTERNAL, "1"), options: { waitForLimit: true }, attempts: 1 },
] satisfies { name: string; answer: Answer; options: ClientOptions; attempts: number }[]) {
  test(`what is sent again: ${name}`, async (t) => {
    const service = await serve(t, [answer]);
    const client = connect(t, service.target, options);
    await assert.rejects(client.callTool("tools.x.y.z", {}, { timeoutMs: 20_000 }), { code: answer.code });
    assert.equal(service.arrivals.length, attempts);
    assert.equal(ids(service).size, 1, "a retry has another request_id");
  });
}

test("a wait is as long as the server says, and may be repeated more often than a retry", async (t) => {
  const service = await serve(t, [limited(400), ...Array<Answer>(20).fill(limited(1)), done()]);
  await connect(t, service.target, { waitForLimit: true, retries: false }).callTool("tools.x.y.z");
  const [first, second] = service.arrivals.map(({ at }) => at);
  // Timers may be early by 1 ms.
  assert(first && second && second - first >= 399, `waited ${second} - ${first} ms`);
  assert.equal(service.arrivals.length, 22);
  assert.equal(ids(service).size, 1, "a repeat has another request_id");
});

const OVERLOADED = detail(ErrorInfoSchema, { reason: "ERROR_REASON_OVERLOADED", domain: "agenta.ai" });
const EXPIRED = detail(ErrorInfoSchema, { reason: "ERROR_REASON_CREDENTIALS_EXPIRED", domain: "agenta.ai" });
const lost: Answer = { code: UNAVAILABLE, trailer: again };
const overloaded: Answer = { code: UNAVAILABLE, details: [OVERLOADED], trailer: again };
const expired: Answer = { code: status.UNAUTHENTICATED, details: [EXPIRED] };

// What the last attempt meets tells nothing of those before it.
for (const { name, answers, notRun } of [
  { name: "refused after a lost one", answers: [lost, expired], notRun: false },
  { name: "refused after a lost one and a limit", answers: [lost, limited(1), expired], notRun: false },
  { name: "refused twice", answers: [overloaded, limited(1), expired], notRun: true },
  { name: "lost after a refused one", answers: [overloaded, lost], notRun: false },
  { name: "overloaded for good", answers: [overloaded], notRun: true },
]) {
  test(`what became of earlier attempts: ${name}`, async (t) => {
    const { target, arrivals } = await serve(t, answers);
    const trailers: unknown[] = [];
    const onTrailer = (trailer: unknown) => trailers.push(trailer);
    const call = connect(t, target, { waitForLimit: true }).callTool("tools.x.y.z", {}, { onTrailer });
    await assert.rejects(call, (error) => {
      assert(error instanceof CallError);
      assert.equal(error.notRun, notRun);
      assert.equal(error.message.endsWith(`. ${inDoubt(error.requestId)}`), !notRun, error.message);
      return true;
    });
    assert(arrivals.length >= answers.length);
    assert.equal(trailers.length, 1, "only the last trailer is shown");
  });
}

test("a deadline that passes between two attempts", async (t) => {
  const { target, arrivals } = await serve(t, [failing(UNAVAILABLE, "60000")]);
  await assert.rejects(connect(t, target).callTool("tools.x.y.z", {}, { timeoutMs: 2000 }), {
    code: Code.DEADLINE_EXCEEDED,
    notRun: false,
  });
  assert.equal(arrivals.length, 1);
});

test("the backoff grows to its maximum, and starts anew after a pushback", (t) => {
  t.mock.method(Math, "random", () => 0.5);
  const failure = (trailer: Record<string, string[]>) =>
    new CallError({ code: Code.UNAVAILABLE, text: "", isTool: true, requestId: "", outcome: "open", trailer });
  const repeats = new Repeats("CallTool", true, false);
  const plain = failure({});
  const waits = [plain, plain, failure({ "grpc-retry-pushback-ms": ["700"] }), plain, plain];
  assert.deepEqual(
    waits.map((error) => repeats.delay(error, false, Infinity)),
    [100, 200, 700, 100, undefined],
  );
  for (const { error, answered } of [
    { error: failure({ "grpc-retry-pushback-ms": ["-1"] }), answered: false },
    { error: failure({ "grpc-retry-pushback-ms": ["soon"] }), answered: false },
    { error: plain, answered: true },
  ]) {
    assert.equal(new Repeats("CallTool", true, false).delay(error, answered, Infinity), undefined);
  }
});

test("many calls wait for one limit", async (t) => {
  // 10 at once and 600 a minute: 50 calls take four seconds.
  let next = 0;
  const service = await serve(t, () => {
    const now = performance.now();
    const allowed = next - 9 * 100;
    if (now < allowed) {
      return limited(Math.ceil(allowed - now));
    }
    next = Math.max(next, now) + 100;
    return done();
  });
  const client = connect(t, service.target, { waitForLimit: true });
  const calls = Array.from({ length: 50 }, () => client.callTool("tools.x.y.z", {}, { timeoutMs: 20_000 }));
  await Promise.all(calls);
  assert.equal(ids(service).size, 50);
});

test("reads are sent again", async (t) => {
  const { target, arrivals } = await serve(t, [failing(UNAVAILABLE, "1"), failing(CANCELLED, "1"), done()]);
  assert((await connect(t, target).status()).enabled);
  assert.equal(arrivals.length, 3);
});

test("reads are sent three times more at most", async (t) => {
  const { target, arrivals } = await serve(t, [failing(UNAVAILABLE, "1")]);
  await assert.rejects(connect(t, target).status(), { code: Code.UNAVAILABLE });
  assert.equal(arrivals.length, 4);
});

test("the largest request is sent again", async (t) => {
  const { target, arrivals } = await serve(t, [{ code: UNAVAILABLE, trailer: again }, done()]);
  const requestId = "00000000-0000-4000-8000-000000000000";
  const size = (args: { a: string }) =>
    toBinary(CallToolRequestSchema, create(CallToolRequestSchema, { name: "t", arguments: args, requestId })).length;
  const long = MAX_REQUEST_BYTES - 200;
  const args = { a: "x".repeat(long + MAX_REQUEST_BYTES - size({ a: "x".repeat(long) })) };
  assert.equal(size(args), MAX_REQUEST_BYTES);
  await connect(t, target).callTool("t", args, { requestId });
  assert.equal(arrivals.length, 2);
});

test("a long answer is taken", async (t) => {
  const text = "x".repeat(5 << 20);
  const { target } = await serve(t, [done(text)]);
  assert.equal((await connect(t, target).callTool("tools.x.y.z")).result, text);
});

test("calls go to all addresses in turn", { timeout: 20_000 }, async (t) => {
  const services = [await serve(t, [done()]), await serve(t, [done()])];
  const client = connect(t, `ipv4:${services.map(({ target }) => target).join(",")}`);
  while (services.some(({ arrivals }) => arrivals.length === 0)) {
    await client.callTool("tools.x.y.z");
  }
});

test("credentials are sent where nobody reads along", async (t) => {
  const folder = temporary(t);
  const { key, certificate } = ownCertificate(folder);
  const encrypted = ServerCredentials.createSsl(null, [{ private_key: key, cert_chain: certificate }]);
  for (const { service, options } of [
    { service: await serve(t, [done()]), options: {} },
    { service: await serve(t, [done()], `unix:${join(folder, "s")}`), options: {} },
    { service: await serve(t, [done()], "127.0.0.1:0", encrypted), options: { tls: { ca: certificate } } },
  ]) {
    const target = service.target.replace("127.0.0.1", "localhost");
    for (const { who, sent } of [
      { who: { apiKey: "aai_k" }, sent: ["ApiKey aai_k"] },
      { who: { token: "t" }, sent: ["Bearer t"] },
      { who: { tokenSource: () => "s" }, sent: ["Bearer s"] },
      { who: { tokenSource: async () => "a" }, sent: ["Bearer a"] },
      { who: { apiKey: "", token: "t" }, sent: ["Bearer t"] },
      { who: { apiKey: "", token: undefined }, sent: [] },
    ]) {
      await connect(t, target, { ...who, ...options }).callTool("tools.x.y.z");
      assert.deepEqual(service.arrivals.at(-1)?.metadata.get("authorization"), sent, target);
    }
  }
});

test("a token source is asked for each attempt", async (t) => {
  const { target, arrivals } = await serve(t, [failing(UNAVAILABLE, "1"), limited(1), done()]);
  let asked = 0;
  const tokenSource = () => String(++asked);
  await connect(t, target, { tokenSource, waitForLimit: true }).callTool("tools.x.y.z");
  assert.deepEqual(
    arrivals.map(({ metadata }) => metadata.get("authorization")[0]),
    ["Bearer 1", "Bearer 2", "Bearer 3"],
  );
});

const fault = Object.assign(new Error("no such account"), { code: UNAVAILABLE });

for (const { name, tokenSource, text, cause } of [
  { name: "fails", tokenSource: () => Promise.reject(fault), text: "no such account", cause: fault },
  {
    name: "throws",
    tokenSource: () => {
      throw fault;
    },
    text: "no such account",
    cause: fault,
  },
  {
    name: "returns no line",
    tokenSource: () => "secret\n",
    text: "The token of the token source has blanks",
    cause: null,
  },
  {
    name: "fails with no error",
    tokenSource: () => Promise.reject({ token: "secret" }),
    text: "it threw no Error",
    cause: null,
  },
  { name: "returns nothing", tokenSource: () => "", text: "The token of the token source must have 1", cause: null },
]) {
  test(`a token source that ${name}`, async (t) => {
    const { target, arrivals } = await serve(t, [done()]);
    await assert.rejects(connect(t, target, { tokenSource }).callTool("tools.x.y.z"), (error) => {
      assert(error instanceof CallError);
      assert.deepEqual([error.code, error.notRun], [Code.UNAUTHENTICATED, true]);
      assert(error.message.startsWith(`UNAUTHENTICATED: The token source failed: ${text}`), error.message);
      assert(error.message.endsWith(". Nothing was sent, so the tool was not run."), error.message);
      assert(!error.message.includes("secret"));
      assert(cause === null || error.cause === cause);
      return true;
    });
    assert.equal(arrivals.length, 0);
  });
}

test("a token source that hangs", async (t) => {
  const { target, arrivals } = await serve(t, [done()]);
  const client = connect(t, target, { tokenSource: () => new Promise(() => {}) });
  // It must be connected by then.
  await assert.rejects(client.callTool("tools.x.y.z", {}, { timeoutMs: 2000 }), {
    code: Code.DEADLINE_EXCEEDED,
    notRun: true,
    text: "The deadline passed before the token source returned a token",
  });
  assert.equal(arrivals.length, 0);
});

test("a client with credentials takes no authorization", async (t) => {
  const client = connect(t, "127.0.0.1:1", { apiKey: "k" });
  await assert.rejects(client.status({ metadata: { Authorization: "Bearer x" } }), TypeError);
});

test("metadata with authorization isn't sent in plaintext to another machine", async (t) => {
  const client = connect(t, "agenta.example:443", { tls: false });
  await assert.rejects(client.status({ metadata: { Authorization: "Bearer secret" } }), {
    name: "TypeError",
    message: "Credentials are not sent in plaintext to another machine: use TLS",
  });
  const { target, arrivals } = await serve(t, [done()]);
  await connect(t, target).status({ metadata: { authorization: "Bearer t" } });
  assert.deepEqual(arrivals[0]?.metadata.get("authorization"), ["Bearer t"]);
});

test("a wait that is longer than a timer takes", async (t) => {
  const { target, arrivals } = await serve(t, [limited(2 ** 40)]);
  const client = connect(t, target, { waitForLimit: true });
  const ended = client.callTool("tools.x.y.z", {}, { timeoutMs: Infinity }).catch((error) => error);
  while (arrivals.length === 0) {
    await new Promise(setImmediate);
  }
  // What follows shows that it waits.
  await connect(t, target)
    .callTool("tools.x.y.z")
    .catch(() => {});
  client.close();
  assert.equal((await ended).text, "The client was closed");
  assert.equal(arrivals.length, 2);
});

test("to another machine there is TLS", async (t) => {
  const received = await proxied(t);
  const client = connect(t, "agenta.example:443", { apiKey: "k" });
  await assert.rejects(client.callTool("tools.x.y.z"), { code: Code.UNAVAILABLE });
  // Before the proxy, which it would look for again.
  client.close();
  const [connect_, hello] = received;
  assert.match(String(connect_), /^CONNECT agenta.example:443 /);
  assert.equal(hello?.[0], TLS_HANDSHAKE);
});

for (const { name, target = "127.0.0.1:1", options } of [
  { name: "plaintext to another machine", target: "agenta.example:443", options: { apiKey: "secret", tls: false } },
  { name: "newline", options: { apiKey: "secret\n" } },
  { name: "umlaut", options: { token: "secretä" } },
  { name: "too long", options: { token: "secret".repeat(2000) } },
  { name: "two of them", options: { apiKey: "secret", token: "secret" } },
  { name: "a key that is none", options: { tls: { key: "secret", certificate: "secret" } } },
  { name: "an empty key", options: { tls: { key: "", certificate: "" } } },
  { name: "the name of a file", options: { tls: { ca: "secret.pem" } } },
  { name: "a key without its certificate", options: { tls: { key: "secret" } } },
  { name: "a service config", options: { channelOptions: { "grpc.service_config": "secret" } } },
  { name: "retries by another name", options: { channelOptions: { "grpc.enable_retries": 0 } } },
] satisfies { name: string; target?: string; options: ClientOptions }[]) {
  test(`options that can't be used: ${name}`, () => {
    assert.throws(
      () => new Client(target, options),
      (error: Error) => error instanceof TypeError && !error.message.includes("secret"),
    );
  });
}

test("a connection doesn't show its key", (t) => {
  const client = connect(t, "127.0.0.1:1", { apiKey: "secret" });
  assert(!inspect(client, { depth: Infinity, showHidden: true }).includes("secret"));
});

test("calls to this machine pass by the proxy", async (t) => {
  const { target } = await serve(t, [done()]);
  const received = await proxied(t);
  await connect(t, target, { apiKey: "k" }).callTool("tools.x.y.z");
  assert.equal(received.length, 0);
});

test("targets", (t) => {
  const rows: { target: string; kind: string; clients?: string[] }[] = shared("tests/conformance/targets.json");
  assert(rows.length > 20);
  for (const { target, kind, clients } of rows) {
    if (kind === "error" || (clients && !clients.includes("typescript"))) {
      const shown = /@|^http|^$/i.test(target) ? "" : JSON.stringify(target);
      assert.throws(
        () => new Client(target),
        (error) => {
          assert(error instanceof TypeError);
          assert.match(error.message, /: give host:port/);
          assert(error.message.includes(shown) && !error.message.includes("secret"), error.message);
          return true;
        },
        target,
      );
    } else {
      checkTarget(target);
      connect(t, target);
      assert.equal(isLocal(target), kind === "local", target);
    }
  }
});

test("the service config is that of all clients", () => {
  assert.deepEqual(SERVICE_CONFIG, shared("client/agenta_ai/service_config.json"));
});

test("the version is that of the package", () => {
  assert.equal(VERSION, shared("clients/typescript/package.json").version);
});

test("grpc-js knows all options that it is given", () => {
  const given: string[] = [];
  const source = readFileSync(new URL("clients/typescript/src/transport.ts", ROOT), "utf8");
  for (const [, name] of source.matchAll(/^\s+(?:\.\.\.\(ip && \{ )?"(grpc[.-][a-z_.]+)":/gm)) {
    given.push(name ?? "");
  }
  const require = createRequire(import.meta.url);
  const { recognizedOptions } = require("@grpc/grpc-js/build/src/channel-options.js");
  assert(given.length >= 10, String(given));
  assert.deepEqual(
    given.filter((name) => !(name in recognizedOptions)),
    [],
  );
});

async function nothingSent(client: Client, code: Code, said: RegExp): Promise<void> {
  await assert.rejects(client.callTool("tools.x.y.z", {}, { timeoutMs: 10_000 }), (error) => {
    assert(error instanceof CallError);
    assert.deepEqual([error.code, error.notRun], [code, true], error.message);
    assert.match(error.message, said);
    assert(error.message.endsWith(". Nothing was sent, so the tool was not run."), error.message);
    return true;
  });
  await assert.rejects(client.status(), { message: /\. Nothing was sent\.$/ });
}

test("nothing is sent if nobody listens", async (t) => {
  const listener = createServer().listen(0, "127.0.0.1");
  t.after(() => listener.close());
  await once(listener, "listening");
  // Nobody listens at the caller's end of a connection, and nobody else can take its port.
  const caller = createConnection((listener.address() as AddressInfo).port, "127.0.0.1");
  t.after(() => caller.destroy());
  await once(caller, "connect");
  const client = connect(t, `127.0.0.1:${caller.localPort}`);
  await nothingSent(client, Code.UNAVAILABLE, /^UNAVAILABLE: No connection: connect ECONNREFUSED /);
});

test("nothing is sent to a server that isn't trusted", async (t) => {
  const { key, certificate } = ownCertificate(temporary(t));
  const encrypted = ServerCredentials.createSsl(null, [{ private_key: key, cert_chain: certificate }]);
  const { target, arrivals } = await serve(t, [done()], "127.0.0.1:0", encrypted);
  await nothingSent(
    connect(t, target, { tls: true }),
    Code.UNAVAILABLE,
    /^UNAVAILABLE: No connection: self.signed certificate[.;]/,
  );
  assert.equal(arrivals.length, 0);
});

test("nothing is sent with TLS to a server in plaintext", async (t) => {
  const { target, arrivals } = await serve(t, [done()]);
  await nothingSent(connect(t, target, { tls: true }), Code.UNAVAILABLE, /UNAVAILABLE/);
  assert.equal(arrivals.length, 0);
});

test("a call may have run if its connection is lost, although no later attempt could be sent", async (t) => {
  const service = await serve(t, [{}]);
  const relay = await relayed(t, service);
  const ended = assert.rejects(connect(t, relay.target).callTool("tools.x.y.z"), (error) => {
    assert(error instanceof CallError);
    assert.deepEqual([error.code, error.notRun], [Code.UNAVAILABLE, false]);
    assert(error.message.endsWith(`. ${inDoubt(error.requestId)}`), error.message);
    return true;
  });
  while (service.arrivals.length === 0) {
    await new Promise(setImmediate);
  }
  relay.cut();
  await ended;
  assert.equal(service.arrivals.length, 1);
});

/**
 * Leads to a service until it is cut. After that, connections are closed at once, and nobody else can listen there, as where
 * a server has stopped.
 */
async function relayed(t: TestContext, { target }: Service): Promise<{ target: string; cut: () => void }> {
  const open = new Set<Socket>();
  let isCut = false;
  const relay = createServer((socket) => {
    if (isCut) {
      socket.destroy();
      return;
    }
    const there = createConnection(Number(target.split(":")[1]), "127.0.0.1");
    for (const [from, to] of [
      [socket, there],
      [there, socket],
    ] as const) {
      open.add(from);
      from.on("error", () => {}).pipe(to);
    }
  });
  const cut = () => {
    isCut = true;
    for (const socket of open) {
      socket.destroy();
    }
  };
  relay.listen(0, "127.0.0.1");
  t.after(() => {
    cut();
    relay.close();
  });
  await once(relay, "listening");
  return { target: `127.0.0.1:${(relay.address() as AddressInfo).port}`, cut };
}

test("a server that was away for long is found soon", async (t) => {
  const server = createServer((socket) => socket.destroy());
  server.listen(0, "127.0.0.1");
  t.after(() => server.close());
  await once(server, "listening");
  const client = connect(t, `127.0.0.1:${(server.address() as AddressInfo).port}`, { retries: false });
  await assert.rejects(client.status());
  const waited: number[] = [];
  let last = performance.now();
  while (waited.length < 8) {
    await once(server, "connection");
    const now = performance.now();
    waited.push(now - last);
    last = now;
  }
  // The retries of a tool call take at least 1.2 seconds. By now, gRPC's own delays would be two to five.
  const shortest = Math.min(...waited.slice(-3));
  assert(shortest <= 1300, `the last attempts to connect were at least ${shortest} ms apart`);
});

test("TLS to an IP address is checked by the address, and none is sent as a name", async (t) => {
  const { key, certificate } = ownCertificate(temporary(t));
  const names: unknown[] = [];
  const server = createSecureServer({ key, cert: certificate }, (_, response) => response.end());
  server.on("secureConnection", (socket) => names.push(socket.servername));
  server.listen(0, "127.0.0.1");
  t.after(() => server.close());
  await once(server, "listening");
  const target = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const client = connect(t, target, { tls: { ca: certificate }, retries: false });
  await assert.rejects(client.status());
  assert.deepEqual(names, ["1.0.0.127.in-addr.arpa"]);
});

for (const { target, name } of [
  { target: "10.2.3.4:5", name: "4.3.2.10.in-addr.arpa" },
  { target: "dns:///10.2.3.4:5", name: "4.3.2.10.in-addr.arpa" },
  { target: "[2001:DB8::1]:5", name: "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa" },
  { target: "ipv6:[::1]:5", name: `1.${"0.".repeat(31)}ip6.arpa` },
  { target: "agenta.example:5", name: undefined },
]) {
  test(`the name in a TLS handshake with ${target}`, () => {
    const ip = ipOf(target);
    assert.equal(ip && serverNameOf(ip), name);
  });
}

const TLS_HANDSHAKE = 22;

/** Has the environment name a proxy, and returns what that receives: it lets one message through to nobody. */
async function proxied(t: TestContext): Promise<Buffer[]> {
  const received: Buffer[] = [];
  const proxy = createServer((socket) => {
    socket.once("data", (asked) => {
      received.push(asked);
      socket.write("HTTP/1.1 200 OK\r\n\r\n");
      socket.once("data", (sent) => {
        received.push(sent);
        socket.destroy();
      });
    });
  });
  proxy.listen(0, "127.0.0.1");
  t.after(() => proxy.close());
  await once(proxy, "listening");
  const before = { ...process.env };
  t.after(() => {
    process.env = before;
  });
  process.env.grpc_proxy = `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  delete process.env.no_grpc_proxy;
  delete process.env.no_proxy;
  return received;
}

function temporary(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "agenta-ai-"));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** A certificate for localhost, which a client must trust. */
function ownCertificate(folder: string): { key: Buffer; certificate: Buffer } {
  const [key, certificate] = [join(folder, "key.pem"), join(folder, "certificate.pem")];
  const made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", certificate];
  const subject = ["-subj", "/CN=test", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "1"];
  execFileSync("openssl", ["req", "-x509", ...made, ...subject], { stdio: "pipe" });
  return { key: readFileSync(key), certificate: readFileSync(certificate) };
}
