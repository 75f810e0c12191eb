package ai.agenta.ai;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import ai.agenta.ai.FakeService.Answer;
import ai.agenta.ai.v1.CallToolRequest;
import ai.agenta.ai.v1.Progress;
import com.google.rpc.ErrorInfo;
import io.grpc.Context;
import io.grpc.Status.Code;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.UnaryOperator;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

final class ProgressTest {
    private static final ToolCallOptions OPTIONS = ToolCallOptions.DEFAULT.withTimeout(Duration.ofSeconds(20));
    private static final Answer BEGUN = Answer.done().reporting("a", "b");
    private static final Answer EARLY = Answer.refused(Code.UNAVAILABLE, "1");
    private static final Answer BROKEN = EARLY.reporting("x");
    private static final Answer ENDLESS = Answer.never().reporting("x");

    private record Case(
            String name,
            UnaryOperator<Client.Builder> change,
            List<Answer> answers,
            Code code,
            String texts,
            int attempts) {
        @Override
        public String toString() {
            return name;
        }
    }

    private static Case of(String name, Code code, String texts, int attempts, Answer... answers) {
        return new Case(name, builder -> builder, List.of(answers), code, texts, attempts);
    }

    private static Case waiting(String name, Code code, String texts, int attempts, Answer... answers) {
        return new Case(name, Client.Builder::waitForLimit, List.of(answers), code, texts, attempts);
    }

    static Stream<Case> cases() {
        var refusal = ErrorInfo.newBuilder()
                .setReason("ERROR_REASON_TOOL_NOT_FOUND")
                .setDomain("agenta.ai")
                .build();
        return Stream.of(
                of("result", Code.OK, "ab", 1, BEGUN),
                of("broken after its first message", Code.OK, "xab", 2, BROKEN, BEGUN),
                of("broken before and after", Code.OK, "xxab", 5, EARLY, BROKEN, EARLY, BROKEN, BEGUN),
                of("broken for good", Code.UNAVAILABLE, "xxxxx", 5, BROKEN),
                new Case("no retries", Client.Builder::disableRetries, List.of(BROKEN), Code.UNAVAILABLE, "x", 1),
                of("result that isn't confirmed", Code.OK, "xab", 2, BROKEN.with(Answer.done()), BEGUN),
                of("never again", Code.UNAVAILABLE, "", 1, Answer.refused(Code.UNAVAILABLE, "-1")),
                of("pushback that is no number", Code.UNAVAILABLE, "", 1, Answer.refused(Code.UNAVAILABLE, "soon")),
                of(
                        "refused",
                        Code.NOT_FOUND,
                        "x",
                        1,
                        Answer.refused(Code.NOT_FOUND, refusal).reporting("x")),
                of("limited", Code.RESOURCE_EXHAUSTED, "", 1, Answer.limited(1)),
                waiting("limited, waiting", Code.OK, "ab", 2, Answer.limited(1), BEGUN),
                waiting(
                        "anew after a limit",
                        Code.OK,
                        "xxxxab",
                        6,
                        BROKEN,
                        BROKEN,
                        Answer.limited(1),
                        BROKEN,
                        BROKEN,
                        BEGUN),
                of("older server", Code.OK, "", 2, Answer.refused(Code.UNIMPLEMENTED), Answer.done()),
                of("no result", Code.INTERNAL, "x", 1, Answer.nothing().reporting("x")));
    }

    @ParameterizedTest
    @MethodSource("cases")
    void reports(Case each) throws IOException {
        try (FakeService service = new FakeService(each.answers().toArray(Answer[]::new));
                Client client = each.change().apply(Client.to(service.target())).build()) {
            List<String> texts = new ArrayList<>();
            var options = OPTIONS.withProgress(progress -> texts.add(progress.getText()));
            if (each.code() == Code.OK) {
                assertEquals(
                        "done",
                        client.callTool(request(), options)
                                .getStructuredContent()
                                .getStringValue());
            } else {
                var failure = assertThrows(CallException.class, () -> client.callTool(request(), options));
                assertEquals(each.code(), failure.code());
            }
            assertEquals(each.texts(), String.join("", texts));
            assertEquals(each.attempts(), service.arrivals.size());
            var ids = service.arrivals.stream()
                    .map(arrival -> arrival.request().getRequestId())
                    .collect(Collectors.toSet());
            assertEquals(1, ids.size());
        }
    }

    private static CallToolRequest request() {
        return Client.request("tools.x.y.z", Map.of("a", 1));
    }

    @Test
    void streamThatBreaksIsInDoubt() throws IOException {
        try (FakeService service = new FakeService(BROKEN);
                Client client = Client.to(service.target()).disableRetries().build()) {
            var request = request();
            var failure = assertThrows(
                    CallException.class, () -> client.callTool(request, OPTIONS.withProgress(progress -> {})));
            assertFalse(failure.notRun());
            assertTrue(failure.getMessage()
                    .endsWith("To get its result, send it again with request_id " + request.getRequestId() + "."));
        }
    }

