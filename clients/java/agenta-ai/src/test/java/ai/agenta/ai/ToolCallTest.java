package ai.agenta.ai;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import ai.agenta.ai.FakeService.Answer;
import ai.agenta.ai.v1.CallToolRequest;
import ai.agenta.ai.v1.CallToolResponse;
import ai.agenta.ai.v1.ErrorReason;
import ai.agenta.ai.v1.StatusRequest;
import ai.agenta.ai.v1.ToolServiceGrpc;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.CallCredentials;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ClientStreamTracer;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.ForwardingClientCallListener.SimpleForwardingClientCallListener;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.net.ConnectException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executor;
import java.util.concurrent.ForkJoinPool;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.Test;

final class ToolCallTest {
    private static final ToolCallOptions OPTIONS = ToolCallOptions.DEFAULT.withTimeout(Duration.ofSeconds(20));

    @SuppressWarnings("unchecked")
    static <T extends Throwable> RuntimeException unchecked(Throwable thrown) throws T {
        throw (T) thrown;
    }

    private static CallToolRequest request() {
        return Client.request("tools.x.y.z", Map.of("a", 1));
    }

    private static CallException failureOf(CompletableFuture<?> call) {
        var failure = assertThrows(ExecutionException.class, () -> call.get(20, TimeUnit.SECONDS));
        return assertInstanceOf(CallException.class, failure.getCause());
    }

    @Test
    void waitsAsLongAsTheServerSays() throws IOException {
        try (FakeService service = new FakeService(Answer.limited(2000), Answer.limited(1), Answer.done());
                Client client = Client.to(service.target()).waitForLimit().build()) {
            client.callTool(request(), OPTIONS);
            var seen = service.arrivals;
            assertEquals(3, seen.size());
            Duration first = seen.get(1).at().since(seen.get(0).at());
            Duration second = seen.get(2).at().since(seen.get(1).at());
            assertTrue(first.compareTo(Duration.ofSeconds(2)) >= 0, () -> "waited " + first);
            assertTrue(second.compareTo(first) < 0, () -> "waited " + second);
            assertEquals(
                    1,
                    seen.stream()
                            .map(each -> each.request().getRequestId())
                            .distinct()
                            .count());
        }
    }

    @Test
    void waitsAsOftenAsItHasTime() throws IOException {
        var answers = new ArrayList<Answer>();
        for (int i = 0; i < 20; i++) {
            answers.add(Answer.limited(1));
        }
        answers.add(Answer.done());
        try (FakeService service = new FakeService(answers.toArray(Answer[]::new));
                Client client = Client.to(service.target()).waitForLimit().build()) {
            client.callTool(request(), OPTIONS);
            assertEquals(21, service.arrivals.size());
        }
    }

    @Test
    void comesBackAlthoughTheCommonPoolIsBusy() throws Exception {
        var pool = ForkJoinPool.commonPool();
        int threads = pool.getParallelism();
        var busy = new Semaphore(0);
        try (FakeService service = new FakeService(Answer.limited(1), Answer.done());
                Client client = Client.to(service.target()).waitForLimit().build()) {
            for (int thread = 0; thread < threads; thread++) {
                pool.execute(busy::acquireUninterruptibly);
            }
            client.callToolAsync(request(), OPTIONS).get(20, TimeUnit.SECONDS);
        } finally {
            busy.release(threads);
        }
    }

    @Test
    void doesNotWaitInVain() throws IOException {
        for (Answer answer : List.of(Answer.limited(60_000), Answer.limited(1, "-1"))) {
            try (FakeService service = new FakeService(answer);
                    Client client = Client.to(service.target()).waitForLimit().build()) {
                var failure = assertThrows(CallException.class, () -> client.callTool(request(), OPTIONS));
                assertEquals(ErrorReason.ERROR_REASON_RATE_LIMITED, failure.reason());
                assertEquals(1, service.arrivals.size());
            }
        }
    }

