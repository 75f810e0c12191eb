import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { status } from "@grpc/grpc-js";
import { Code } from "../code.js";
import { CallError, ToolError } from "../errors.js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  QuotaFailureSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "../gen/google/rpc/error_details_pb.js";
import { CallToolResponseSchema, ErrorReason } from "../v1.js";
import { type Answer, connect, detail, inDoubt, serve } from "./service.js";

test("a refusal is decoded", async (t) => {
  const details = [
    detail(ErrorInfoSchema, { reason: "ERROR_REASON_RATE_LIMITED", domain: "agenta.ai" }),
    detail(RetryInfoSchema, { retryDelay: durationFromMs(1500) }),
    detail(BadRequestSchema, { fieldViolations: [{ field: "arguments.a", description: "Too long." }] }),
    detail(QuotaFailureSchema, { violations: [{ quotaId: "default", quotaValue: 10n }] }),
    detail(RequestInfoSchema, { requestId: "r" }),
  ];
  const refused = await refusal(t, { code: status.RESOURCE_EXHAUSTED, details });
  assert.equal(refused.code, Code.RESOURCE_EXHAUSTED);
  assert.equal(refused.reason, ErrorReason.RATE_LIMITED);
  assert.equal(refused.notRun, true);
  assert.equal(refused.text, "No.");
  assert.equal(refused.retryDelayMs, 1500);
  assert.deepEqual(refused.fieldViolations, [{ field: "arguments.a", description: "Too long." }]);
  assert.deepEqual(
    refused.quotaViolations.map(({ quotaId, quotaValue }) => [quotaId, quotaValue]),
    [["default", 10]],
  );
  assert.equal(refused.callId, "r");
  assert.equal(JSON.parse(JSON.stringify(refused)).retryDelayMs, 1500);
  assert.match(refused.requestId, /^[0-9a-f-]{36}$/);
  assert.equal(refused.message, "RATE_LIMITED: No; arguments.a: Too long; try again in 2 s");
  assert.equal(refused.cause, undefined);
});

const OTHERS = detail(ErrorInfoSchema, { reason: "ERROR_REASON_RATE_LIMITED", domain: "proxy" });
const OURS = detail(ErrorInfoSchema, { reason: "ERROR_REASON_RATE_LIMITED", domain: "agenta.ai" });
const LATER = detail(ErrorInfoSchema, { reason: "ERROR_REASON_OF_2030", domain: "agenta.ai" });
const UNKNOWN = { ...OURS, typeUrl: "type.googleapis.com/agenta.Unknown" };
const BROKEN = { ...OURS, value: Uint8Array.of(0xff) };
const UNREADABLE = { "grpc-status-details-bin": Buffer.from([0xff]) };

for (const { name, answer, notRun, reason } of [
  { name: "no details", answer: {}, notRun: false, reason: "UNSPECIFIED" },
  { name: "another domain", answer: { details: [OTHERS] }, notRun: false, reason: "UNSPECIFIED" },
  { name: "a reason of a later version", answer: { details: [LATER] }, notRun: true, reason: "UNSPECIFIED" },
  { name: "a detail of another type", answer: { details: [UNKNOWN] }, notRun: false, reason: "UNSPECIFIED" },
  {
    name: "one that is unknown before ours",
    answer: { details: [UNKNOWN, OURS] },
    notRun: true,
    reason: "RATE_LIMITED",
  },
  { name: "one that is broken before ours", answer: { details: [BROKEN, OURS] }, notRun: true, reason: "RATE_LIMITED" },
  { name: "unreadable details", answer: { trailer: UNREADABLE }, notRun: false, reason: "UNSPECIFIED" },
]) {
  test(`whether a tool was run: ${name}`, async (t) => {
    const refused = await refusal(t, { code: status.INTERNAL, ...answer });
    assert.equal(refused.notRun, notRun);
    assert.equal(ErrorReason[refused.reason], reason);
    const said = `${reason === "UNSPECIFIED" ? "INTERNAL" : reason}: No.`;
    const open = ` ${inDoubt(refused.requestId)}`;
    const remark = notRun ? (reason === "UNSPECIFIED" ? " The tool was not run." : "") : open;
    assert.equal(refused.message, said + remark);
  });
}

test("a tool that failed", async (t) => {
  const failed = await failure(t, {
    isError: true,
    content: [{}, { kind: { case: "text", value: "Down." } }, { kind: { case: "text", value: "Sorry." } }],
    error: {
      reason: ErrorReason.UPSTREAM_UNAVAILABLE,
      retryable: true,
      retryDelay: durationFromMs(2000),
      fieldViolations: [
        { field: "f", description: "d" },
        { field: "Sorry", description: "Said above." },
      ],
    },
    meta: { traceId: "t", attempts: [{ duration: durationFromMs(2500) }] },
  });
  assert.equal(failed.reason, ErrorReason.UPSTREAM_UNAVAILABLE);
  assert.equal(failed.text, "Down.\nSorry.");
  assert.equal(failed.retryable, true);
  assert.equal(failed.retryDelayMs, 2000);
  assert.deepEqual(failed.fieldViolations, [
    { field: "f", description: "d" },
    { field: "Sorry", description: "Said above." },
  ]);
  assert.equal(failed.meta?.traceId, "t");
  const { meta, ...rest } = JSON.parse(JSON.stringify(failed));
  assert.deepEqual(
    [meta, rest.name, rest.text],
    [{ traceId: "t", attempts: [{ duration: "2.500s" }] }, "ToolError", failed.text],
  );
  assert.match(failed.requestId, /^[0-9a-f-]{36}$/);
  assert.equal(failed.message, "UPSTREAM_UNAVAILABLE: Down.\nSorry; f: d; try again in 2 s");
});

for (const { name, error } of [
  { name: "a reason of a later version", error: { reason: 999 as ErrorReason } },
  { name: "no reason", error: undefined },
]) {
  test(`a tool that failed with ${name}`, async (t) => {
    const failed = await failure(t, { isError: true, ...(error && { error }) });
    assert.equal(failed.retryable, false);
    assert.equal(failed.retryDelayMs, undefined);
    assert.equal(failed.message, "the tool failed: ");
  });
}

async function outcome(t: TestContext, answer: Answer): Promise<unknown> {
  const { target } = await serve(t, [answer]);
  return connect(t, target)
    .callTool("tools.x.y.z")
    .catch((error) => error);
}

async function refusal(t: TestContext, answer: Answer): Promise<CallError> {
  const error = await outcome(t, answer);
  assert(error instanceof CallError);
  return error;
}

async function failure(t: TestContext, response: MessageInitShape<typeof CallToolResponseSchema>): Promise<ToolError> {
  const error = await outcome(t, { response: create(CallToolResponseSchema, response) });
  assert(error instanceof ToolError);
  return error;
}
