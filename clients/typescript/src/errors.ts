import { type DescMessage, fromBinary, type MessageShape, toJson } from "@bufbuild/protobuf";
import { type Any, anyUnpack, type Duration, durationMs } from "@bufbuild/protobuf/wkt";
import { Code } from "./code.js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  QuotaFailureSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "./gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "./gen/google/rpc/status_pb.js";
import type { Metadata } from "./options.js";
import { sentence } from "./sentence.js";
import { type CallMeta, CallMetaSchema, type CallToolResponse, ErrorReason, ErrorReasonSchema } from "./v1.js";

const DOMAIN = "agenta.ai";

/** One rule that one field broke: its path, such as "arguments.guidelines", and a sentence. */
export interface FieldViolation {
  readonly field: string;
  readonly description: string;
}

/** One limit that was used up. */
export interface QuotaViolation {
  /** Whose limit it is. */
  readonly subject: string;
  /** A sentence. */
  readonly description: string;
  /** Name of the limit. */
  readonly quotaId: string;
  /** The limit. */
  readonly quotaValue: number;
}

/**
 * What became of a call that failed: nothing was sent; all that was sent was refused, so no tool was run; or it may have run
 * and may have been billed.
 */
export type Outcome = "unsent" | "refused" | "open";

/** What a {@link CallError} is made of. */
export interface CallErrorInit {
  /** The status. */
  code: Code;
  /** The status's text. */
  text: string;
  /** The metadata that came with it. */
  trailer?: Metadata;
  /** Whether a tool was called. */
  isTool: boolean;
  /** The request_id of the call. Empty if there was none. */
  requestId: string;
  /** What became of it. */
  outcome: Outcome;
  /** Why the call was refused, if it isn't in the trailer. */
  reason?: ErrorReason;
  /** What caused it: the reason of an AbortSignal, or the error of a token source. */
  cause?: unknown;
}

/** A call that ended with a status other than OK. Its message is one sentence for people. */
export class CallError extends Error {
  override readonly name = "CallError";
  /** The status. */
  readonly code: Code;
  /**
   * Why the service refused the call. UNSPECIFIED if the status isn't from the service, or the reason is unknown to this
   * version.
   */
  readonly reason: ErrorReason;
  /**
   * Whether the tool was certainly not run: the service refused the call, or nothing was sent. If false, the call may have
   * run and may have been billed.
   */
  readonly notRun: boolean;
  /** The status's own text. */
  readonly text: string;
  /** Milliseconds after which a new attempt makes sense. Undefined if unknown. */
  readonly retryDelayMs: number | undefined;
  /** The fields of the request that are at fault, if that is why. */
  readonly fieldViolations: readonly FieldViolation[];
  /** The limits that were used up, if that is why. */
  readonly quotaViolations: readonly QuotaViolation[];
  /**
   * The request_id that a call of a tool was sent with. Send the call again with it to get the result of one that may have
   * run. Empty if no tool was called.
   */
  readonly requestId: string;
  /** The id of this call in the server's log. Empty if the server didn't say. */
  readonly callId: string;
  /** The google.rpc details of the status, as they came. */
  readonly details: readonly Any[];
  /** The metadata that came with the status. */
  readonly trailer: Metadata;

  constructor({ code, text, trailer = {}, isTool, requestId, outcome, reason, cause }: CallErrorInit) {
    const details = statusDetails(trailer);
    const info = find(details, ErrorInfoSchema);
    const why = info?.domain === DOMAIN ? reasonOf(info.reason) : (reason ?? ErrorReason.UNSPECIFIED);
    const retryDelayMs = milliseconds(find(details, RetryInfoSchema)?.retryDelay);
    const fieldViolations = plain(find(details, BadRequestSchema)?.fieldViolations);
    const said = `${nameOf(why, Code[code])}: ${sentence(text, fieldViolations, retryDelayMs)}`;
    const remark = remarkOn(outcome, isTool, why, requestId);
    super(
      remark ? `${said}${/[.?]$/.test(said) ? "" : "."} ${remark}` : said,
      cause === undefined ? undefined : { cause },
    );
    this.code = code;
    this.reason = why;
    this.notRun = outcome !== "open";
    this.text = text;
    this.retryDelayMs = retryDelayMs;
    this.fieldViolations = fieldViolations;
    this.quotaViolations = (find(details, QuotaFailureSchema)?.violations ?? []).map(
      ({ subject, description, quotaId, quotaValue }) => ({
        subject,
        description,
        quotaId,
        quotaValue: Number(quotaValue),
      }),
    );
    this.requestId = requestId;
    this.callId = find(details, RequestInfoSchema)?.requestId ?? "";
    this.details = details;
    this.trailer = trailer;
  }
}

