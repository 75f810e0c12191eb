package ai.agenta.ai;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import ai.agenta.ai.FakeService.Answer;
import ai.agenta.ai.v1.CallMeta;
import ai.agenta.ai.v1.CallToolRequest;
import ai.agenta.ai.v1.CallToolResponse;
import ai.agenta.ai.v1.ContentBlock;
import ai.agenta.ai.v1.ErrorReason;
import ai.agenta.ai.v1.StatusRequest;
import ai.agenta.ai.v1.ToolError;
import ai.agenta.ai.v1.ToolServiceGrpc;
import com.google.protobuf.util.Durations;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.QuotaFailure;
import com.google.rpc.RequestInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import java.io.IOException;
import java.math.BigDecimal;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.UnaryOperator;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

final class ClientTest {
    private static final Duration TIMEOUT = Duration.ofSeconds(10);

    private static CallToolRequest request() {
        return Client.request("tools.x.y.z", Map.of("a", 1));
    }

    private static CallToolResponse call(FakeService service, UnaryOperator<Client.Builder> options) {
        try (Client client = options.apply(Client.to(service.target())).build()) {
            return client.callTool(request(), TIMEOUT);
        }
    }

    private static CallException refused(Answer answer) throws IOException {
        try (FakeService service = new FakeService(answer)) {
            return assertThrows(CallException.class, () -> call(service, options -> options));
        }
    }

    private record Counted(int count, List<String> names) {}

    @Test
    void resultIsPutIntoNativeType() throws IOException {
        var content = Values.pack(Map.of("count", 3, "names", List.of("a", "b")));
        var value =
                com.google.protobuf.Value.newBuilder().setStructValue(content).build();
        try (FakeService service = new FakeService(Answer.of(value));
                Client client = Client.to(service.target()).build()) {
            var response = client.callTool(request());
            assertEquals(
                    new Counted(3, List.of("a", "b")), Values.unpack(response.getStructuredContent(), Counted.class));
            assertEquals(
                    Map.of("count", 3.0, "names", List.of("a", "b")),
                    Values.unpack(response.getStructuredContent(), Object.class));
            assertThrows(
                    IllegalArgumentException.class,
                    () -> Values.unpack(response.getStructuredContent(), Integer.class));
            var field = response.getStructuredContent().getStructValue().getFieldsOrThrow("names");
            assertEquals(List.of("a", "b"), Values.unpack(field, new TypeRef<List<String>>() {}));
            var arrival = service.arrivals.get(0);
            assertEquals(
                    1.0, arrival.request().getArguments().getFieldsOrThrow("a").getNumberValue());
            assertTrue(arrival.left().compareTo(Client.CALL_TIMEOUT) <= 0, () -> "had " + arrival.left());
            assertTrue(
                    arrival.left().compareTo(Client.CALL_TIMEOUT.minusSeconds(10)) > 0, () -> "had " + arrival.left());
        }
    }

    @Test
    void everyRequestHasAnIdOfItsOwn() {
        String first = request().getRequestId();
        assertNotEquals(first, request().getRequestId());
        assertEquals(4, UUID.fromString(first).version());
        assertEquals(36, first.length());
    }

    @Test
    void argumentsThatCannotBeSent() {
        var endless = new HashMap<String, Object>();
        endless.put("again", endless);
        for (Object value : List.of(Double.NaN, "\ud800", new BigDecimal("1e400"), endless)) {
            assertThrows(IllegalArgumentException.class, () -> Client.request("t", Map.of("a", value)));
        }
        assertThrows(IllegalArgumentException.class, () -> Client.request("t", List.of()));
    }

    @Test
    void argumentsArriveAsTheyAreOrNotAtAll() {
        var unfit = Map.of("a", List.of(1, Map.of("id", 9_007_199_254_740_993L)));
        assertEquals(
                "arguments.a[1].id: the integer 9007199254740993 doesn't fit a double: send it as a string",
                assertThrows(IllegalArgumentException.class, () -> Client.request("t", unfit))
                        .getMessage());
        for (Object fits : List.of(Long.MIN_VALUE, 9_007_199_254_740_994L, 0.1, new BigDecimal("1.5"))) {
            Client.request("t", Map.of("id", fits));
        }
        Object deep = List.of();
        for (int level = 2; level < 32; level++) {
            deep = List.of(deep);
        }
        Client.request("t", Map.of("a", deep));
        Object deeper = List.of(deep);
        assertTrue(assertThrows(IllegalArgumentException.class, () -> Client.request("t", Map.of("a", deeper)))
                .getMessage()
                .endsWith("nested too deep to be sent: send it as a string of JSON"));
    }

