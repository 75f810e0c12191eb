package ai.agenta.ai.example;

import ai.agenta.ai.Client;
import ai.agenta.ai.ToolCallOptions;
import ai.agenta.ai.Values;
import java.util.Map;

/** Refines a prompt, and shows the progress. */
public final class ProgressExample {
    private record Refined(String summary) {}

    public static void main(String[] arguments) {
        try (Client client = Client.to(System.getenv().getOrDefault("AGENTA_AI_TARGET", "127.0.0.1:50051"))
                .apiKey(System.getenv("AGENTA_AI_API_KEY"))
                .build()) {
            var request = Client.request(
                    "tools.agenta.api.refine_prompt",
                    Map.of(
                            "prompt_template_json",
                            "{\"messages\": [{\"role\": \"user\", \"content\": \"Please translate {{text}}\"}]}"));
            var options = ToolCallOptions.DEFAULT.withProgress(progress -> System.err.println(progress.getText()));
            var response = client.callTool(request, options);
            System.out.println(Values.unpack(response.getStructuredContent(), Refined.class)
                    .summary());
        }
    }
}
