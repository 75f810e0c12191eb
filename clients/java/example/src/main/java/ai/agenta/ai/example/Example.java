package ai.agenta.ai.example;

import ai.agenta.ai.AgentaException;
import ai.agenta.ai.Client;
import ai.agenta.ai.Values;
import java.util.Map;

/** Refines a prompt. */
public final class Example {
    private record Refined(String prompt_template_json, String summary) {}

    public static void main(String[] arguments) {
        // Plaintext to this machine, TLS to any other. One client serves a whole program.
        try (Client client = Client.to(System.getenv().getOrDefault("AGENTA_AI_TARGET", "127.0.0.1:50051"))
                .apiKey(System.getenv("AGENTA_AI_API_KEY"))
                .waitForLimit()
                .build()) {
            // The request has a new request_id, and keeps it if it is sent again.
            var request = Client.request(
                    "tools.agenta.api.refine_prompt",
                    Map.of(
                            "prompt_template_json",
                            "{\"messages\": [{\"role\": \"user\", \"content\": \"Please translate {{text}}\"}]}",
                            "guidelines",
                            "Be brief."));
            var response = client.callTool(request); // within 90 seconds
            Refined refined = Values.unpack(response.getStructuredContent(), Refined.class);
            System.out.println(refined.prompt_template_json());
        } catch (AgentaException failure) {
            // Says what happened, whether the tool may have run, and what to do.
            System.err.println(failure.getMessage());
            System.exit(1);
        }
    }
}
