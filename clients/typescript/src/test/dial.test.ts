import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { inspect } from "node:util";
import { toBinary } from "@bufbuild/protobuf";
import { credentials, Metadata, ServerCredentials, status } from "@grpc/grpc-js";
import { call, callTool, newRequest } from "../call.js";
import { type DialOptions, dial, LOCAL } from "../dial.js";
import { type CallToolRequest, CallToolRequestSchema, ToolService } from "../v1.js";
import { type Answer, connect, done, type Service, serve } from "./service.js";

const { CANCELLED, INTERNAL, RESOURCE_EXHAUSTED, UNAVAILABLE } = status;

function failing(code: status, pushback: string): Answer {
  return { code, trailer: { "grpc-retry-pushback-ms": pushback } };
}

function ids({ arrivals }: Service): Set<string | undefined> {
  return new Set(arrivals.map(({ request }) => request?.requestId));
}

function size(request: CallToolRequest): number {
  return toBinary(CallToolRequestSchema, request).length;
}

for (const { name, code, pushback, waitForLimit, attempts } of [
  { name: "limit", code: RESOURCE_EXHAUSTED, pushback: "1", waitForLimit: false, attempts: 1 },
  { name: "limit, waiting", code: RESOURCE_EXHAUSTED, pushback: "1", waitForLimit: true, attempts: 5 },
  { name: "limit, waiting in vain", code: RESOURCE_EXHAUSTED, pushback: "-1", waitForLimit: true, attempts: 1 },
  { name: "unavailable", code: UNAVAILABLE, pushback: "1", waitForLimit: false, attempts: 5 },
  { name: "unavailable, in vain", code: UNAVAILABLE, pushback: "-1", waitForLimit: false, attempts: 1 },
  { name: "unavailable, waiting", code: UNAVAILABLE, pushback: "1", waitForLimit: true, attempts: 5 },
  { name: "cancelled by the server", code: CANCELLED, pushback: "1", waitForLimit: false, attempts: 5 },
  { name: "a bug", code: INTERNAL, pushback: "1", waitForLimit: true, attempts: 1 },
]) {
  test(`what is sent again: ${name}`, async (t) => {
    const service = await serve(t, [failing(code, pushback)]);
    const client = connect(t, service.target, { waitForLimit });
    await assert.rejects(callTool(client, newRequest("tools.x.y.z", {})), { code });
    assert.equal(service.arrivals.length, attempts);
    assert.equal(ids(service).size, 1, "a retry has another request_id");
  });
}

test("a wait is as long as the server says", async (t) => {
  const service = await serve(t, [failing(RESOURCE_EXHAUSTED, "400"), failing(RESOURCE_EXHAUSTED, "1"), done()]);
  await callTool(connect(t, service.target, { waitForLimit: true }), newRequest("tools.x.y.z", {}));
  const [first, second, third] = service.arrivals.map(({ at }) => at);
  assert(first && second && third);
  // The backoff of the service config alone would be at most 0.12 s, and then 0.24 s. Timers may be early by 1 ms.
  assert(second - first >= 399, `waited ${second - first} ms`);
  assert(third - second < second - first, `waited ${third - second} ms`);
});

test("reads are sent again", async (t) => {
  const { target, arrivals } = await serve(t, [failing(UNAVAILABLE, "1"), failing(CANCELLED, "1"), done()]);
  assert((await call(connect(t, target), ToolService.method.status, {})).enabled);
  assert.equal(arrivals.length, 3);
});

test("reads are sent three times more at most", async (t) => {
  const { target, arrivals } = await serve(t, [failing(UNAVAILABLE, "1")]);
  await assert.rejects(call(connect(t, target), ToolService.method.status, {}), { code: UNAVAILABLE });
  assert.equal(arrivals.length, 4);
});

test("the largest request is sent again", async (t) => {
  const { target, arrivals } = await serve(t, [failing(RESOURCE_EXHAUSTED, "1"), done()]);
  const long = (1 << 20) - 200;
  const missing = (1 << 20) - size(newRequest("tools.x.y.z", { a: "x".repeat(long) }));
  const request = newRequest("tools.x.y.z", { a: "x".repeat(long + missing) });
  assert.equal(size(request), 1 << 20);
  await callTool(connect(t, target, { waitForLimit: true }), request);
  assert.equal(arrivals.length, 2);
});

test("a long answer is taken", async (t) => {
  const text = "x".repeat(5 << 20);
  const { target } = await serve(t, [done(text)]);
  assert.equal((await callTool(connect(t, target), newRequest("tools.x.y.z", {}))).result, text);
});

