package com.example;

import ai.agenta.ai.AgentaException;
import ai.agenta.ai.Client;
import ai.agenta.ai.tools.examples.sales.v1.ExtractOrderRequest;
import ai.agenta.ai.tools.examples.sales.v1.SalesToolsServiceGrpc;
import ai.agenta.ai.tools.examples.support.v1.ClassifyTicketRequest;
import ai.agenta.ai.tools.examples.support.v1.SupportToolsServiceGrpc;
import ai.agenta.ai.tools.examples.text.v1.SummarizeRequest;
import ai.agenta.ai.tools.examples.text.v1.TextToolsServiceGrpc;
import java.util.Objects;
import java.util.stream.Collectors;

/** Calls the three tools of examples/tools.toml by code that was generated from their .proto files: see pom.xml. */
public final class Typed {
    private static final String ORDER =
            "Two blue mugs and a teapot to Ada Lovelace, 12 St James's Square, London.";
    private static final String MEETING =
            "The meeting on Monday was moved to Tuesday at ten, because the room is taken.";

    private Typed() {}

    public static void main(String[] arguments) {
        String target = Objects.requireNonNullElse(System.getenv("AGENTA_AI_TARGET"), "127.0.0.1:50051");
        // The client adds the credential, a deadline, a request_id and retries to each call.
        try (Client client = Client.to(target).apiKey(System.getenv("AGENTA_AI_API_KEY")).build()) {
            call(client);
        } catch (AgentaException failure) {
            System.err.println(failure.getMessage());
            System.exit(1);
        }
    }

    private static void call(Client client) {
        var ticket = ClassifyTicketRequest.newBuilder();
        ticket.getArgumentsBuilder().setTicket("My invoice is wrong.");
        var classified = client.call(SupportToolsServiceGrpc.getClassifyTicketMethod(), ticket.build()).getResult();
        System.out.println(classified.getQueue() + ", urgency " + classified.getUrgency());

        var text = ExtractOrderRequest.newBuilder();
        text.getArgumentsBuilder().setText(ORDER);
        var order = client.call(SalesToolsServiceGrpc.getExtractOrderMethod(), text.build()).getResult();
        var items = order.getItemsList().stream()
                .map(item -> item.getQuantity() + " " + item.getProduct())
                .collect(Collectors.joining(", "));
        var customer = order.getCustomer();
        System.out.println(items + " for " + customer.getName() + ", " + customer.getAddress().getCity());

        var meeting = SummarizeRequest.newBuilder();
        meeting.getArgumentsBuilder().setText(MEETING);
        System.out.println(client.call(TextToolsServiceGrpc.getSummarizeMethod(), meeting.build()).getResult().getText());
    }
}
