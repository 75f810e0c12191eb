import { type DescMessage, fromBinary, type MessageShape } from "@bufbuild/protobuf";
import { type Any, anyUnpack, type Duration, durationMs } from "@bufbuild/protobuf/wkt";
import { type ServiceError, status } from "@grpc/grpc-js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  type QuotaFailure_Violation,
  QuotaFailureSchema,
  RequestInfoSchema,
  RetryInfoSchema,
} from "./gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "./gen/google/rpc/status_pb.js";
import { type CallMeta, type CallToolResponse, ErrorReason, ErrorReasonSchema } from "./v1.js";

const DOMAIN = "agenta.ai";

/** One rule that one field broke: its path, such as "arguments.guidelines", and a sentence. */
export interface FieldViolation {
  readonly field: string;
  readonly description: string;
}

/** A call that ended with a status other than OK. Its message is one sentence for people. */
export class CallError extends Error {
  override readonly name = "CallError";
  /** What grpc-js said, with the metadata as it came. */
  declare readonly cause: ServiceError;
  /** The status. */
  readonly code: status;
  /** Why the service refused the call. UNSPECIFIED if that isn't known, or this version doesn't know it. */
  readonly reason: ErrorReason;
  /** Whether the service says that the tool was not run. If false, it may have run, and been paid for. */
  readonly notRun: boolean;
  /** The status's text. */
  readonly text: string;
  /** Milliseconds after which a new attempt makes sense. Undefined if unknown. */
  readonly retryDelayMs: number | undefined;
  /** The fields of the request that are at fault, if that is why. */
  readonly fieldViolations: readonly FieldViolation[];
  /** The limits that were used up, if that is why. */
  readonly quotaViolations: readonly QuotaFailure_Violation[];
  /** What the server calls the call in its logs. Empty if it didn't say. */
  readonly requestId: string;

  constructor(cause: ServiceError) {
    const details = statusDetails(cause);
    const info = find(details, ErrorInfoSchema);
    const notRun = info?.domain === DOMAIN;
    const reason = notRun ? reasonOf(info.reason) : ErrorReason.UNSPECIFIED;
    const retryDelayMs = milliseconds(find(details, RetryInfoSchema)?.retryDelay);
    const fieldViolations = find(details, BadRequestSchema)?.fieldViolations ?? [];
    super(sentence(reason, status[cause.code], cause.details, fieldViolations, retryDelayMs), { cause });
    this.code = cause.code;
    this.reason = reason;
    this.notRun = notRun;
    this.text = cause.details;
    this.retryDelayMs = retryDelayMs;
    this.fieldViolations = fieldViolations;
    this.quotaViolations = find(details, QuotaFailureSchema)?.violations ?? [];
    this.requestId = find(details, RequestInfoSchema)?.requestId ?? "";
  }
}

/** A tool that ran and failed. Its message is one sentence for people. */
export class ToolError extends Error {
  override readonly name = "ToolError";
  /** The class of failure, one of those numbered from 100. */
  readonly reason: ErrorReason;
  /** What the tool said. */
  readonly text: string;
  /** Whether the same request may succeed later. Nothing was bought by this one then. */
  readonly retryable: boolean;
  /** Milliseconds to wait before that. Undefined if unknown. */
  readonly retryDelayMs: number | undefined;
  /** The rules that the tool's answer broke, if that is why. */
  readonly fieldViolations: readonly FieldViolation[];
  /** How the answer came about. */
  readonly meta: CallMeta | undefined;

  constructor({ error, content, meta }: CallToolResponse) {
    const reason = error?.reason ?? ErrorReason.UNSPECIFIED;
    const text = content.flatMap(({ kind }) => (kind.case === "text" ? [kind.value] : [])).join("\n");
    const retryDelayMs = milliseconds(error?.retryDelay);
    const fieldViolations = error?.fieldViolations ?? [];
    super(sentence(reason, "the tool failed", text, fieldViolations, retryDelayMs));
    this.reason = reason;
    this.text = text;
    this.retryable = error?.retryable ?? false;
    this.retryDelayMs = retryDelayMs;
    this.fieldViolations = fieldViolations;
    this.meta = meta;
  }
}

/** The google.rpc details of an error. A proxy may cut or rewrite them: unreadable ones are as good as none. */
export function statusDetails(error: ServiceError): Any[] {
  const [packed] = error.metadata.get("grpc-status-details-bin");
  return (packed instanceof Buffer && attempt(() => fromBinary(StatusSchema, packed).details)) || [];
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

function milliseconds(duration: Duration | undefined): number | undefined {
  return duration && durationMs(duration);
}

/** The message, and what it leaves out of the details. */
function sentence(
  reason: ErrorReason,
  otherwise: string | undefined,
  message: string,
  broken: readonly FieldViolation[],
  retryDelayMs: number | undefined,
): string {
  const cause = reason === ErrorReason.UNSPECIFIED ? otherwise : (ErrorReason[reason] ?? otherwise);
  const unnamed = broken.filter(({ field }) => !message.includes(field));
  const details = unnamed.map(({ field, description }) => `; ${field}: ${description}`);
  const wait = retryDelayMs ? `; try again in ${retryDelayMs / 1000} s` : "";
  return `${cause}: ${message}${details.join("")}${wait}`;
}
