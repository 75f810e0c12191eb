/** Methods that tools have of their own: what the client adds to a call. */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { type handleUnaryCall, Server, ServerCredentials, status } from "@grpc/grpc-js";
import { CallError, ToolError } from "../errors.js";
import {
  ApiToolsService,
  type RefinePromptRequest,
  RefinePromptRequestSchema,
  type RefinePromptResponse,
  RefinePromptResponseSchema,
} from "../refine_prompt.js";
import { isCallTool } from "../tools.js";
import { ErrorReason, ToolService } from "../v1.js";
import { connect } from "./service.js";

const METHOD = ApiToolsService.method.refinePrompt;

/** Fails with UNAVAILABLE so many times, and then gives the answer; returns the address and what arrives. */
async function serve(t: TestContext, answer: MessageInitShape<typeof RefinePromptResponseSchema>, lost = 0) {
  const arrivals: { request: RefinePromptRequest; left: number }[] = [];
  const server = new Server();
  const definition = {
    refinePrompt: {
      path: `/${METHOD.parent.typeName}/${METHOD.name}`,
      requestStream: false,
      responseStream: false,
      requestSerialize: (message: RefinePromptRequest) => Buffer.from(toBinary(RefinePromptRequestSchema, message)),
      requestDeserialize: (bytes: Buffer) => fromBinary(RefinePromptRequestSchema, bytes),
      responseSerialize: (message: RefinePromptResponse) => Buffer.from(toBinary(RefinePromptResponseSchema, message)),
      responseDeserialize: (bytes: Buffer) => fromBinary(RefinePromptResponseSchema, bytes),
    },
  } as const;
  const refinePrompt: handleUnaryCall<RefinePromptRequest, RefinePromptResponse> = (call, callback) => {
    arrivals.push({ request: call.request, left: Number(call.getDeadline()) - Date.now() });
    if (arrivals.length <= lost) {
      callback({ code: status.UNAVAILABLE, details: "Lost." });
    } else {
      callback(null, create(RefinePromptResponseSchema, answer));
    }
  };
  server.addService(definition, { refinePrompt });
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  t.after(() => server.forceShutdown());
  return { target: `127.0.0.1:${port}`, arrivals };
}

const done = { outcome: { case: "result", value: { summary: "Shorter." } } } as const;

test("a call has a request_id and a deadline, and the caller's message stays as it is", async (t) => {
  const { target, arrivals } = await serve(t, done);
  const client = connect(t, target);
  const request = create(RefinePromptRequestSchema, { arguments: { guidelines: "Be brief." } });
  for (const _ of ["first", "second"]) {
    const { outcome } = await client.call(METHOD, request);
    assert.equal(outcome.case === "result" && outcome.value.summary, "Shorter.");
  }
  const [first, second] = arrivals;
  assert.ok(first?.request.requestId && first.request.requestId !== second?.request.requestId);
  assert.equal(request.requestId, "");
  assert.ok(first.left > 60_000);
  await client.call(METHOD, { requestId: first.request.requestId });
  assert.equal(arrivals[2]?.request.requestId, first.request.requestId);
});

test("it is sent again with the same request_id", async (t) => {
  const { target, arrivals } = await serve(t, done, 2);
  await connect(t, target).call(METHOD, {});
  assert.equal(new Set(arrivals.map(({ request }) => request.requestId)).size, 1);
  assert.equal(arrivals.length, 3);
});

test("errors are those of the client", async (t) => {
  const { target, arrivals } = await serve(
    t,
    {
      outcome: { case: "error", value: { reason: ErrorReason.UPSTREAM_TIMEOUT } },
      content: [{ kind: { case: "text", value: "Too slow." } }],
    },
    1,
  );
  await assert.rejects(connect(t, target, { retries: false }).call(METHOD, {}), (error: unknown) => {
    assert.ok(error instanceof CallError && !error.notRun);
    assert.equal(error.requestId, arrivals[0]?.request.requestId);
    return true;
  });
  await assert.rejects(connect(t, target).call(METHOD, {}), (error: unknown) => {
    assert.ok(error instanceof ToolError);
    assert.deepEqual([error.reason, error.text], [ErrorReason.UPSTREAM_TIMEOUT, "Too slow."]);
    assert.equal(error.requestId, arrivals[1]?.request.requestId);
    return true;
  });
});

test("only our own CallTool calls any tool", () => {
  const { callTool } = ToolService.method;
  assert.equal(isCallTool(callTool), true);
  assert.equal(isCallTool({ ...callTool, parent: METHOD.parent } as typeof callTool), false);
});