    /** The service may not know what the server before it has run. */
    @Test
    void refusalAfterALostAttemptLeavesTheOutcomeOpen() throws IOException {
        var info = ErrorInfo.newBuilder()
                .setReason("ERROR_REASON_OVERLOADED")
                .setDomain("agenta.ai")
                .build();
        try (FakeService service =
                        new FakeService(Answer.refused(Code.UNAVAILABLE, "1"), Answer.refused(Code.ABORTED, info));
                Client client = Client.to(service.target()).build()) {
            var failure = assertThrows(CallException.class, () -> client.callTool(request(), OPTIONS));
            assertEquals(ErrorReason.ERROR_REASON_OVERLOADED, failure.reason());
            assertFalse(failure.notRun());
            assertEquals(
                    "OVERLOADED: No. The call may have run and may have been billed. To get its result, send it again with"
                            + " request_id " + failure.requestId() + ".",
                    failure.getMessage());
        }
    }

    @Test
    void whatWasLostBeforeALimitStaysOpen() throws IOException {
        for (boolean lost : List.of(true, false)) {
            var answers = new ArrayList<>(List.of(Answer.limited(1), Answer.limited(1, "-1")));
            if (lost) {
                answers.add(0, Answer.refused(Code.UNAVAILABLE, "1"));
            }
            try (FakeService service = new FakeService(answers.toArray(Answer[]::new));
                    Client client = Client.to(service.target()).waitForLimit().build()) {
                var failure = assertThrows(CallException.class, () -> client.callTool(request(), OPTIONS));
                assertEquals(!lost, failure.notRun());
                assertEquals(answers.size(), service.arrivals.size());
            }
        }
    }

    @Test
    void closingEndsCallsAtOnce() throws Exception {
        try (FakeService service = new FakeService(Answer.never())) {
            Client client = Client.to(service.target()).apiKey("k").build();
            var request = request();
            var call = client.callToolAsync(request, OPTIONS);
            service.awaitArrival();
            client.close();
            var failure = failureOf(call);
            assertEquals(Code.CANCELLED, failure.code());
            assertEquals("The client was closed", failure.description());
            assertFalse(failure.notRun());
            assertEquals(request.getRequestId(), failure.requestId());
            assertEquals(
                    "CANCELLED: The client was closed. The call may have run and may have been billed. To get its result,"
                            + " send it again with request_id " + request.getRequestId() + ".",
                    failure.getMessage());
        }
    }

    @Test
    void closingEndsCallsThatWaitForALimit() throws Exception {
        try (FakeService service = new FakeService(Answer.limited(10_000))) {
            Client client = Client.to(service.target()).waitForLimit().build();
            var refused = new CompletableFuture<Void>();
            var call = client.callToolAsync(request(), OPTIONS.withTrailers(trailers -> refused.complete(null)));
            refused.get(20, TimeUnit.SECONDS);
            // Closed before or after the call has begun to wait.
            client.close();
            var failure = assertThrows(ExecutionException.class, () -> call.get(5, TimeUnit.SECONDS));
            assertEquals(
                    Code.CANCELLED,
                    assertInstanceOf(CallException.class, failure.getCause()).code());
            assertEquals(1, service.arrivals.size());
        }
    }

    @Test
    void callsAfterClosing() throws IOException {
        try (FakeService service = new FakeService(Answer.done())) {
            Client client = Client.to(service.target()).build();
            client.close();
            client.close();
            var failure = assertThrows(CallException.class, () -> client.callTool(request()));
            assertEquals(
                    "CANCELLED: The client is closed. Nothing was sent, so the tool was not run.",
                    failure.getMessage());
            assertTrue(failure.notRun());
            var stub = ToolServiceGrpc.newBlockingStub(client.channel());
            var thrown =
                    assertThrows(StatusRuntimeException.class, () -> stub.status(StatusRequest.getDefaultInstance()));
            assertEquals("The client is closed", thrown.getStatus().getDescription());
            assertEquals(List.of(), service.arrivals);
        }
    }