test("calls go to all addresses in turn", { timeout: 20_000 }, async (t) => {
  const services = [await serve(t, [done()]), await serve(t, [done()])];
  const client = connect(t, `ipv4:${services.map(({ target }) => target).join(",")}`);
  while (services.some(({ arrivals }) => arrivals.length === 0)) {
    await callTool(client, newRequest("tools.x.y.z", {}));
  }
});

test("a key is sent where nobody reads along", async (t) => {
  const folder = temporary(t);
  const { key, certificate } = ownCertificate(folder);
  const encrypted = ServerCredentials.createSsl(null, [{ private_key: key, cert_chain: certificate }]);
  for (const { service, options } of [
    { service: await serve(t, [done()]), options: {} },
    { service: await serve(t, [done()], `unix:${join(folder, "s")}`), options: {} },
    {
      service: await serve(t, [done()], "127.0.0.1:0", encrypted),
      options: { credentials: credentials.createSsl(certificate) },
    },
  ]) {
    const metadata = new Metadata();
    const target = service.target.replace("127.0.0.1", "localhost");
    const client = connect(t, target, { apiKey: "aai_k", ...options });
    await callTool(client, newRequest("tools.x.y.z", {}), { metadata });
    assert.deepEqual(service.arrivals[0]?.metadata.get("authorization"), ["ApiKey aai_k"], target);
    assert.deepEqual(metadata.getMap(), {}, "the key is in the caller's metadata");
  }
});

test("to another machine there is TLS", async (t) => {
  const received = await proxied(t);
  const client = connect(t, "agenta.example:443", { apiKey: "k" });
  await assert.rejects(callTool(client, newRequest("tools.x.y.z", {})), { code: UNAVAILABLE });
  // Before the proxy, which it would look for again.
  client.close();
  const [connect_, hello] = received;
  assert.match(String(connect_), /^CONNECT agenta.example:443 /);
  assert.equal(hello?.[0], TLS_HANDSHAKE);
});

for (const { name, target, options } of [
  {
    name: "plaintext to another machine",
    target: "agenta.example:443",
    options: { apiKey: "secret", credentials: credentials.createInsecure() },
  },
  { name: "newline", target: "127.0.0.1:1", options: { apiKey: "secret\n" } },
  { name: "umlaut", target: "127.0.0.1:1", options: { apiKey: "secretä" } },
] satisfies { name: string; target: string; options: DialOptions }[]) {
  test(`a key that is not sent: ${name}`, () => {
    assert.throws(
      () => dial(target, options),
      (error: Error) => error.message.includes("API key") && !error.message.includes("secret"),
    );
  });
}

for (const apiKey of ["", undefined]) {
  test(`no key is sent for ${inspect(apiKey)}`, async (t) => {
    const { target, arrivals } = await serve(t, [done()]);
    await callTool(connect(t, target, { apiKey }), newRequest("tools.x.y.z", {}));
    assert.deepEqual(arrivals[0]?.metadata.get("authorization"), []);
  });
}

test("a connection doesn't show its key", (t) => {
  const client = connect(t, "127.0.0.1:1", { apiKey: "secret" });
  assert(!inspect(client, { depth: Infinity, showHidden: true }).includes("secret"));
});

test("calls to this machine pass by the proxy", async (t) => {
  const { target } = await serve(t, [done()]);
  const received = await proxied(t);
  await callTool(connect(t, target, { apiKey: "k" }), newRequest("tools.x.y.z", {}));
  assert.equal(received.length, 0);
});

test("plaintext stays on this machine", () => {
  const local = [
    ...["127.0.0.1:50051", "127.8.8.8:1", "[::1]:50051", "localhost:50051", "localhost", "LOCALHOST:1"],
    ...["dns:///localhost:50051", "dns:localhost:50051", "ipv4:127.0.0.1:1,127.0.0.2:2", "ipv6:[::1]:1"],
    ...["unix:/run/agenta.sock", "unix:///run/agenta.sock", "unix:agenta.sock"],
  ];
  const elsewhere = [
    ...["10.0.0.1:50051", "agenta.example:443", "localhost.example:443", "[::]:50051", "0.0.0.0:50051", ""],
    ...["dns:///agenta.example", "127.0.0.1.example:1", "127.0.0.999:1", "dns://10.0.0.1/localhost:1", "x127.0.0.1"],
    ...["ipv4:127.0.0.1:1,10.0.0.1:1", "unix", "unix:", "127.0.0.1:1\n", "localhost:1@agenta.example:1"],
  ];
  assert.deepEqual(
    [...local, ...elsewhere].filter((target) => LOCAL.test(target)),
    local,
  );
});

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
  const subject = ["-subj", "/CN=test", "-addext", "subjectAltName=DNS:localhost", "-days", "1"];
  execFileSync("openssl", ["req", "-x509", ...made, ...subject], { stdio: "pipe" });
  return { key: readFileSync(key), certificate: readFileSync(certificate) };
}
