/** The messages and the service of the contract, agenta.ai.v1. */
export * from "./gen/agenta/ai/v1/content_pb.js";
export * from "./gen/agenta/ai/v1/error_pb.js";
export * from "./gen/agenta/ai/v1/tool_pb.js";
export * from "./gen/agenta/ai/v1/tool_service_pb.js";