    @Test
    void requestThatIsTooLarge() throws IOException {
        try (FakeService service = new FakeService(Answer.done());
                Client client = Client.to(service.target()).build()) {
            var large = Client.request("tools.x.y.z", Map.of("a", "x".repeat(1 << 20)));
            var failure = assertThrows(CallException.class, () -> client.callTool(large));
            assertEquals(Code.INVALID_ARGUMENT, failure.code());
            assertEquals(ErrorReason.ERROR_REASON_REQUEST_TOO_LARGE, failure.reason());
            assertTrue(failure.notRun());
            assertTrue(
                    failure.getMessage()
                            .matches("REQUEST_TOO_LARGE: The request has 1,048,\\d+ bytes, and 1,048,576 are allowed:"
                                    + " shorten its arguments\\. Nothing was sent, so the tool was not run\\."),
                    failure::getMessage);
            assertEquals(List.of(), service.arrivals);
        }
    }

    @Test
    void requestIdThatIsEmpty() throws IOException {
        assertThrows(IllegalArgumentException.class, () -> Client.request("t", Map.of(), ""));
        assertEquals("r", Client.request("t", Map.of(), "r").getRequestId());
        try (FakeService service = new FakeService(Answer.done());
                Client client = Client.to(service.target()).build()) {
            assertThrows(
                    IllegalArgumentException.class,
                    () -> client.callTool(
                            CallToolRequest.newBuilder().setName("t").build()));
            assertEquals(List.of(), service.arrivals);
        }
    }

    @Test
    void optionsOfACall() throws IOException {
        var trailers = new AtomicReference<Metadata>();
        var options = OPTIONS.withHeader("traceparent", "00-1-2-01")
                .withTrailers(trailers::set)
                .withRerunIfOutcomeUnknown()
                .withCredentials(new CallCredentials() {
                    @Override
                    public void applyRequestMetadata(RequestInfo connection, Executor executor, MetadataApplier to) {
                        Metadata headers = new Metadata();
                        headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer own");
                        to.apply(headers);
                    }
                });
        try (FakeService service = new FakeService(Answer.done());
                Client client = Client.to(service.target()).build()) {
            client.callTool(request(), options);
            var arrival = service.arrivals.get(0);
            assertEquals(Optional.of("00-1-2-01"), arrival.traceparent());
            assertEquals(Optional.of("Bearer own"), arrival.authorization());
            assertTrue(arrival.request().getRerunIfOutcomeUnknown());
            assertTrue(trailers.get() != null);
        }
        assertThrows(IllegalArgumentException.class, () -> OPTIONS.withTimeout(Duration.ZERO));
        var unfit = assertThrows(IllegalArgumentException.class, () -> OPTIONS.withHeader("x-token", "secret\n"));
        assertEquals("header x-token: the value must be printable ASCII", unfit.getMessage());
    }

    @Test
    void timeOutThatIsTooLongToComputeWith() throws IOException {
        try (FakeService service = new FakeService(Answer.done());
                Client client = Client.to(service.target()).build()) {
            client.callTool(request(), Duration.ofSeconds(Long.MAX_VALUE));
        }
    }

    @Test
    void retryDelayThatIsTooLongToComputeWith() throws IOException {
        var info = ErrorInfo.newBuilder()
                .setReason("ERROR_REASON_RATE_LIMITED")
                .setDomain("agenta.ai")
                .build();
        for (long seconds : List.of(Long.MAX_VALUE, 100_000_000_000L)) {
            var delay = com.google.protobuf.Duration.newBuilder()
                    .setSeconds(seconds)
                    .setNanos(Integer.MAX_VALUE);
            var retry = RetryInfo.newBuilder().setRetryDelay(delay).build();
            try (FakeService service = new FakeService(Answer.refused(Code.RESOURCE_EXHAUSTED, info, retry));
                    Client client = Client.to(service.target()).waitForLimit().build()) {
                var failure = failureOf(client.callToolAsync(request(), OPTIONS));
                assertEquals(ErrorReason.ERROR_REASON_RATE_LIMITED, failure.reason());
            }
        }
    }