    @Test
    void callsByTheStubAreNamedBecauseTheyAreSentAgain() throws IOException {
        try (FakeService service = new FakeService(Answer.refused(Code.UNAVAILABLE, "1"), Answer.done());
                Client client = Client.to(service.target()).build()) {
            ToolServiceGrpc.newBlockingStub(client.channel()).callTool(CallToolRequest.getDefaultInstance());
            assertEquals(2, service.arrivals.size());
            String id = service.arrivals.get(0).request().getRequestId();
            assertEquals(36, id.length());
            assertEquals(id, service.arrivals.get(1).request().getRequestId());
        }
    }

    @Test
    void theServerSeesTheVersion() throws IOException {
        try (FakeService service = new FakeService(Answer.done())) {
            call(service, options -> options);
            String agent = service.arrivals.get(0).userAgent().orElseThrow();
            assertTrue(agent.matches("agenta-ai-java/\\d+\\.\\d+\\.\\d+.*"), agent);
        }
    }

    @Test
    void refusalIsDecoded() throws IOException {
        var quota = QuotaFailure.Violation.newBuilder()
                .setQuotaId("default")
                .setQuotaValue(10)
                .build();
        var failure = refused(Answer.refused(
                Code.RESOURCE_EXHAUSTED,
                ErrorInfo.newBuilder()
                        .setReason("ERROR_REASON_RATE_LIMITED")
                        .setDomain("agenta.ai")
                        .build(),
                RetryInfo.newBuilder().setRetryDelay(Durations.fromMillis(1500)).build(),
                BadRequest.newBuilder()
                        .addFieldViolations(BadRequest.FieldViolation.newBuilder()
                                .setField("arguments.a")
                                .setDescription("Too long."))
                        .build(),
                QuotaFailure.newBuilder().addViolations(quota).build(),
                RequestInfo.newBuilder().setRequestId("r").build()));
        assertEquals(Code.RESOURCE_EXHAUSTED, failure.code());
        assertTrue(failure.notRun());
        assertEquals(ErrorReason.ERROR_REASON_RATE_LIMITED, failure.reason());
        assertEquals("No.", failure.description());
        assertEquals(Duration.ofMillis(1500), failure.retryDelay());
        assertEquals(List.of(new FieldViolation("arguments.a", "Too long.")), failure.fieldViolations());
        assertEquals(List.of(quota), failure.quotaViolations());
        assertEquals("r", failure.callId());
        assertEquals("RATE_LIMITED: No; arguments.a: Too long; try again in 2 s", failure.getMessage());
    }

    @Test
    void whatOthersRefuseMayHaveRun() throws IOException {
        var proxy = ErrorInfo.newBuilder()
                .setReason("ERROR_REASON_RATE_LIMITED")
                .setDomain("proxy")
                .build();
        for (Answer answer : List.of(Answer.refused(Code.INTERNAL), Answer.refused(Code.INTERNAL, proxy))) {
            var failure = refused(answer);
            assertFalse(failure.notRun());
            assertEquals(ErrorReason.ERROR_REASON_UNSPECIFIED, failure.reason());
            assertEquals(
                    "INTERNAL: No. The call may have run and may have been billed. To get its result, send it again with"
                            + " request_id " + failure.requestId() + ".",
                    failure.getMessage());
            assertEquals(36, failure.requestId().length());
        }
    }

    @Test
    void reasonOfLaterVersionIsNotRunEither() throws IOException {
        var info = ErrorInfo.newBuilder()
                .setReason("ERROR_REASON_OF_2030")
                .setDomain("agenta.ai")
                .build();
        var failure = refused(Answer.refused(Code.FAILED_PRECONDITION, info));
        assertTrue(failure.notRun());
        assertEquals(ErrorReason.UNRECOGNIZED, failure.reason());
        assertEquals("FAILED_PRECONDITION: No.", failure.getMessage());
    }

