package ai.agenta.ai;

import ai.agenta.ai.v1.CallToolResponse;
import ai.agenta.ai.v1.ErrorReason;
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
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/** One call of a tool, which comes back after a rate limit if it is to wait for that. */
final class ToolCall<Q extends Message, A extends Message> {
    /** The largest request that the service accepts. */
    static final int MAX_REQUEST_BYTES = 1 << 20;

    private static final Metadata.Key<String> PUSHBACK =
            Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER);
    private static final Duration SHORTEST_WAIT = Duration.ofMillis(100);

    private final Channel channel;
    private final MethodDescriptor<Q, A> method;
    private final Q request;
    private final CallOptions options;
    private final ToolCallOptions more;
    private final boolean waitForLimit;
    private final Deadline deadline;
    private final Context caller = Context.current();
    private final CompletableFuture<A> result = new CompletableFuture<>();
    // Null between two attempts.
    private @Nullable ClientCall<Q, A> current;
    private boolean closed;
    // What became of the attempts before the current one.
    private volatile Outcome.Kind before = Outcome.Kind.UNSENT;

    ToolCall(Channel channel, MethodDescriptor<Q, A> method, Q request, ToolCallOptions more, boolean waitForLimit) {
        this.channel = channel;
        this.method = method;
        this.request = more.rerunIfOutcomeUnknown() ? TypedMethods.rerun(request) : request;
        this.deadline =
                Detached.earlier(Deadline.after(more.timeout().toNanos(), TimeUnit.NANOSECONDS), caller.getDeadline());
        this.options =
                CallOptions.DEFAULT.withCallCredentials(more.credentials()).withDeadline(deadline);
        this.more = more;
        this.waitForLimit = waitForLimit;
    }

    /** Makes the call. To cancel the future cancels the call. */
    CompletableFuture<A> start() {
        int bytes = request.getSerializedSize();
        if (bytes > MAX_REQUEST_BYTES) {
            end(tooLarge(bytes));
            return result;
        }
        result.whenComplete((response, failure) -> cancel(failure));
        attempt();
        return result;
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

    /** Ends the call, if it waits for a limit. The channel ends its attempts. */
    void close() {
        boolean waits;
        synchronized (this) {
            closed = true;
            waits = current == null;
        }
        if (waits) {
            end(Closing.WHILE_WAITING.asRuntimeException());
        }
    }

    private void end(StatusRuntimeException thrown) {
        result.completeExceptionally(new CallException(thrown, TypedMethods.requestId(request), before));
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
            var call = channel.newCall(method, options);
            current = call;
            Metadata headers = new Metadata();
            headers.merge(more.headers());
            call.start(new Listener(), headers);
            call.sendMessage(request);
            call.halfClose();
            call.request(2);
        });
    }

    private void ended(Status status, Metadata trailers, @Nullable A response) {
        try {
            more.onTrailers().accept(trailers);
        } catch (Throwable failure) { // or the call would never end
            result.completeExceptionally(failure);
            return;
        }
        if (!status.isOk()) {
            refused(
                    new CallException(status.asRuntimeException(trailers), TypedMethods.requestId(request), before),
                    trailers);
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
        Duration wait = waitForLimit ? wait(failure, trailers) : null;
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
        CompletableFuture.runAsync(
                        this::attempt, CompletableFuture.delayedExecutor(wait.toNanos(), TimeUnit.NANOSECONDS))
                .exceptionally(failure -> {
                    result.completeExceptionally(failure);
                    return null;
                });
    }

    /**
     * How long to wait for the limit. Null: the call isn't limited, or would have to wait for longer than it has time. As long
     * as the server says and up to as much again, so that calls that were refused together come back one by one.
     */
    private @Nullable Duration wait(CallException failure, Metadata trailers) {
        if (failure.reason() != ErrorReason.ERROR_REASON_RATE_LIMITED || isForbidden(trailers.get(PUSHBACK))) {
            return null;
        }
        Duration told = failure.retryDelay().compareTo(SHORTEST_WAIT) > 0 ? failure.retryDelay() : SHORTEST_WAIT;
        long spare = deadline.timeRemaining(TimeUnit.NANOSECONDS) - told.toNanos();
        if (spare <= 0) {
            return null;
        }
        double jitter = ThreadLocalRandom.current().nextDouble() * Math.min(told.toNanos(), spare / 2);
        return told.plusNanos((long) jitter);
    }

    /** Whether the server says that there is to be no other attempt. */
    private static boolean isForbidden(@Nullable String pushback) {
        return pushback != null && pushback.startsWith("-");
    }

    private final class Listener extends ClientCall.Listener<A> {
        private @Nullable A response;

        @Override
        public void onMessage(A message) {
            response = message;
        }

        @Override
        public void onClose(Status status, Metadata trailers) {
            ended(status, trailers, response);
        }
    }
}