    @Test
    void interceptorThatThrows() throws IOException {
        var thrown = new IllegalStateException("no");
        var throwing = new ClientInterceptor() {
            @Override
            public <Q, A> ClientCall<Q, A> interceptCall(
                    MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
                throw thrown;
            }
        };
        try (FakeService service = new FakeService(Answer.done());
                Client client = Client.to(service.target())
                        .configure(builder -> builder.intercept(throwing))
                        .build()) {
            var call = client.callToolAsync(request(), OPTIONS);
            var failure = assertThrows(ExecutionException.class, () -> call.get(20, TimeUnit.SECONDS));
            assertSame(thrown, failure.getCause());
        }
    }

    /** Ends the first call below as grpc-java does if the connection breaks while it writes, and counts the attempts. */
    private static final class BrokenWhileWriting extends ClientStreamTracer.Factory implements ClientInterceptor {
        private final AtomicInteger attempts = new AtomicInteger();
        private final AtomicBoolean first = new AtomicBoolean(true);
        private final Runnable then;

        BrokenWhileWriting(Runnable then) {
            this.then = then;
        }

        Client to(FakeService service) {
            return Client.to(service.target())
                    .waitForLimit()
                    .configure(builder -> builder.intercept(this))
                    .build();
        }

        @Override
        public ClientStreamTracer newClientStreamTracer(ClientStreamTracer.StreamInfo info, Metadata headers) {
            return new ClientStreamTracer() {
                // grpc-java asks for a tracer before its backoff, and sends nothing if the call ends meanwhile.
                @Override
                public void streamClosed(Status status) {
                    if (!info.isTransparentRetry() && status.getCode() != Code.CANCELLED) {
                        attempts.incrementAndGet();
                    }
                }
            };
        }

