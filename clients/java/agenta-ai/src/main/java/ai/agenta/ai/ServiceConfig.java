package ai.agenta.ai;

import com.google.gson.Gson;
import com.google.gson.reflect.TypeToken;
import io.grpc.Status;
import java.util.EnumSet;
import java.util.Map;
import java.util.Set;

/** How a channel balances, asks for health and retries. */
final class ServiceConfig {
    // Where the server sends grpc-retry-pushback-ms, that counts instead of the backoff. More than five attempts are
    // not made
    // by gRPC.
    private static final String CONFIG = """
            {
              "loadBalancingConfig": [{"round_robin": {}}],
              "healthCheckConfig": {"serviceName": "agenta.ai.v1.ToolService"},
              "methodConfig": [
                {
                  "name": [
                    {"service": "agenta.ai.v1.ToolService", "method": "Status"},
                    {"service": "agenta.ai.v1.ToolService", "method": "ListTools"}
                  ],
                  "retryPolicy": {
                    "maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
                    "retryableStatusCodes": %s
                  }
                },
                {
                  "name": [{"service": "agenta.ai.v1.ToolService", "method": "CallTool"}],
                  "retryPolicy": {
                    "maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2,
                    "retryableStatusCodes": %s
                  }
                }
              ]
            }
            """;

    private ServiceConfig() {}

    /** The form in which grpc-java takes it. */
    static Map<String, ?> make(boolean waitForLimit) {
        Gson gson = new Gson();
        String config = CONFIG.formatted(gson.toJson(repeated(false)), gson.toJson(repeated(waitForLimit)));
        return gson.fromJson(config, new TypeToken<Map<String, ?>>() {});
    }

    /**
     * The statuses after which a call is sent again: if the server is unavailable, or the connection breaks, or the server
     * stops before it has begun, which comes as CANCELLED. A call of a tool keeps its request_id then, so that the server
     * runs it once.
     */
    static Set<Status.Code> repeated(boolean waitForLimit) {
        Set<Status.Code> codes = EnumSet.of(Status.Code.UNAVAILABLE, Status.Code.CANCELLED);
        if (waitForLimit) {
            codes.add(Status.Code.RESOURCE_EXHAUSTED);
        }
        return codes;
    }
}
