package ai.agenta.ai;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.google.gson.Gson;
import com.google.gson.reflect.TypeToken;
import java.io.IOException;
import java.nio.file.Files;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

final class TargetTest {
    private record Row(String target, String kind) {}

    static List<Row> rows() throws IOException {
        return new Gson()
                .fromJson(Files.readString(Shared.file("tests/conformance/targets.json")), new TypeToken<>() {});
    }

    @ParameterizedTest
    @MethodSource("rows")
    void isAsTheTableSays(Row row) {
        if (row.kind().equals("error")) {
            assertThrows(IllegalArgumentException.class, () -> Client.to(row.target()));
        } else {
            assertEquals(row.kind(), Target.parse(row.target()).local() ? "local" : "remote");
        }
    }

    @Test
    void passwordsAreNotShown() {
        var error = assertThrows(IllegalArgumentException.class, () -> Client.to("https://user:secret@10.0.0.1"));
        assertFalse(error.getMessage().contains("secret"), error.getMessage());
    }
}
