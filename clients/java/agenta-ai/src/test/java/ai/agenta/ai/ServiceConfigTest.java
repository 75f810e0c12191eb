package ai.agenta.ai;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import ai.agenta.ai.FakeService.Answer;
import com.google.common.net.HostAndPort;
import io.grpc.EquivalentAddressGroup;
import io.grpc.InsecureChannelCredentials;
import io.grpc.NameResolver;
import io.grpc.NameResolverProvider;
import io.grpc.NameResolverRegistry;
import io.grpc.Status;
import io.grpc.StatusOr;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.nio.file.Files;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;

final class ServiceConfigTest {
    @Test
    void isNotReplacedInSilence() {
        var builder = Client.to("127.0.0.1:1").configure(more -> more.defaultServiceConfig(Map.of()));
        var error = assertThrows(IllegalArgumentException.class, builder::build);
        assertTrue(error.getMessage().contains("disableRetries()"), error.getMessage());
    }

    /** A service config as it may come from the DNS, with a name. */
    @Test
    void isNotReplacedByWhatANameResolvesTo() throws IOException {
        var provider = new Resolver();
        NameResolverRegistry.getDefaultRegistry().register(provider);
        try (FakeService service = new FakeService(Answer.refused(Status.Code.UNAVAILABLE, "1"), Answer.done());
                Client client = Client.to("configured:///" + service.target())
                        .transport(InsecureChannelCredentials.create())
                        .build()) {
            client.callTool(Client.request("t", Map.of()));
            assertEquals(2, service.arrivals.size(), "it is retried");
        } finally {
            NameResolverRegistry.getDefaultRegistry().deregister(provider);
        }
    }

    /** Resolves "configured:///host:port", and tells to retry nothing. */
    private static final class Resolver extends NameResolverProvider {
        @Override
        protected boolean isAvailable() {
            return true;
        }

        @Override
        protected int priority() {
            return 5;
        }

        @Override
        public String getDefaultScheme() {
            return "configured";
        }

        @Override
        public NameResolver newNameResolver(URI target, NameResolver.Args arguments) {
            if (!target.getScheme().equals("configured")) {
                return null;
            }
            return new NameResolver() {
                @Override
                public String getServiceAuthority() {
                    return "localhost";
                }

                @Override
                public void start(Listener2 listener) {
                    var address = HostAndPort.fromString(target.getPath().substring(1));
                    listener.onResult(ResolutionResult.newBuilder()
                            .setAddressesOrError(StatusOr.fromValue(List.of(new EquivalentAddressGroup(
                                    new InetSocketAddress(address.getHost(), address.getPort())))))
                            .setServiceConfig(arguments.getServiceConfigParser().parseServiceConfig(Map.of()))
                            .build());
                }

                @Override
                public void shutdown() {}
            };
        }
    }

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
