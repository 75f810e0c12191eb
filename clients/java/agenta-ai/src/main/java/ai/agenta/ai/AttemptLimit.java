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
    private final Consumer<Status> lost;
    private final AtomicInteger made = new AtomicInteger();

    /**
     * @param limit 1 or more
     * @param lost takes the status of a last attempt that ended without an answer, and must end the call, on another thread: else
     *     grpc-java makes one more attempt
     */
    AttemptLimit(int limit, Consumer<Status> lost) {
        this.limit = limit;
        this.lost = lost;
    }

    int made() {
        return made.get();
    }

    @Override
    public ClientStreamTracer newClientStreamTracer(ClientStreamTracer.StreamInfo info, Metadata headers) {
        // One that is sent again transparently never arrived, and is no attempt.
        int number = info.isTransparentRetry() ? made.get() : made.incrementAndGet();
        return number < limit ? new ClientStreamTracer() {} : new Last();
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
            if (!ServiceConfig.REPEATED.contains(status.getCode())) {
                return;
            }
            if (trailers == null) {
                lost.accept(status);
            } else {
                trailers.discardAll(ToolCall.PUSHBACK);
                trailers.put(ToolCall.PUSHBACK, "-1");
            }
        }
    }
}
