package ai.agenta.ai;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.io.IOException;
import java.nio.file.Files;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;

final class ServiceConfigTest {
    @Test
    void isTheOneOfAllClients() throws IOException {
        try (var own = ServiceConfig.class.getResourceAsStream("service_config.json")) {
            assertEquals(
                    Files.readString(Shared.file("client/agenta_ai/service_config.json")),
                    new String(own.readAllBytes()));
        }
    }

    @Test
    void repeatsTheStatusesThatItNames() {
        Set<String> expected = ServiceConfig.REPEATED.stream().map(Enum::name).collect(Collectors.toSet());
        var methods = (List<?>) ServiceConfig.read().get("methodConfig");
        for (var method : methods) {
            if (((Map<?, ?>) method).get("retryPolicy") instanceof Map<?, ?> policy) {
                assertEquals(expected, Set.copyOf((List<?>) policy.get("retryableStatusCodes")));
            } else {
                var stream = Map.of("service", "agenta.ai.v1.ToolService", "method", "CallToolStream");
                assertEquals(Map.of("name", List.of(stream)), method, "ToolCall repeats it");
            }
        }
    }
}
