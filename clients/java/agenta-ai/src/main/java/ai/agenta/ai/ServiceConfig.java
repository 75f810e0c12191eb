package ai.agenta.ai;

import ai.agenta.ai.v1.ToolServiceGrpc;
import com.google.gson.Gson;
import com.google.gson.reflect.TypeToken;
import io.grpc.Status;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.Reader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;

/** How a channel balances, asks for health and retries: service_config.json, which the clients of all languages share. */
final class ServiceConfig {
    /**
     * The statuses after which a call is sent again: the server is unavailable, or the connection breaks, or the server stops
     * before it has begun, which comes as CANCELLED. A call of a tool keeps its request_id then, so that the server runs it
     * once.
     */
    static final Set<Status.Code> REPEATED = EnumSet.of(Status.Code.UNAVAILABLE, Status.Code.CANCELLED);

    private static final String STREAM =
            ToolServiceGrpc.getCallToolStreamMethod().getBareMethodName();

    private ServiceConfig() {}

    /**
     * The form in which grpc-java takes it, with the retries of CallTool for all methods that it doesn't name: a client gives
     * each call of a tool a request_id. Calls that report progress have none: grpc-java doesn't repeat a stream that has begun.
     * {@link ToolCall} repeats them.
     */
    @SuppressWarnings("unchecked")
    static Map<String, ?> read() {
        Map<String, ?> config = read(new TypeToken<Map<String, ?>>() {});
        var methods = (List<Map<String, ?>>) config.get("methodConfig");
        for (var method : methods) {
            var names = (List<Map<String, Object>>) method.get("name");
            names.removeIf(name -> STREAM.equals(name.get("method")));
            if (names.stream().anyMatch(name -> "CallTool".equals(name.get("method")))) {
                names.add(Map.of());
            }
        }
        methods.add(Map.of("name", List.of(Map.of("service", ToolServiceGrpc.SERVICE_NAME, "method", STREAM))));
        return config;
    }

    /** How calls that report progress are repeated. */
    static RetryPolicy streams() {
        return read(new TypeToken<Config>() {}).methodConfig().stream()
                .filter(method -> method.name().stream().anyMatch(name -> STREAM.equals(name.method())))
                .map(MethodConfig::retryPolicy)
                .findAny()
                .orElse(RetryPolicy.NEVER);
    }

    private static <T> T read(TypeToken<T> type) {
        try (InputStream file = ServiceConfig.class.getResourceAsStream("service_config.json");
                Reader text = new InputStreamReader(file, StandardCharsets.UTF_8)) {
            return new Gson().fromJson(text, type);
        } catch (IOException failure) {
            throw new UncheckedIOException(failure);
        }
    }

    private record Config(List<MethodConfig> methodConfig) {}

    private record MethodConfig(List<MethodName> name, RetryPolicy retryPolicy) {}

    private record MethodName(String method) {}

    /** How often a call is sent, and how long after one another. */
    record RetryPolicy(int maxAttempts, String initialBackoff, String maxBackoff, double backoffMultiplier) {
        static final RetryPolicy NEVER = new RetryPolicy(1, "0s", "0s", 1);

        /** The time before the repeat that follows so many others. */
        Duration backoff(int repeats) {
            double most = duration(maxBackoff).toNanos();
            double next = duration(initialBackoff).toNanos() * Math.pow(backoffMultiplier, repeats);
            return Duration.ofNanos(
                    (long) (Math.min(next, most) * ThreadLocalRandom.current().nextDouble(0.8, 1.2)));
        }

        private static Duration duration(String seconds) {
            return Duration.parse("PT" + seconds);
        }
    }
}