        @Override
        public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
            var call = next.newCall(method, options.withStreamTracerFactory(this));
            return !first.getAndSet(false)
                    ? call
                    : new SimpleForwardingClientCall<>(call) {
                        @Override
                        public void start(Listener<A> listener, Metadata headers) {
                            var breaking = new SimpleForwardingClientCallListener<>(listener) {
                                @Override
                                public void onClose(Status status, Metadata trailers) {
                                    then.run();
                                    super.onClose(
                                            Status.UNAVAILABLE.withDescription("the connection broke"), new Metadata());
                                }
                            };
                            super.start(breaking, headers);
                        }
                    };
        }
    }

    /** How the service answers, and whether it is gone after the connection broke. */
    private record Breaking(boolean stops, Answer... answers) {}

    @Test
    void attemptsAreLimitedWhenAConnectionBreaksWhileWriting() throws IOException {
        Answer unavailable = Answer.refused(Code.UNAVAILABLE);
        Answer atOnce = Answer.refused(Code.UNAVAILABLE, "1");
        Answer end = Answer.refused(Code.INTERNAL);
        for (Breaking each : List.of(
                new Breaking(false, atOnce),
                new Breaking(false, end, unavailable),
                new Breaking(false, end, atOnce),
                new Breaking(false, atOnce, atOnce, atOnce, end, atOnce),
                new Breaking(true, end),
                new Breaking(true, atOnce, end))) {
            try (FakeService service = new FakeService(each.answers)) {
                var breaking = new BrokenWhileWriting(each.stops ? service::close : () -> {});
                try (Client client = breaking.to(service)) {
                    var trailers = new AtomicReference<Metadata>();
                    var failure = assertThrows(
                            CallException.class, () -> client.callTool(request(), OPTIONS.withTrailers(trailers::set)));
                    assertEquals(Code.UNAVAILABLE, failure.code());
                    assertFalse(failure.notRun());
                    assertEquals(5, breaking.attempts.get());
                    assertNotEquals("-1", trailers.get().get(ToolCall.PUSHBACK));
                }
            }
        }
    }

    @Test
    void lastAttemptWhenAConnectionBreaksWhileWritingMayLastUntilTheDeadline() throws IOException {
        Answer atOnce = Answer.refused(Code.UNAVAILABLE, "1");
        Answer end = Answer.refused(Code.INTERNAL);
        try (FakeService service = new FakeService(atOnce, atOnce, atOnce, end, Answer.never());
                Client client = new BrokenWhileWriting(() -> {}).to(service)) {
            var options = ToolCallOptions.DEFAULT.withTimeout(Duration.ofSeconds(6));
            var failure = assertThrows(CallException.class, () -> client.callTool(request(), options));
            assertEquals(Code.DEADLINE_EXCEEDED, failure.code());
            assertEquals(5, service.arrivals.size());
        }
    }

    @Test
    void lastAttemptWhenAConnectionBreaksWhileWritingEndsWithTheClient() throws Exception {
        Answer atOnce = Answer.refused(Code.UNAVAILABLE, "1");
        Answer end = Answer.refused(Code.INTERNAL);
        try (FakeService service = new FakeService(atOnce, atOnce, atOnce, end, Answer.never())) {
            Client client = new BrokenWhileWriting(() -> {}).to(service);
            var call = client.callToolAsync(request(), OPTIONS);
            for (int attempt = 0; attempt < 5; attempt++) {
                service.awaitArrival();
            }
            client.close();
            var failure = failureOf(call);
            assertEquals(Code.CANCELLED, failure.code());
            assertEquals("The client was closed", failure.description());
        }
    }

    @Test
    void lastAttemptWhenAConnectionBreaksWhileWritingMayWaitForTheLimit() throws IOException {
        Answer atOnce = Answer.refused(Code.UNAVAILABLE, "1");
        Answer end = Answer.refused(Code.INTERNAL);
        try (FakeService service =
                        new FakeService(end, atOnce, atOnce, atOnce, Answer.limited(1), atOnce, Answer.done());
                Client client = new BrokenWhileWriting(() -> {}).to(service)) {
            client.callTool(request(), OPTIONS);
            assertEquals(7, service.arrivals.size());
        }
    }

    @Test
    void whyAConnectionFailed() {
        var reset = new IOException("Connection reset by peer");
        var cases = Map.of(
                Status.UNAVAILABLE.withDescription("io exception").withCause(reset),
                "UNAVAILABLE: the connection broke: Connection reset by peer",
                Status.UNAVAILABLE.withDescription("No.").withCause(reset),
                "UNAVAILABLE: No.",
                Outcome.mark(Status.UNAVAILABLE.withDescription("io exception"), Outcome.Kind.UNSENT),
                "UNAVAILABLE: io exception. Nothing was sent.",
                Outcome.mark(
                        Status.UNAVAILABLE.withDescription("io exception").withCause(new FileNotFoundException()),
                        Outcome.Kind.UNSENT),
                "UNAVAILABLE: no connection: FileNotFoundException. Is agenta-ai-server running? Nothing was sent.",
                // of the last attempt
                Status.UNAVAILABLE
                        .withDescription("io exception")
                        .withCause(new ConnectException("Connection refused")),
                "UNAVAILABLE: no connection: Connection refused. Is agenta-ai-server running?",
                // of credentials
                Outcome.mark(Status.UNAVAILABLE.withDescription("No.").withCause(reset), Outcome.Kind.UNSENT),
                "UNAVAILABLE: No. Nothing was sent.",
                Status.UNAUTHENTICATED.withDescription("No.").withCause(new ConnectException("idp")),
                "UNAUTHENTICATED: No.");
        cases.forEach((status, message) ->
                assertEquals(message, new CallException(status.asRuntimeException()).getMessage()));
    }

    @Test
    void consumerThatThrows() throws IOException {
        try (FakeService service = new FakeService(Answer.done());
                Client client = Client.to(service.target()).build()) {
            for (Throwable thrown : List.of(new IllegalStateException("no"), new StackOverflowError("no"))) {
                var options = OPTIONS.withTrailers(trailers -> unchecked(thrown));
                var call = client.callToolAsync(request(), options);
                var failure = assertThrows(ExecutionException.class, () -> call.get(20, TimeUnit.SECONDS));
                assertSame(thrown, failure.getCause());
            }
        }
    }

    @Test
    void futureThatIsCancelledCancelsTheCall() throws Exception {
        try (FakeService service = new FakeService(Answer.never());
                Client client = Client.to(service.target()).build()) {
            var call = client.callToolAsync(request(), OPTIONS);
            service.awaitArrival();
            call.cancel(true);
            service.awaitCancellation();
        }
    }

    @Test
    void interruptedThread() throws Exception {
        try (FakeService service = new FakeService(Answer.never());
                Client client = Client.to(service.target()).build()) {
            var request = request();
            var failure = new CompletableFuture<AgentaException>();
            Thread caller = new Thread(() -> {
                try {
                    client.callTool(request, OPTIONS);
                } catch (AgentaException thrown) {
                    failure.complete(thrown);
                }
            });
            caller.start();
            service.awaitArrival();
            caller.interrupt();
            assertEquals(
                    request.getRequestId(), failure.get(20, TimeUnit.SECONDS).requestId());
            service.awaitCancellation();
        }
    }

    /** The attempt before the wait was refused, so that nothing is in doubt. */
    @Test
    void threadThatIsInterruptedWhileItsCallWaitsForALimit() throws Exception {
        try (FakeService service = new FakeService(Answer.limited(10_000));
                Client client = Client.to(service.target()).waitForLimit().build()) {
            CallException failure;
            long pause = 1;
            do { // until the wait had begun
                failure = interrupted(client, pause);
                pause *= 2;
            } while (!failure.notRun() && pause < 10_000);
            assertEquals("CANCELLED: The thread was interrupted. The tool was not run.", failure.getMessage());
        }
    }

    /** What a call throws whose thread is interrupted so many milliseconds after its first attempt was refused. */
    private static CallException interrupted(Client client, long pause) throws Exception {
        var refused = new CompletableFuture<Void>();
        var thrown = new CompletableFuture<CallException>();
        Thread caller = new Thread(() -> {
            var options = OPTIONS.withTrailers(trailers -> refused.complete(null));
            thrown.complete(assertThrows(CallException.class, () -> client.callTool(request(), options)));
        });
        caller.start();
        refused.get(20, TimeUnit.SECONDS);
        LockSupport.parkNanos(TimeUnit.MILLISECONDS.toNanos(pause));
        caller.interrupt();
        return thrown.get(20, TimeUnit.SECONDS);
    }

    @Test
    void exceptionsOfABlockingCallPointToItsCaller() throws IOException {
        try (FakeService service = new FakeService(Answer.refused(Code.INTERNAL));
                Client client = Client.to(service.target()).build()) {
            var failure = assertThrows(CallException.class, () -> client.callTool(request(), OPTIONS));
            var frames = List.of(failure.getStackTrace());
            assertTrue(
                    frames.stream().anyMatch(frame -> frame.getClassName().startsWith(ToolCallTest.class.getName())),
                    frames::toString);
        }
    }

    @Test
    void exceptionsOfAFuture() throws IOException {
        var failed = CallToolResponse.newBuilder().setIsError(true).build();
        try (FakeService service = new FakeService(new Answer(failed, null));
                Client client = Client.to(service.target()).build()) {
            var thrown = assertThrows(
                    CompletionException.class,
                    () -> client.callToolAsync(request(), OPTIONS).join());
            assertEquals(
                    failed,
                    assertInstanceOf(ToolException.class, thrown.getCause()).response());
        }
        assertSame(failed, new ToolException(failed).response());
        assertThrows(IllegalArgumentException.class, () -> new ToolException(CallToolResponse.getDefaultInstance()));
    }

    /** Forty calls at once, where ten may start at once and then two hundred a second. */
    @Test
    void manyCallsWaitForALimit() throws Exception {
        try (FakeService service = FakeService.limited(10, 200);
                Client client = Client.to(service.target()).waitForLimit().build()) {
            var calls = new ArrayList<CompletableFuture<CallToolResponse>>();
            for (int i = 0; i < 40; i++) {
                calls.add(client.callToolAsync(request(), OPTIONS));
            }
            for (var call : calls) {
                call.get(20, TimeUnit.SECONDS);
            }
        }
    }
}
