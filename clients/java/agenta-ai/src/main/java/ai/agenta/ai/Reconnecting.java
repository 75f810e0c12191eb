package ai.agenta.ai;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ClientStreamTracer;
import io.grpc.ConnectivityState;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import java.util.Objects;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;

/**
 * Makes a channel without connections connect again at each attempt of a call, so that the next attempt finds a server that is
 * back. grpc-java itself waits up to two minutes, and has no setting for that.
 */
final class Reconnecting extends ClientStreamTracer.Factory implements ClientInterceptor {
    /** Between two reconnects, for all calls together. The retries of a call are further apart. */
    private static final long PAUSE = TimeUnit.MILLISECONDS.toNanos(50);

    static final ClientStreamTracer NO_TRACER = new ClientStreamTracer() {};

    private final AtomicLong last = new AtomicLong(System.nanoTime() - PAUSE);
    private volatile @Nullable ManagedChannel channel;

    /** Sets the channel, which can only be built with this. */
    void setChannel(ManagedChannel channel) {
        this.channel = channel;
    }

    @Override
    public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
        return next.newCall(method, options.withStreamTracerFactory(this));
    }

    // grpc-java asks for one at each attempt, just before it looks for a connection.
    @Override
    public ClientStreamTracer newClientStreamTracer(ClientStreamTracer.StreamInfo info, Metadata headers) {
        ManagedChannel channel = Objects.requireNonNull(this.channel);
        if (channel.getState(false) == ConnectivityState.TRANSIENT_FAILURE && isTime()) {
            channel.resetConnectBackoff();
        }
        return NO_TRACER;
    }

    private boolean isTime() {
        long now = System.nanoTime();
        long before = last.get();
        return now - before >= PAUSE && last.compareAndSet(before, now);
    }
}
