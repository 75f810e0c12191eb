package ai.agenta.ai;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.Gson;
import com.google.gson.reflect.TypeToken;
import io.grpc.NameResolver;
import io.grpc.NameResolverProvider;
import io.grpc.NameResolverRegistry;
import java.io.IOException;
import java.net.URI;
import java.nio.file.Files;
import java.util.List;
import java.util.Locale;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

final class TargetTest {
    private record Row(String target, String kind, @Nullable List<String> clients) {
        boolean isError() {
            return kind.equals("error") || clients != null && !clients.contains("java");
        }
    }

    static List<Row> rows() throws IOException {
        return new Gson()
                .fromJson(Files.readString(Shared.file("tests/conformance/targets.json")), new TypeToken<>() {});
    }

    @ParameterizedTest
    @MethodSource("rows")
    void isAsTheTableSays(Row row) {
        if (row.isError()) {
            var error = assertThrows(IllegalArgumentException.class, () -> Client.to(row.target()));
            String said = error.getMessage();
            boolean shown = !row.target().contains("@")
                    && !row.target().toLowerCase(Locale.ROOT).startsWith("http");
            assertTrue(said.contains(": give host:port"), said);
            assertTrue(!shown || said.contains(row.target()), said);
            assertFalse(said.contains("secret"), said);
        } else {
            assertEquals(row.kind(), Target.parse(row.target()).local() ? "local" : "remote");
        }
    }

    @Test
    void resolversOfTheProgramAreUsed() {
        var resolver = new NameResolverProvider() {
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
                return "agenta-test";
            }

            @Override
            public @Nullable NameResolver newNameResolver(URI target, NameResolver.Args args) {
                return null;
            }
        };
        NameResolverRegistry.getDefaultRegistry().register(resolver);
        try {
            assertFalse(Target.parse("agenta-test:///somewhere").local());
        } finally {
            NameResolverRegistry.getDefaultRegistry().deregister(resolver);
        }
    }
}
