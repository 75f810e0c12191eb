package ai.agenta.ai;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.ForwardingClientCallListener.SimpleForwardingClientCallListener;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.util.concurrent.atomic.AtomicBoolean;

/** Says of calls that end because the client was closed, or begin after that, that this is why. */
final class Closing implements ClientInterceptor {
    static final Status DURING = Status.CANCELLED.withDescription("The client was closed");
    static final Status WHILE_WAITING = Outcome.mark(
            Status.CANCELLED.withDescription("The client was closed while the call waited to be sent again"),
            Outcome.Kind.REFUSED);
    static final Status AFTER =
            Outcome.mark(Status.CANCELLED.withDescription("The client is closed"), Outcome.Kind.UNSENT);

    private final AtomicBoolean closed = new AtomicBoolean();

    /** Notes that the client is closed. */
    void close() {
        closed.set(true);
    }

    boolean isClosed() {
        return closed.get();
    }

    @Override
    public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
        boolean late = isClosed();
        return new SimpleForwardingClientCall<>(next.newCall(method, options)) {
            @Override
            public void start(Listener<A> listener, Metadata headers) {
                super.start(
                        new SimpleForwardingClientCallListener<>(listener) {
                            @Override
                            public void onClose(Status status, Metadata trailers) {
                                super.onClose(late ? AFTER : explained(status), trailers);
                            }
                        },
                        headers);
            }
        };
    }

    private Status explained(Status status) {
        return switch (status.getCode()) {
            case UNAVAILABLE, CANCELLED -> isClosed() ? DURING.withCause(status.getCause()) : status;
            default -> status;
        };
    }
}
