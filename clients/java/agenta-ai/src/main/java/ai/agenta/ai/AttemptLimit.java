package ai.agenta.ai;

import io.grpc.ClientStreamTracer;
import io.grpc.Metadata;
import io.grpc.Status;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * Counts the attempts that grpc-java makes for one of its calls, and keeps it from making more than a limit. grpc-java itself
 * has a limit for each of its calls, and a call of a tool that is sent again has several of them.
 */
final class AttemptLimit extends ClientStreamTracer.Factory {
    static final int NONE = Integer.MAX_VALUE;

    private final int limit;
    private final Consumer<Status> exhausted;
    private final AtomicInteger made = new AtomicInteger();
    private volatile Status last = Status.UNAVAILABLE;
    private volatile @Nullable String pushback;
    private volatile boolean hasReplaced;

    /**
     * @param limit 1 or more
     * @param exhausted takes the status of the last attempt when grpc-java is about to schedule one more. It must end the call
     *     before the backoff is over, on another thread
     */
    AttemptLimit(int limit, Consumer<Status> exhausted) {
        this.limit = limit;
        this.exhausted = exhausted;
    }

    int made() {
        return Math.min(made.get(), limit);
    }

    /** Puts back what the server said and grpc-java was not to read. */
    void restore(Metadata trailers) {
        if (hasReplaced) {
            trailers.discardAll(ToolCall.PUSHBACK);
            if (pushback != null) {
                trailers.put(ToolCall.PUSHBACK, pushback);
            }
        }
    }

    @Override
    public ClientStreamTracer newClientStreamTracer(ClientStreamTracer.StreamInfo info, Metadata headers) {
        // One that is sent again transparently never arrived, and is no attempt.
        int number = info.isTransparentRetry() ? made.get() : made.incrementAndGet();
        // grpc-java asks for a tracer before its backoff.
        if (number > limit) {
            exhausted.accept(last);
        }
        return number < limit ? Reconnecting.NO_TRACER : new Last();
    }

    private final class Last extends ClientStreamTracer {
        private @Nullable Metadata trailers;

        @Override
        public void inboundTrailers(Metadata received) {
            trailers = received;
        }

        // Comes after the trailers and before grpc-java reads them.
        @Override
        public void streamClosed(Status status) {
            last = status;
            if (trailers != null && ServiceConfig.REPEATED.contains(status.getCode())) {
                // A server may name so short a backoff that the call can't be ended meanwhile.
                pushback = trailers.get(ToolCall.PUSHBACK);
                trailers.discardAll(ToolCall.PUSHBACK);
                trailers.put(ToolCall.PUSHBACK, "-1");
                hasReplaced = true;
            }
        }
    }
}
