/** The typed method of tools.agenta.api.refine_prompt: ApiToolsService.method.refinePrompt. */
export * from "./gen/agenta/ai/tools/agenta/api/v1/api_tools_service_pb.js";
