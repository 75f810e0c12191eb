package ai.agenta.ai;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import ai.agenta.ai.tools.agenta.api.v1.ApiToolsServiceGrpc;
import ai.agenta.ai.tools.agenta.api.v1.RefinePromptRequest;
import ai.agenta.ai.tools.agenta.api.v1.RefinePromptResponse;
import ai.agenta.ai.v1.ContentBlock;
import ai.agenta.ai.v1.ErrorReason;
import ai.agenta.ai.v1.ToolError;
import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthCheckResponse;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.protobuf.services.HealthStatusManager;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.util.ArrayDeque;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.CopyOnWriteArrayList;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** Methods that tools have of their own: what the client adds to a call. */
class TypedMethodsTest {
    private final List<RefinePromptRequest> arrived = new CopyOnWriteArrayList<>();
    private final Queue<Status> failures = new ArrayDeque<>();
    private RefinePromptResponse answer = RefinePromptResponse.newBuilder()
            .setResult(RefinePromptResponse.Result.newBuilder().setSummary("Shorter."))
            .build();
    private Server server;
    private Client client;

    @BeforeEach
    void begin() throws IOException {
        var health = new HealthStatusManager();
        health.setStatus("agenta.ai.v1.ToolService", HealthCheckResponse.ServingStatus.SERVING);
        server = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
                .addService(health.getHealthService())
                .addService(new Service())
                .build()
                .start();
        client = Client.to("127.0.0.1:" + server.getPort()).build();
    }

    @AfterEach
    void end() {
        client.close();
        server.shutdownNow();
    }

    private final class Service extends ApiToolsServiceGrpc.ApiToolsServiceImplBase {
        @Override
        public void refinePrompt(RefinePromptRequest request, StreamObserver<RefinePromptResponse> observer) {
            arrived.add(request);
            Status failure = failures.poll();
            if (failure != null) {
                observer.onError(failure.asRuntimeException());
                return;
            }
            observer.onNext(answer);
            observer.onCompleted();
        }
    }

    private RefinePromptResponse call() {
        return client.call(ApiToolsServiceGrpc.getRefinePromptMethod(), RefinePromptRequest.getDefaultInstance());
    }

    @Test
    void eachCallHasItsOwnRequestId() {
        assertEquals("Shorter.", call().getResult().getSummary());
        call();
        assertEquals(36, arrived.get(0).getRequestId().length());
        assertNotEquals(arrived.get(0).getRequestId(), arrived.get(1).getRequestId());
    }

    @Test
    void aStubOnTheChannelHasOneToo() {
        ApiToolsServiceGrpc.newBlockingStub(client.channel()).refinePrompt(RefinePromptRequest.getDefaultInstance());
        assertEquals(36, arrived.get(0).getRequestId().length());
    }

    @Test
    void itIsSentAgainWithTheSameRequestId() {
        failures.addAll(List.of(Status.UNAVAILABLE, Status.UNAVAILABLE));
        call();
        assertEquals(3, arrived.size());
        assertEquals(arrived.get(0), arrived.get(2));
    }

    @Test
    void errorsAreThoseOfTheClient() {
        failures.add(Status.INTERNAL);
        var open = assertThrows(CallException.class, this::call);
        assertEquals(arrived.get(0).getRequestId(), open.requestId());
        assertTrue(!open.notRun());
        answer = RefinePromptResponse.newBuilder()
                .setError(ToolError.newBuilder().setReason(ErrorReason.ERROR_REASON_UPSTREAM_TIMEOUT))
                .addContent(ContentBlock.newBuilder().setText("Too slow."))
                .build();
        var failed = assertThrows(ToolException.class, this::call);
        assertEquals(ErrorReason.ERROR_REASON_UPSTREAM_TIMEOUT, failed.reason());
        assertEquals("Too slow.", failed.description());
        assertEquals(arrived.get(1).getRequestId(), failed.requestId());
    }

    /** One that runs no tool has no request_id, and takes the rest. */
    @Test
    void methodsThatRunNoTool() {
        assertEquals(
                HealthCheckResponse.ServingStatus.SERVING,
                client.call(HealthGrpc.getCheckMethod(), HealthCheckRequest.getDefaultInstance())
                        .getStatus());
        var unknown = HealthCheckRequest.newBuilder().setService("x").build();
        var failure = assertThrows(CallException.class, () -> client.call(HealthGrpc.getCheckMethod(), unknown));
        assertEquals(Status.Code.NOT_FOUND, failure.code());
        assertEquals("", failure.requestId());
        var options = ToolCallOptions.DEFAULT.withRerunIfOutcomeUnknown();
        assertThrows(IllegalArgumentException.class, () -> client.call(HealthGrpc.getCheckMethod(), unknown, options));
    }

    @Test
    void streamsAreForStubs() {
        var request = HealthCheckRequest.getDefaultInstance();
        var thrown =
                assertThrows(IllegalArgumentException.class, () -> client.call(HealthGrpc.getWatchMethod(), request));
        assertEquals("grpc.health.v1.Health/Watch is a stream: call it by its stub", thrown.getMessage());
    }
}
