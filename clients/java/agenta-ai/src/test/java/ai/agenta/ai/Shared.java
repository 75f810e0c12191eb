package ai.agenta.ai;

import java.nio.file.Path;

/** Files that the clients of all languages share. */
final class Shared {
    private Shared() {}

    static Path file(String name) {
        return Path.of("../../..").resolve(name); // tests run in the folder of their module
    }
}