    @Test
    void toolThatFailed() throws IOException {
        var response = CallToolResponse.newBuilder()
                .setIsError(true)
                .addContent(ContentBlock.getDefaultInstance())
                .addContent(ContentBlock.newBuilder().setText("Down."))
                .setError(ToolError.newBuilder()
                        .setReason(ErrorReason.ERROR_REASON_UPSTREAM_UNAVAILABLE)
                        .setRetryable(true)
                        .setRetryDelay(Durations.fromSeconds(2))
                        .addFieldViolations(ai.agenta.ai.v1.FieldViolation.newBuilder()
                                .setField("f")
                                .setDescription("d")))
                .setMeta(CallMeta.newBuilder().setTraceId("t"))
                .build();
        try (FakeService service = new FakeService(new Answer(response, null))) {
            var failure = assertThrows(ToolException.class, () -> call(service, options -> options));
            assertTrue(failure.retryable());
            assertEquals(Duration.ofSeconds(2), failure.retryDelay());
            assertEquals(ErrorReason.ERROR_REASON_UPSTREAM_UNAVAILABLE, failure.reason());
            assertEquals("Down.", failure.description());
            assertEquals(List.of(new FieldViolation("f", "d")), failure.fieldViolations());
            assertEquals("t", failure.response().getMeta().getTraceId());
            assertEquals("UPSTREAM_UNAVAILABLE: Down; f: d; try again in 2 s", failure.getMessage());
        }
    }

    @ParameterizedTest
    @CsvSource({
        "RESOURCE_EXHAUSTED,  1, false, 1",
        "RESOURCE_EXHAUSTED,  1, true,  1",
        "UNAVAILABLE,         1, false, 5",
        "UNAVAILABLE,        -1, false, 1",
        "UNAVAILABLE,         1, true,  5",
        "CANCELLED,           1, false, 5",
        "INTERNAL,            1, true,  1",
        "DEADLINE_EXCEEDED,   1, true,  1",
    })
    void whatIsSentAgain(Code code, String pushback, boolean waiting, int attempts) throws IOException {
        try (FakeService service = new FakeService(Answer.refused(code, pushback))) {
            UnaryOperator<Client.Builder> options = waiting ? Client.Builder::waitForLimit : builder -> builder;
            var failure = assertThrows(CallException.class, () -> call(service, options));
            assertEquals(code, failure.code());
            assertEquals(attempts, service.arrivals.size());
        }
    }

    @Test
    void readsAreSentAgain() throws IOException {
        Answer down = Answer.refused(Code.UNAVAILABLE, "1");
        try (FakeService service = new FakeService(down, down, Answer.done());
                Client client = Client.to(service.target()).build()) {
            var stub = ToolServiceGrpc.newBlockingStub(client.channel());
            assertTrue(stub.status(StatusRequest.getDefaultInstance()).getEnabled());
            assertEquals(3, service.arrivals.size());
        }
    }

    @Test
    void nothingIsSentAgainWithoutRetries() throws IOException {
        try (FakeService service = new FakeService(Answer.refused(Code.UNAVAILABLE, "1"), Answer.done())) {
            var failure = assertThrows(CallException.class, () -> call(service, Client.Builder::disableRetries));
            assertEquals(Code.UNAVAILABLE, failure.code());
            assertEquals(1, service.arrivals.size());
        }
    }

    @Test
    void readsDoNotWaitForLimits() throws IOException {
        try (FakeService service = new FakeService(Answer.refused(Code.RESOURCE_EXHAUSTED, "1"));
                Client client = Client.to(service.target()).waitForLimit().build()) {
            var stub = ToolServiceGrpc.newBlockingStub(client.channel());
            assertThrows(StatusRuntimeException.class, () -> stub.status(StatusRequest.getDefaultInstance()));
            assertEquals(1, service.arrivals.size());
        }
    }

