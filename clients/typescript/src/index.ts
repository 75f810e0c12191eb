/**
 * Calls Agenta AI services: the connection that they want, calls of tools with their results in native types, and errors
 * that say whether a tool was run. The messages of the contract are in "agenta-ai/v1".
 */
export { credentials, Metadata, status } from "@grpc/grpc-js";
export { type CallOptions, call, callTool, newRequest } from "./call.js";
export { type DialOptions, dial } from "./dial.js";
export { CallError, type FieldViolation, ToolError } from "./errors.js";
