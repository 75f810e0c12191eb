package ai.agenta.ai;

import static org.junit.jupiter.api.Assertions.assertTrue;

import ai.agenta.ai.v1.CallToolRequest;
import ai.agenta.ai.v1.CallToolResponse;
import ai.agenta.ai.v1.CallToolStreamRequest;
import ai.agenta.ai.v1.CallToolStreamResponse;
import ai.agenta.ai.v1.Progress;
import ai.agenta.ai.v1.StatusRequest;
import ai.agenta.ai.v1.StatusResponse;
import ai.agenta.ai.v1.ToolServiceGrpc;
import com.google.protobuf.Any;
import com.google.protobuf.Message;
import com.google.protobuf.Value;
import com.google.protobuf.util.Durations;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerBuilder;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerCredentials;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.protobuf.StatusProto;
import io.grpc.protobuf.services.HealthStatusManager;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Deque;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;

/** A real server on loopback that answers each attempt with the next of its answers, and stays with the last. */
final class FakeService extends ToolServiceGrpc.ToolServiceImplBase implements ServerInterceptor, AutoCloseable {
    private static final Metadata.Key<String> PUSHBACK =
            Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER);
    private static final Metadata.Key<String> AUTHORIZATION =
            Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
    private static final Metadata.Key<String> TRACE = Metadata.Key.of("traceparent", Metadata.ASCII_STRING_MARSHALLER);
    private static final Metadata.Key<String> USER_AGENT =
            Metadata.Key.of("user-agent", Metadata.ASCII_STRING_MARSHALLER);
    private static final Context.Key<Metadata> HEADERS = Context.key("headers");

    /**
     * A response, or an error, or neither: then no answer comes. A stream reports progress first, and may have both, or
     * end with nothing.
     */
    record Answer(CallToolResponse response, StatusRuntimeException error, boolean ends, List<String> progress) {
        Answer(CallToolResponse response, StatusRuntimeException error) {
            this(response, error, response != null || error != null, List.of());
        }

        static Answer never() {
            return new Answer(null, null);
        }

        static Answer nothing() {
            return new Answer(null, null, true, List.of());
        }

        Answer reporting(String... texts) {
            return new Answer(response, error, ends, List.of(texts));
        }

        Answer with(Answer other) {
            return new Answer(other.response, error, ends, progress);
        }

        /** A rate limit that asks to come back after some milliseconds. */
        static Answer limited(long millis) {
            return limited(millis, Long.toString(millis));
        }

        static Answer limited(long millis, String pushback) {
            var refusal = refused(
                    Status.Code.RESOURCE_EXHAUSTED,
                    ErrorInfo.newBuilder()
                            .setReason("ERROR_REASON_RATE_LIMITED")
                            .setDomain("agenta.ai")
                            .build(),
                    RetryInfo.newBuilder()
                            .setRetryDelay(Durations.fromMillis(millis))
                            .build());
            refusal.error.getTrailers().put(PUSHBACK, pushback);
            return refusal;
        }

        static Answer done() {
            return of(Value.newBuilder().setStringValue("done").build());
        }

        static Answer of(Value content) {
            return new Answer(
                    CallToolResponse.newBuilder().setStructuredContent(content).build(), null);
        }

        static Answer refused(Status.Code code, Message... details) {
            var status = com.google.rpc.Status.newBuilder()
                    .setCode(code.value())
                    .setMessage("No.")
                    .addAllDetails(Arrays.stream(details).map(Any::pack).toList());
            return new Answer(null, StatusProto.toStatusRuntimeException(status.build()));
        }

        static Answer refused(Status.Code code, String pushback) {
            Metadata trailers = new Metadata();
            trailers.put(PUSHBACK, pushback);
            return new Answer(null, code.toStatus().withDescription("No.").asRuntimeException(trailers));
        }
    }

    /** One attempt as the server saw it. */
    record Arrival(
            CallToolRequest request,
            Instant at,
            Duration left,
            Optional<String> authorization,
            Optional<String> traceparent,
            Optional<String> userAgent) {}

    /** A moment, by the clock that never jumps. */
    record Instant(long nanos) {
        static Instant now() {
            return new Instant(System.nanoTime());
        }

        Duration since(Instant earlier) {
            return Duration.ofNanos(nanos - earlier.nanos);
        }
    }

    final List<Arrival> arrivals = Collections.synchronizedList(new ArrayList<>());
    private final Semaphore arrived = new Semaphore(0);
    private final Semaphore cancelled = new Semaphore(0);
    private Bucket bucket;
    private final HealthStatusManager health = new HealthStatusManager();
    private final Deque<Answer> answers;
    private final Server server;

    FakeService(Answer... answers) throws IOException {
        this(InsecureServerCredentials.create(), answers);
    }

    FakeService(ServerCredentials credentials, Answer... answers) throws IOException {
        this(NettyServerBuilder.forAddress(new InetSocketAddress("127.0.0.1", 0), credentials), answers);
    }

    FakeService(ServerBuilder<?> builder, Answer... answers) throws IOException {
        this.answers = new ArrayDeque<>(List.of(answers));
        health(ServingStatus.SERVING);
        server = builder.addService(health.getHealthService())
                .addService(this)
                .intercept(this)
                .build()
                .start();
    }

    /** One that lets some calls in at once, and then so many each second. */
    static FakeService limited(int burst, int perSecond) throws IOException {
        FakeService service = new FakeService(Answer.done());
        service.bucket = new Bucket(burst, perSecond);
        return service;
    }

    /** Waits until a call has arrived that wasn't waited for before. */
    void awaitArrival() throws InterruptedException {
        assertTrue(arrived.tryAcquire(20, TimeUnit.SECONDS), "no call arrived");
    }

    /** Waits until a call has ended by its caller. */
    void awaitCancellation() throws InterruptedException {
        assertTrue(cancelled.tryAcquire(20, TimeUnit.SECONDS), "no call was cancelled");
    }

    /** A token bucket. */
    private static final class Bucket {
        private final int burst;
        private final int perSecond;
        private final long began = System.nanoTime();
        private long taken;

        Bucket(int burst, int perSecond) {
            this.burst = burst;
            this.perSecond = perSecond;
        }

        /** Milliseconds to wait for a place; 0 if it was taken. */
        long take() {
            double filled = burst + (System.nanoTime() - began) / 1e9 * perSecond;
            if (taken + 1 <= filled) {
                taken++;
                return 0;
            }
            return (long) Math.ceil((taken + 1 - filled) * 1000 / perSecond);
        }
    }

    void health(ServingStatus status) {
        health.setStatus(ToolServiceGrpc.SERVICE_NAME, status);
    }

    String target() {
        return "127.0.0.1:" + server.getPort();
    }

    @Override
    public <Q, A> ServerCall.Listener<Q> interceptCall(
            ServerCall<Q, A> call, Metadata headers, ServerCallHandler<Q, A> next) {
        Context context = Context.current().withValue(HEADERS, headers);
        return io.grpc.Contexts.interceptCall(context, call, headers, next);
    }

    @Override
    public void callTool(CallToolRequest request, StreamObserver<CallToolResponse> observer) {
        Answer answer = next(request);
        if (answer.error != null) {
            observer.onError(answer.error);
            return;
        }
        if (answer.response != null) {
            observer.onNext(answer.response);
            observer.onCompleted();
        }
    }

    @Override
    public void callToolStream(CallToolStreamRequest request, StreamObserver<CallToolStreamResponse> observer) {
        Answer answer = next(CallToolRequest.newBuilder()
                .setName(request.getName())
                .setArguments(request.getArguments())
                .setRequestId(request.getRequestId())
                .build());
        for (String text : answer.progress) {
            observer.onNext(CallToolStreamResponse.newBuilder()
                    .setProgress(Progress.newBuilder().setText(text))
                    .build());
        }
        if (answer.response != null) {
            observer.onNext(CallToolStreamResponse.newBuilder()
                    .setResult(answer.response)
                    .build());
        }
        if (answer.error != null) {
            observer.onError(answer.error);
        } else if (answer.ends) {
            observer.onCompleted();
        }
    }

    @Override
    public void status(StatusRequest request, StreamObserver<StatusResponse> observer) {
        Answer answer = next(CallToolRequest.getDefaultInstance());
        if (answer.error != null) {
            observer.onError(answer.error);
            return;
        }
        observer.onNext(StatusResponse.newBuilder().setEnabled(true).build());
        observer.onCompleted();
    }

    private synchronized Answer next(CallToolRequest request) {
        Deadline deadline = Context.current().getDeadline();
        Duration left = Duration.ofNanos(deadline == null ? 0 : deadline.timeRemaining(TimeUnit.NANOSECONDS));
        Metadata headers = HEADERS.get();
        arrivals.add(new Arrival(
                request,
                Instant.now(),
                left,
                Optional.ofNullable(headers.get(AUTHORIZATION)),
                Optional.ofNullable(headers.get(TRACE)),
                Optional.ofNullable(headers.get(USER_AGENT))));
        Context.current().addListener(context -> cancelled.release(), Runnable::run);
        arrived.release();
        if (bucket != null) {
            long wait = bucket.take();
            return wait == 0 ? Answer.done() : Answer.limited(wait);
        }
        return answers.size() > 1 ? answers.remove() : answers.element();
    }

    @Override
    public void close() {
        server.shutdownNow();
    }
}
