package ai.agenta.ai;

import io.grpc.Attributes;
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
import java.nio.channels.ClosedChannelException;
import org.jspecify.annotations.Nullable;

/**
 * Watches the attempts of each call.
 *
 * <p>A status gets an {@link Outcome} if nothing was sent, or if an attempt before the last was lost.
 *
 * <p>grpc-java sends a call again whenever the server names a time for it, whatever statuses the service config has. That time
 * is kept from it after an attempt whose status is not to be repeated.
 */
record Attempts() implements ClientInterceptor {
    private static final String BROKEN = "the connection broke";
    private static final Metadata.Key<byte[]> DETAILS =
            Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

    @Override
    public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
        Tracers tracers = new Tracers();
        return new SimpleForwardingClientCall<>(next.newCall(method, options.withStreamTracerFactory(tracers))) {
            @Override
            public void start(Listener<A> listener, Metadata headers) {
                super.start(
                        new SimpleForwardingClientCallListener<>(listener) {
                            @Override
                            public void onClose(Status status, Metadata trailers) {
                                if (tracers.pushback != null) {
                                    trailers.put(ToolCall.PUSHBACK, tracers.pushback);
                                }
                                super.onClose(tracers.mark(named(status)), trailers);
                            }
                        },
                        headers);
            }
        };
    }

    /** grpc-java has no code for a connection whose end it learns of while it writes. */
    private static Status named(Status status) {
        return status.getCode() == Status.Code.UNKNOWN && status.getCause() instanceof ClosedChannelException
                ? Status.UNAVAILABLE.withDescription(BROKEN).withCause(status.getCause())
                : status;
    }

    /** Whether a call failed in this way, in which grpc-java doesn't send it again. */
    static boolean brokeWhileWriting(CallException failure) {
        return failure.code() == Status.Code.UNAVAILABLE
                && failure.description().equals(BROKEN);
    }

    private static final class Tracers extends ClientStreamTracer.Factory {
        private volatile boolean sent;
        private volatile boolean lost;
        private volatile @Nullable String pushback;

        @Override
        public ClientStreamTracer newClientStreamTracer(ClientStreamTracer.StreamInfo info, Metadata headers) {
            return new Tracer(this);
        }

        Status mark(Status status) {
            if (status.isOk()) {
                return status;
            }
            if (!sent) {
                return Outcome.mark(status, Outcome.Kind.UNSENT);
            }
            return lost ? Outcome.mark(status, Outcome.Kind.OPEN) : status;
        }
    }

    private static final class Tracer extends ClientStreamTracer {
        private final Tracers tracers;
        private Metadata trailers = new Metadata();

        Tracer(Tracers tracers) {
            this.tracers = tracers;
        }

        // On a connection that is ready, for credentials that are there: from here on, headers and message are on their
        // way.
        @Override
        public void streamCreated(Attributes connection, Metadata headers) {
            tracers.sent = true;
        }

        @Override
        public void inboundTrailers(Metadata received) {
            trailers = received;
        }

        // Comes after the trailers and before anyone else reads them.
        @Override
        public void streamClosed(Status status) {
            // A refusal of the service has details, and a server without the method runs nothing.
            boolean refused = trailers.containsKey(DETAILS) || status.getCode() == Status.Code.UNIMPLEMENTED;
            tracers.lost |= !status.isOk() && !refused;
            if (!ServiceConfig.REPEATED.contains(status.getCode())) {
                tracers.pushback = trailers.get(ToolCall.PUSHBACK);
                trailers.discardAll(ToolCall.PUSHBACK);
            }
        }
    }
}
