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
            var policy = (Map<?, ?>) ((Map<?, ?>) method).get("retryPolicy");
            assertEquals(expected, Set.copyOf((List<?>) policy.get("retryableStatusCodes")));
        }
    }
}
