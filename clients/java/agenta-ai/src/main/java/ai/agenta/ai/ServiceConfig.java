package ai.agenta.ai;

import com.google.gson.Gson;
import com.google.gson.reflect.TypeToken;
import io.grpc.Status;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.Reader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** How a channel balances, asks for health and retries: service_config.json, which the clients of all languages share. */
final class ServiceConfig {
    /**
     * The statuses after which a call is sent again: the server is unavailable, or the connection breaks, or the server stops
     * before it has begun, which comes as CANCELLED. A call of a tool keeps its request_id then, so that the server runs it
     * once.
     */
    static final Set<Status.Code> REPEATED = EnumSet.of(Status.Code.UNAVAILABLE, Status.Code.CANCELLED);

    private ServiceConfig() {}

    /**
     * The form in which grpc-java takes it, with the retries of CallTool for all methods that it doesn't name: a client gives
     * each call of a tool a request_id.
     */
    @SuppressWarnings("unchecked")
    static Map<String, ?> read() {
        Map<String, ?> config = parsed();
        for (var each : (List<Map<String, Object>>) config.get("methodConfig")) {
            var names = (List<Map<String, Object>>) each.get("name");
            if (names.stream().anyMatch(name -> "CallTool".equals(name.get("method")))) {
                names.add(Map.of());
            }
        }
        return config;
    }

    private static Map<String, ?> parsed() {
        try (InputStream file = ServiceConfig.class.getResourceAsStream("service_config.json");
                Reader text = new InputStreamReader(file, StandardCharsets.UTF_8)) {
            return new Gson().fromJson(text, new TypeToken<Map<String, ?>>() {});
        } catch (IOException failure) {
            throw new UncheckedIOException(failure);
        }
    }
}