    @Test
    void closingEndsTheStream() throws Exception {
        for (boolean retries : List.of(true, false)) {
            try (FakeService service = new FakeService(ENDLESS)) {
                var builder = Client.to(service.target());
                Client client = (retries ? builder : builder.disableRetries()).build();
                var options = OPTIONS.withProgress(progress -> client.close());
                var failure = assertThrows(CallException.class, () -> client.callTool(request(), options));
                assertEquals(Code.CANCELLED, failure.code());
                assertTrue(failure.description().startsWith("The client was closed"), failure::getMessage);
                assertFalse(failure.notRun());
                service.awaitCancellation();
                assertEquals(1, service.arrivals.size());
            }
        }
    }

    @Test
    void futureThatIsCancelledEndsTheStream() throws Exception {
        try (FakeService service = new FakeService(ENDLESS);
                Client client = Client.to(service.target()).build()) {
            var reported = new CompletableFuture<Progress>();
            var call = client.callToolAsync(request(), OPTIONS.withProgress(reported::complete));
            reported.get(20, TimeUnit.SECONDS);
            call.cancel(true);
            service.awaitCancellation();
            assertEquals(1, service.arrivals.size());
        }
    }

    @Test
    void contextThatIsCancelledEndsTheStream() throws Exception {
        try (FakeService service = new FakeService(ENDLESS);
                Client client = Client.to(service.target()).build();
                var context = Context.current().withCancellation()) {
            var options = OPTIONS.withProgress(progress -> context.cancel(null));
            var call = context.call(() -> client.callToolAsync(request(), options));
            var failure = assertThrows(ExecutionException.class, () -> call.get(20, TimeUnit.SECONDS));
            assertEquals(
                    Code.CANCELLED,
                    assertInstanceOf(CallException.class, failure.getCause()).code());
            assertEquals(1, service.arrivals.size());
        }
    }

    @Test
    void consumerThatThrowsEndsTheCall() throws Exception {
        for (Throwable thrown : List.of(new IllegalStateException("no"), new StackOverflowError("no"))) {
            try (FakeService service = new FakeService(Answer.never().reporting("x", "y"));
                    Client client = Client.to(service.target()).build()) {
                var texts = new CopyOnWriteArrayList<String>();
                var call = client.callToolAsync(request(), OPTIONS.withProgress(progress -> {
                    texts.add(progress.getText());
                    ToolCallTest.unchecked(thrown);
                }));
                var failure = assertThrows(ExecutionException.class, () -> call.get(20, TimeUnit.SECONDS));
                assertSame(thrown, failure.getCause());
                service.awaitCancellation();
                assertEquals(List.of("x"), texts);
            }
        }
    }

    /** What a callback throws points to where it was thrown. */
    @Test
    void consumerThatThrowsOutOfABlockingCall() throws Exception {
        try (FakeService service = new FakeService(ENDLESS);
                Client client = Client.to(service.target()).build()) {
            var options = OPTIONS.withProgress(ProgressTest::fail);
            var thrown = assertThrows(IllegalStateException.class, () -> client.callTool(request(), options));
            assertEquals("fail", thrown.getStackTrace()[0].getMethodName());
            var error = new AssertionError("x");
            var failing = OPTIONS.withProgress(progress -> ToolCallTest.unchecked(error));
            assertSame(error, assertThrows(AssertionError.class, () -> client.callTool(request(), failing)));
        }
    }

    private static void fail(Progress progress) {
        throw new IllegalStateException(progress.getText());
    }

    @Test
    void slowConsumerGetsTheResult() throws IOException {
        String[] texts = new String[20];
        Arrays.fill(texts, "x");
        try (FakeService service = new FakeService(Answer.done().reporting(texts));
                Client client = Client.to(service.target()).build()) {
            var came = new CopyOnWriteArrayList<Progress>();
            client.callTool(request(), OPTIONS.withProgress(progress -> {
                pause();
                came.add(progress);
            }));
            assertEquals(20, came.size());
        }
    }

    private static void pause() {
        try {
            Thread.sleep(10);
        } catch (InterruptedException interrupted) {
            throw new IllegalStateException(interrupted);
        }
    }

    @Test
    void backoffFollowsTheServiceConfig() {
        var policy = ServiceConfig.streams();
        assertEquals(5, policy.maxAttempts());
        long[] expected = {100, 200, 400, 800, 1600, 2000, 2000};
        for (int repeats = 0; repeats < expected.length; repeats++) {
            long millis = policy.backoff(repeats).toMillis();
            assertTrue(Math.abs(millis - expected[repeats]) <= 0.2 * expected[repeats] + 1, millis + " ms");
        }
    }
}
