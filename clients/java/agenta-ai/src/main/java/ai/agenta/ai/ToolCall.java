package ai.agenta.ai;

import static java.util.concurrent.TimeUnit.NANOSECONDS;

import ai.agenta.ai.ServiceConfig.RetryPolicy;
import ai.agenta.ai.v1.CallToolRequest;
import ai.agenta.ai.v1.CallToolResponse;
import ai.agenta.ai.v1.CallToolStreamRequest;
import ai.agenta.ai.v1.CallToolStreamResponse;
import ai.agenta.ai.v1.ErrorReason;
import ai.agenta.ai.v1.Progress;
import ai.agenta.ai.v1.ToolServiceGrpc;
import com.google.protobuf.Any;
import com.google.protobuf.Message;
import com.google.rpc.ErrorInfo;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.Locale;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ThreadLocalRandom;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/**
 * One call of a tool, over all its attempts that grpc-java doesn't make itself: after a rate limit, if it is to wait for that,
 * and after the stream of one that reports progress broke, or the connection while it was written to.
 */
final class ToolCall<Q extends Message, A extends Message> {
    /** The largest request that the service accepts. */
    static final int MAX_REQUEST_BYTES = 1 << 20;

    /** The milliseconds after which a server wants another attempt; negative if it wants none. */
    static final Metadata.Key<String> PUSHBACK =
            Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER);

    private static final Duration SHORTEST_WAIT = Duration.ofMillis(100);
    /**
     * When grpc-java has scheduled an attempt for which it has asked for a tracer. Before that, the end of the call doesn't keep it
     * from sending the headers, and after 80 milliseconds or more it sends the request.
     */
    private static final Duration SCHEDULED = Duration.ofMillis(10);

    private final Channel channel;
    private final MethodDescriptor<Q, A> method;
    private final Q request;
    private final CallOptions options;
    private final ToolCallOptions more;
    private final boolean waitForLimit;
    private final RetryPolicy own;
    private RetryPolicy policy;
    private boolean streams;
    // Attempts that failed since the last rate limit.
    private int lost;
    private AttemptLimit limit = new AttemptLimit(AttemptLimit.NONE, status -> {});
    private final Deadline deadline;
    private final Context caller = Context.current();
    private final CompletableFuture<A> result = new CompletableFuture<>();
    // Null between two attempts.
    private @Nullable ClientCall<?, ?> current;
    private boolean closed;
    // The status of the last attempt, if the call was cancelled because none is left.
    private volatile @Nullable Status givenUp;
    // What became of the attempts before the current one.
    private volatile Outcome.Kind before = Outcome.Kind.UNSENT;

    ToolCall(
            Channel channel,
            MethodDescriptor<Q, A> method,
            Q request,
            ToolCallOptions more,
            boolean waitForLimit,
            RetryPolicy streams) {
        this.channel = channel;
        this.method = method;
        this.request = more.rerunIfOutcomeUnknown() ? TypedMethods.rerun(request) : request;
        this.deadline = Detached.earlier(
                Deadline.after(NANOSECONDS.convert(more.timeout()), NANOSECONDS), caller.getDeadline());
        this.options =
                CallOptions.DEFAULT.withCallCredentials(more.credentials()).withDeadline(deadline);
        this.more = more;
        this.waitForLimit = waitForLimit;
        this.streams = more.onProgress() != null && request instanceof CallToolRequest;
        this.own = streams;
        this.policy = this.streams ? streams : RetryPolicy.NEVER;
    }

    /** What the call ends with. To cancel it cancels the call. */
    CompletableFuture<A> result() {
        return result;
    }

    /** Makes the call. */
    void start() {
        int bytes = request.getSerializedSize();
        if (bytes > MAX_REQUEST_BYTES) {
            end(tooLarge(bytes));
            return;
        }
        result.whenComplete((response, failure) -> cancel(failure));
        try {
            attempt();
        } catch (Throwable failure) { // of an interceptor
            result.completeExceptionally(failure);
        }
    }

    private static StatusRuntimeException tooLarge(int bytes) {
        String message = String.format(
                Locale.ROOT,
                "The request has %,d bytes, and %,d are allowed: shorten its arguments",
                bytes,
                MAX_REQUEST_BYTES);
        var info = ErrorInfo.newBuilder()
                .setDomain(CallException.DOMAIN)
                .setReason(ErrorReason.ERROR_REASON_REQUEST_TOO_LARGE.name());
        var trailers = StatusProto.toStatusRuntimeException(com.google.rpc.Status.newBuilder()
                        .setCode(Status.Code.INVALID_ARGUMENT.value())
                        .setMessage(message)
                        .addDetails(Any.pack(info.build()))
                        .build())
                .getTrailers();
        return Outcome.mark(Status.INVALID_ARGUMENT.withDescription(message), Outcome.Kind.UNSENT)
                .asRuntimeException(trailers);
    }

    /** Ends the call, after the channel has ended those that are on a connection. */
    void close() {
        synchronized (this) {
            closed = true;
            if (current != null) {
                // It may still wait for its credentials.
                current.cancel("the client was closed", null);
                return;
            }
        }
        end(Closing.WHILE_WAITING.asRuntimeException());
    }

    /** Ends the call for a thread that no longer waits for it. */
    CallException interrupt(InterruptedException interrupted) {
        boolean waits;
        synchronized (this) {
            waits = current == null;
        }
        result.cancel(true);
        Status status =
                Status.CANCELLED.withDescription("The thread was interrupted").withCause(interrupted);
        return failure((waits ? Outcome.mark(status, Outcome.Kind.REFUSED) : status).asRuntimeException());
    }

    private void end(StatusRuntimeException thrown) {
        result.completeExceptionally(failure(thrown));
    }

    private CallException failure(StatusRuntimeException thrown) {
        return new CallException(thrown, TypedMethods.requestId(request), before);
    }

    private synchronized void cancel(@Nullable Throwable failure) {
        if (failure != null && current != null) {
            current.cancel("the call was cancelled", failure);
        }
    }

    private synchronized void attempt() {
        if (result.isDone()) { // while it waited
            return;
        }
        caller.run(() -> {
            if (streams) {
                start(ToolServiceGrpc.getCallToolStreamMethod(), streamed((CallToolRequest) request), Streaming::new);
            } else {
                start(method, request, call -> new Unary());
            }
        });
    }

    private <T, R> void start(
            MethodDescriptor<T, R> method, T message, Function<ClientCall<T, R>, ClientCall.Listener<R>> listener) {
        // grpc-java itself limits the first call, also after a rate limit, and never repeats a stream.
        limit = new AttemptLimit(streams || lost == 0 ? AttemptLimit.NONE : own.maxAttempts() - lost, this::giveUp);
        var call = channel.newCall(method, options.withStreamTracerFactory(limit));
        current = call;
        Metadata headers = new Metadata();
        headers.merge(more.headers());
        call.start(listener.apply(call), headers);
        call.sendMessage(message);
        call.halfClose();
        call.request(2);
    }

    private void giveUp(Status last) {
        givenUp = last;
        after(SCHEDULED, () -> cancel(last.asRuntimeException()));
    }

    private static CallToolStreamRequest streamed(CallToolRequest request) {
        var streamed = CallToolStreamRequest.newBuilder()
                .setName(request.getName())
                .setRequestId(request.getRequestId())
                .setRerunIfOutcomeUnknown(request.getRerunIfOutcomeUnknown());
        if (request.hasArguments()) {
            streamed.setArguments(request.getArguments());
        }
        return streamed.build();
    }

    private void report(Progress progress) {
        if (result.isDone()) {
            return;
        }
        try {
            more.onProgress().accept(progress);
        } catch (Throwable failure) { // which ends the call
            result.completeExceptionally(failure);
        }
    }

    private void ended(Status status, Metadata trailers, @Nullable A response) {
        limit.restore(trailers);
        try {
            more.onTrailers().accept(trailers);
            conclude(status, trailers, response);
        } catch (Throwable failure) { // or the call would never end
            result.completeExceptionally(failure);
        }
    }

    private void conclude(Status status, Metadata trailers, @Nullable A response) {
        if (!status.isOk()) {
            refused(failure(status.asRuntimeException(trailers)), trailers);
        } else if (response == null) {
            end(Status.INTERNAL.withDescription("The server sent no response").asRuntimeException());
        } else {
            CallToolResponse failed = TypedMethods.failed(response);
            if (failed == null) {
                result.complete(response);
            } else {
                result.completeExceptionally(new ToolException(failed, TypedMethods.requestId(request)));
            }
        }
    }

    private void refused(CallException failure, Metadata trailers) {
        if (streams && failure.code() == Status.Code.UNIMPLEMENTED) {
            // The server is older than the method.
            streams = false;
            policy = RetryPolicy.NEVER;
            attempt();
            return;
        }
        Duration wait = wait(failure, trailers);
        if (wait == null) {
            result.completeExceptionally(failure);
            return;
        }
        before = failure.outcome();
        comeBackAfter(wait);
    }

    private void comeBackAfter(Duration wait) {
        boolean late;
        synchronized (this) {
            current = null;
            late = closed;
        }
        if (late) {
            end(Closing.WHILE_WAITING.asRuntimeException());
            return;
        }
        after(wait, this::attempt).exceptionally(failure -> {
            result.completeExceptionally(failure);
            return null;
        });
    }

    private static CompletableFuture<Void> after(Duration wait, Runnable work) {
        return CompletableFuture.runAsync(
                work, CompletableFuture.delayedExecutor(wait.toNanos(), NANOSECONDS, ToolCall::run));
    }

    /** On a thread of its own: those of the common pool may all be busy until long after the deadline. */
    private static void run(Runnable work) {
        Thread thread = new Thread(work, "agenta-ai-attempt");
        thread.setDaemon(true);
        thread.start();
    }

    /** How long to wait until the call is sent again. Null: it isn't. */
    private @Nullable Duration wait(CallException failure, Metadata trailers) {
        Duration told = pushback(trailers);
        if (told != null && told.isNegative()) {
            return null;
        }
        if (failure.reason() == ErrorReason.ERROR_REASON_RATE_LIMITED) {
            lost = 0;
            return waitForLimit ? waitForLimit(failure) : null;
        }
        RetryPolicy policy = Attempts.brokeWhileWriting(failure) ? own : this.policy;
        // An interceptor may end a call before its first attempt.
        lost += Math.max(limit.made(), 1);
        if (lost >= policy.maxAttempts() || !ServiceConfig.REPEATED.contains(failure.code()) || caller.isCancelled()) {
            return null;
        }
        Duration wait = told == null ? policy.backoff(lost - 1) : told;
        Duration left = Duration.ofNanos(deadline.timeRemaining(NANOSECONDS));
        return wait.compareTo(left) < 0 ? wait : left;
    }

    /**
     * How long to wait for the limit. Null: the call would have to wait for longer than it has time. As long as the server says
     * and up to as much again, so that calls that were refused together come back one by one.
     */
    private @Nullable Duration waitForLimit(CallException failure) {
        Duration told = failure.retryDelay().compareTo(SHORTEST_WAIT) > 0 ? failure.retryDelay() : SHORTEST_WAIT;
        long nanos = NANOSECONDS.convert(told);
        long left = deadline.timeRemaining(NANOSECONDS);
        if (nanos >= left) {
            return null;
        }
        double jitter = ThreadLocalRandom.current().nextDouble() * Math.min(nanos, (left - nanos) / 2);
        return told.plusNanos((long) jitter);
    }

    /** The time after which the server wants another attempt, negative if it wants none. Null: it doesn't say. */
    private static @Nullable Duration pushback(Metadata trailers) {
        String millis = trailers.get(PUSHBACK);
        try {
            return millis == null ? null : Duration.ofMillis(Integer.parseInt(millis));
        } catch (NumberFormatException unreadable) { // grpc-java reads it as never, too
            return Duration.ofMillis(-1);
        }
    }

    private final class Unary extends ClientCall.Listener<A> {
        private @Nullable A response;

        @Override
        public void onMessage(A message) {
            response = message;
        }

        @Override
        public void onClose(Status status, Metadata trailers) {
            Status last = givenUp;
            boolean isOurs = last != null && status.getCode() == Status.Code.CANCELLED;
            ended(isOurs ? Outcome.copy(status, last) : status, trailers, response);
        }
    }

    private final class Streaming extends ClientCall.Listener<CallToolStreamResponse> {
        private final ClientCall<?, ?> call;
        private @Nullable A response;

        Streaming(ClientCall<?, ?> call) {
            this.call = call;
        }

        @Override
        @SuppressWarnings("unchecked") // only CallTool streams
        public void onMessage(CallToolStreamResponse message) {
            switch (message.getEventCase()) {
                case PROGRESS -> report(message.getProgress());
                case RESULT -> response = (A) message.getResult();
                case EVENT_NOT_SET -> {} // of a later version
            }
            call.request(1);
        }

        @Override
        public void onClose(Status status, Metadata trailers) {
            ended(status, trailers, response);
        }
    }
}
