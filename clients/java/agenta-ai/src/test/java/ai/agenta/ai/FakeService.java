package ai.agenta.ai;

import ai.agenta.ai.v1.CallToolRequest;
import ai.agenta.ai.v1.CallToolResponse;
import ai.agenta.ai.v1.StatusRequest;
import ai.agenta.ai.v1.StatusResponse;
import ai.agenta.ai.v1.ToolServiceGrpc;
import com.google.protobuf.Any;
import com.google.protobuf.Message;
import com.google.protobuf.Value;
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
import java.util.concurrent.TimeUnit;

/** A real server on loopback that answers each attempt with the next of its answers, and stays with the last. */
final class FakeService extends ToolServiceGrpc.ToolServiceImplBase implements ServerInterceptor, AutoCloseable {
    private static final Metadata.Key<String> PUSHBACK =
            Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER);
    private static final Metadata.Key<String> AUTHORIZATION =
            Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
    private static final Context.Key<String> CALLER = Context.key("authorization");

    /** A response, or an error. */
    record Answer(CallToolResponse response, StatusRuntimeException error) {
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
    record Arrival(CallToolRequest request, Instant at, Duration left, Optional<String> authorization) {}

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

    void health(ServingStatus status) {
        health.setStatus(ToolServiceGrpc.SERVICE_NAME, status);
    }

    String target() {
        return "127.0.0.1:" + server.getPort();
    }

    @Override
    public <Q, A> ServerCall.Listener<Q> interceptCall(
            ServerCall<Q, A> call, Metadata headers, ServerCallHandler<Q, A> next) {
        Context context = Context.current().withValue(CALLER, headers.get(AUTHORIZATION));
        return io.grpc.Contexts.interceptCall(context, call, headers, next);
    }

    @Override
    public void callTool(CallToolRequest request, StreamObserver<CallToolResponse> observer) {
        Answer answer = next(request);
        if (answer.error != null) {
            observer.onError(answer.error);
            return;
        }
        observer.onNext(answer.response);
        observer.onCompleted();
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
        arrivals.add(new Arrival(request, Instant.now(), left, Optional.ofNullable(CALLER.get())));
        return answers.size() > 1 ? answers.remove() : answers.element();
    }

    @Override
    public void close() {
        server.shutdownNow();
    }
}
