package ai.agenta.ai;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import ai.agenta.ai.FakeService.Answer;
import ai.agenta.ai.v1.StatusRequest;
import ai.agenta.ai.v1.ToolServiceGrpc;
import io.grpc.Context;
import io.grpc.Status;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

final class DetachedTest {
    private static final Context.Key<String> WHO = Context.key("who");

    /** A server that accepts connections, and says nothing. */
    private static ServerSocket silent() throws IOException {
        return new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
    }

    private static Client to(ServerSocket server) {
        return Client.to("127.0.0.1:" + server.getLocalPort()).build();
    }

    private static void call(Client client) {
        client.callTool(Client.request("tools.x.y.z", Map.of()));
    }

    @Test
    void aConnectionOutlivesTheContextOfItsFirstCall() throws IOException {
        try (FakeService service = new FakeService(Answer.done())) {
            // grpc-java by itself loses one connection in fifty.
            for (int i = 0; i < 300; i++) {
                try (Client client = Client.to(service.target()).build()) {
                    var request = Context.current().withCancellation();
                    request.run(() -> call(client));
                    request.cancel(null);
                    call(client);
                }
            }
        }
    }

    @Test
    void aCallEndsWithItsContext() throws Exception {
        try (ServerSocket server = silent();
                Client client = to(server)) {
            var request = Context.current().withCancellation();
            var answer = request.call(
                    () -> ToolServiceGrpc.newFutureStub(client.channel()).status(StatusRequest.getDefaultInstance()));
            request.cancel(null);
            var thrown = assertThrows(ExecutionException.class, () -> answer.get(20, TimeUnit.SECONDS));
            assertEquals(Code.CANCELLED, Status.fromThrowable(thrown).getCode());
            // Neither is one begun in it.
            var failure = assertThrows(
                    StatusRuntimeException.class,
                    () -> request.run(() -> ToolServiceGrpc.newBlockingStub(client.channel())
                            .status(StatusRequest.getDefaultInstance())));
            assertEquals(Code.CANCELLED, failure.getStatus().getCode());
        }
    }

    @Test
    void aCallEndsAtTheDeadlineOfItsContext() throws IOException {
        var clock = Executors.newSingleThreadScheduledExecutor();
        try (ServerSocket server = silent();
                Client client = to(server);
                var request = Context.current().withDeadlineAfter(100, TimeUnit.MILLISECONDS, clock)) {
            var failure = assertThrows(CallException.class, () -> request.run(() -> call(client)));
            assertEquals(Code.DEADLINE_EXCEEDED, failure.code());
        } finally {
            clock.shutdownNow();
        }
    }

    @Test
    void whoIsToldOfACallIsInItsContext() throws Exception {
        var told = new CompletableFuture<String>();
        try (FakeService service = new FakeService(Answer.done());
                Client client = Client.to(service.target()).build()) {
            Context.current()
                    .withValue(WHO, "me")
                    .run(() -> ToolServiceGrpc.newStub(client.channel())
                            .callTool(Client.request("tools.x.y.z", Map.of()), new StreamObserver<>() {
                                @Override
                                public void onNext(ai.agenta.ai.v1.CallToolResponse response) {
                                    told.complete(WHO.get());
                                }

                                @Override
                                public void onError(Throwable thrown) {
                                    told.completeExceptionally(thrown);
                                }

                                @Override
                                public void onCompleted() {}
                            }));
            assertEquals("me", told.get(20, TimeUnit.SECONDS));
        }
    }
}