    @Test
    void nobodyIsThere() throws IOException {
        InetAddress here = InetAddress.getLoopbackAddress();
        // Nobody listens at the caller's end of a connection, and nobody else can take its port.
        try (ServerSocket listener = new ServerSocket(0, 1, here);
                Socket caller = new Socket(here, listener.getLocalPort());
                Client client = Client.to("127.0.0.1:" + caller.getLocalPort()).build()) {
            var failure = assertThrows(CallException.class, () -> client.callTool(request(), TIMEOUT));
            String said = "UNAVAILABLE: no connection: .*Connection refused.*\\. Is agenta-ai-server running\\?"
                    + " Nothing was sent, so the tool was not run\\.";
            assertTrue(failure.getMessage().matches(said), failure.getMessage());
            assertTrue(failure.notRun());
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {true, false})
    void serverThatWasAwayForLongIsFound(boolean progress) throws IOException {
        var listener = new ServerSocket(0, 1, InetAddress.getLoopbackAddress());
        var address = listener.getLocalSocketAddress();
        try (Client client = Client.to("127.0.0.1:" + listener.getLocalPort()).build()) {
            try (listener) {
                client.channel().getState(true);
                // After these, grpc-java itself waits for two seconds or more: for longer than a call is repeated.
                for (int refused = 0; refused < 3; refused++) {
                    listener.accept().close();
                }
            }
            try (FakeService service = new FakeService(NettyServerBuilder.forAddress(address), Answer.done())) {
                var options = ToolCallOptions.DEFAULT.withTimeout(TIMEOUT);
                client.callTool(request(), progress ? options.withProgress(each -> {}) : options);
                assertEquals(1, service.arrivals.size());
            }
        }
    }

    @Test
    void serverThatIsNotServingGetsNoCalls() throws IOException {
        try (FakeService service = new FakeService(Answer.done())) {
            service.health(ServingStatus.NOT_SERVING);
            var failure = assertThrows(CallException.class, () -> call(service, options -> options));
            assertEquals(Code.UNAVAILABLE, failure.code());
            assertTrue(failure.notRun());
            assertEquals(List.of(), service.arrivals);
        }
    }

    @Test
    void largestRequestIsSentAgain() throws IOException {
        char[] text = new char[(1 << 20) - 200];
        Arrays.fill(text, 'x');
        try (FakeService service = new FakeService(Answer.refused(Code.UNAVAILABLE, "1"), Answer.done());
                Client client = Client.to(service.target()).build()) {
            client.callTool(Client.request("tools.x.y.z", Map.of("a", new String(text))));
            assertEquals(2, service.arrivals.size());
        }
    }

    /** As when a connection breaks that carries them all. */
    @Test
    void manyLargeRequestsAreSentAgain() throws Exception {
        var text = "x".repeat((1 << 20) - 200);
        int calls = 20;
        try (FakeService service = new FakeService(
                        NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", 0))
                                .intercept(new FirstAttempts(calls)),
                        Answer.done());
                Client client = Client.to(service.target()).build()) {
            var results = Stream.generate(() -> client.callToolAsync(
                            Client.request("tools.x.y.z", Map.of("a", text)), ToolCallOptions.DEFAULT))
                    .limit(calls)
                    .toList();
            for (var result : results) {
                result.get(90, TimeUnit.SECONDS);
            }
            assertEquals(calls, service.arrivals.size());
        }
    }

    /** Refuses the first attempts of calls when so many have come. */
    private static final class FirstAttempts implements ServerInterceptor {
        private static final Metadata.Key<String> RETRY =
                Metadata.Key.of("grpc-previous-rpc-attempts", Metadata.ASCII_STRING_MARSHALLER);
        private final CountDownLatch awaited;

        FirstAttempts(int calls) {
            awaited = new CountDownLatch(calls);
        }

        @Override
        public <Q, A> ServerCall.Listener<Q> interceptCall(
                ServerCall<Q, A> call, Metadata headers, ServerCallHandler<Q, A> next) {
            boolean tool = call.getMethodDescriptor().equals(ToolServiceGrpc.getCallToolMethod());
            if (!tool || headers.containsKey(RETRY)) {
                return next.startCall(call, headers);
            }
            awaited.countDown();
            try {
                assertTrue(awaited.await(60, TimeUnit.SECONDS));
            } catch (InterruptedException interrupted) {
                Thread.currentThread().interrupt();
            }
            call.close(Code.UNAVAILABLE.toStatus(), new Metadata());
            return new ServerCall.Listener<>() {};
        }
    }
}