/** What a {@link ToolError} is made of. */
export type ToolFailure = Pick<CallToolResponse, "error" | "content" | "meta">;

/** A tool that ran and failed. Its message is one sentence for people. */
export class ToolError extends Error {
  override readonly name = "ToolError";
  /** The class of failure, one of those numbered from 100. */
  readonly reason: ErrorReason;
  /** What the tool said. */
  readonly text: string;
  /** Whether the same call may succeed later, with the same request_id. In that case this one was not billed. */
  readonly retryable: boolean;
  /** Milliseconds to wait before that. Undefined if unknown. */
  readonly retryDelayMs: number | undefined;
  /** The rules that the tool's answer broke, if that is why. */
  readonly fieldViolations: readonly FieldViolation[];
  /** The request_id that the call was sent with. */
  readonly requestId: string;
  /** How the answer came about. */
  readonly meta: CallMeta | undefined;

  constructor({ error, content, meta }: ToolFailure, requestId: string) {
    const reason = error?.reason ?? ErrorReason.UNSPECIFIED;
    const text = content.flatMap(({ kind }) => (kind.case === "text" ? [kind.value] : [])).join("\n");
    const retryDelayMs = milliseconds(error?.retryDelay);
    const fieldViolations = plain(error?.fieldViolations);
    super(`${nameOf(reason, "the tool failed")}: ${sentence(text, fieldViolations, retryDelayMs)}`);
    this.reason = reason;
    this.text = text;
    this.retryable = error?.retryable ?? false;
    this.retryDelayMs = retryDelayMs;
    this.fieldViolations = fieldViolations;
    this.requestId = requestId;
    this.meta = meta;
  }

  /** What JSON.stringify writes: messages hold big integers, of which it can make nothing. */
  toJSON(): object {
    const { meta, ...own } = this;
    return { ...own, ...(meta && { meta: toJson(CallMetaSchema, meta) }) };
  }
}

/** Whether a status says that no tool was run: the service refused the call, or the server has no such method. */
export function isRefusal(code: Code, trailer: Metadata): boolean {
  return code === Code.UNIMPLEMENTED || find(statusDetails(trailer), ErrorInfoSchema)?.domain === DOMAIN;
}

/** The google.rpc details of an error. A proxy may cut or rewrite them: unreadable ones are as good as none. */
function statusDetails(trailer: Metadata): Any[] {
  const [packed] = trailer["grpc-status-details-bin"] ?? [];
  return (packed instanceof Uint8Array && attempt(() => fromBinary(StatusSchema, packed).details)) || [];
}

function find<Desc extends DescMessage>(details: Any[], schema: Desc): MessageShape<Desc> | undefined {
  for (const detail of details) {
    const found = attempt(() => anyUnpack(detail, schema));
    if (found) {
      return found;
    }
  }
  return undefined;
}

function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}

function reasonOf(name: string): ErrorReason {
  return ErrorReasonSchema.values.find((value) => value.name === name)?.number ?? ErrorReason.UNSPECIFIED;
}

/** As plain objects, without what a message has besides. */
function plain(violations: readonly FieldViolation[] = []): FieldViolation[] {
  return violations.map(({ field, description }) => ({ field, description }));
}

function milliseconds(duration: Duration | undefined): number | undefined {
  return duration && durationMs(duration);
}

function nameOf(reason: ErrorReason, otherwise: string | undefined): string | undefined {
  return reason === ErrorReason.UNSPECIFIED ? otherwise : (ErrorReason[reason] ?? otherwise);
}

/** What became of the call, if its status doesn't say so. */
function remarkOn(outcome: Outcome, isTool: boolean, reason: ErrorReason, requestId: string): string {
  if (outcome === "unsent") {
    return isTool ? "Nothing was sent, so the tool was not run." : "Nothing was sent.";
  }
  if (!isTool || (outcome === "refused" && reason !== ErrorReason.UNSPECIFIED)) {
    return "";
  }
  if (outcome === "refused") {
    return "The tool was not run.";
  }
  const open = "The call may have run and may have been billed.";
  return requestId ? `${open} To get its result, send it again with request_id ${requestId}.` : open;
}
