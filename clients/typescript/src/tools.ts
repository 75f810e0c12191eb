import type { DescMessage, DescMethodUnary } from "@bufbuild/protobuf";
import { ToolService } from "./v1.js";

/** What the packages of the methods begin with that tools have of their own. */
const TYPED = "agenta.ai.tools.";

/** What the requests of all tools have. */
export interface ToolRequest {
  requestId: string;
}

/** Whether a tool has this method of its own. */
export function isTyped(method: DescMethodUnary<DescMessage, DescMessage>): boolean {
  return method.parent.typeName.startsWith(TYPED);
}

/** Whether it is the method that calls any tool by its name. A tool may have a method of that name, too. */
export function isCallTool(method: DescMethodUnary<DescMessage, DescMessage>): boolean {
  return method.parent.typeName === ToolService.typeName && method.name === ToolService.method.callTool.name;
}

/** Whether the method calls a tool. */
export function callsTool(method: DescMethodUnary<DescMessage, DescMessage>): boolean {
  return isTyped(method) || isCallTool(method);
}
