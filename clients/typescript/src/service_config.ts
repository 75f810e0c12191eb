import { ToolService } from "./v1.js";

// What a caller sees when the connection breaks, and when a server stops before it has started the call.
const LOST = ["UNAVAILABLE", "CANCELLED"];

/**
 * How a client balances and retries: the same in the clients of all languages, although grpc-js doesn't check the health of
 * a server. A retry keeps its request_id, so the server runs the tool once.
 */
export const SERVICE_CONFIG = {
  loadBalancingConfig: [{ round_robin: {} }],
  healthCheckConfig: { serviceName: ToolService.typeName },
  methodConfig: [
    retried([ToolService.method.status.name, ToolService.method.listTools.name], 4),
    retried([ToolService.method.callTool.name, ToolService.method.callToolStream.name], 5),
  ],
};

function retried(methods: string[], maxAttempts: number) {
  return {
    name: methods.map((method) => ({ service: ToolService.typeName, method })),
    retryPolicy: {
      maxAttempts,
      // If the server sends grpc-retry-pushback-ms, that counts instead.
      initialBackoff: "0.1s",
      maxBackoff: "2s",
      backoffMultiplier: 2,
      retryableStatusCodes: LOST,
    },
  };
}
