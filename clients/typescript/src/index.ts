/**
 * Calls Agenta AI services: the connection, calls of tools with native types, and errors that say whether a tool was run.
 * The messages of the contract are in "agenta-ai/v1".
 *
 * @packageDocumentation
 */
export { Client, MAX_REQUEST_BYTES, type ToolResult } from "./client.js";
export { Code } from "./code.js";
export {
  CallError,
  type CallErrorInit,
  type FieldViolation,
  type Outcome,
  type QuotaViolation,
  ToolError,
  type ToolFailure,
} from "./errors.js";
export type {
  CallOptions,
  CallToolOptions,
  ClientOptions,
  Credentials,
  Metadata,
  MetadataInit,
  MetadataValue,
  TlsOptions,
} from "./options.js";
export type { Progress, ToolEvent } from "./progress.js";
export {
  type CallMeta,
  type CallToolResponse,
  ErrorReason,
  ProgressStage,
  type StatusResponse,
  type Tool,
} from "./v1.js";
export { VERSION } from "./version.js";
