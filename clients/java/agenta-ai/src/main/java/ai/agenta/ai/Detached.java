package ai.agenta.ai;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.Context;
import io.grpc.Deadline;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.ForwardingClientCallListener.SimpleForwardingClientCallListener;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.util.concurrent.Executor;
import java.util.concurrent.atomic.AtomicReference;

/**
 * Keeps the context of a caller from what its call sets off besides itself.
 *
 * <p>The thread of a call may also start the check of a new connection's health. grpc-java would end that check, and the
 * connection would be of no use, as soon as the caller's context ends: in a server, with the request that is being answered.
 * The call itself still ends with the context, and at its deadline.
 */
record Detached() implements ClientInterceptor {
    @Override
    public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
        Context caller = Context.current();
        CallOptions detached = options.withDeadline(earlier(options.getDeadline(), caller.getDeadline()))
                .withExecutor(outside(options.getExecutor()));
        AtomicReference<ClientCall<Q, A>> call = new AtomicReference<>();
        Context.ROOT.run(() -> call.set(next.newCall(method, detached)));
        return new Attached<>(call.get(), caller);
    }

    /** The earlier one of two, of which one may be missing. */
    static Deadline earlier(Deadline one, Deadline other) {
        return one == null || other == null ? (one == null ? other : one) : one.minimum(other);
    }

    /** What a blocking call does in the thread of its caller. The channel's own threads have no context. */
    private static Executor outside(Executor executor) {
        return executor == null ? null : task -> executor.execute(Context.ROOT.wrap(task));
    }

    private static final class Attached<Q, A> extends SimpleForwardingClientCall<Q, A> {
        private final Context caller;
        private final Context.CancellationListener end = this::end;
        private boolean ended;
        private volatile boolean closed;

        Attached(ClientCall<Q, A> call, Context caller) {
            super(call);
            this.caller = caller;
        }

        @Override
        public void start(Listener<A> listener, Metadata headers) {
            Context.ROOT.run(() -> super.start(new InContext<>(listener, caller, this::close), headers));
            caller.addListener(end, Runnable::run);
            if (closed) { // meanwhile
                caller.removeListener(end);
            }
        }

        private void end(Context context) {
            synchronized (this) {
                ended = true;
            }
            cancel("the context of the call was cancelled", context.cancellationCause());
        }

        // To send more after a cancellation is a mistake of the sender's, which doesn't know of this one.
        @Override
        public synchronized void sendMessage(Q message) {
            if (!ended) {
                super.sendMessage(message);
            }
        }

        @Override
        public synchronized void halfClose() {
            if (!ended) {
                super.halfClose();
            }
        }

        private void close() {
            closed = true;
            caller.removeListener(end);
        }
    }

    /** Passes events of the call on in the caller's context, as grpc-java does. */
    private static final class InContext<A> extends SimpleForwardingClientCallListener<A> {
        private final Context caller;
        private final Runnable close;

        InContext(ClientCall.Listener<A> listener, Context caller, Runnable close) {
            super(listener);
            this.caller = caller;
            this.close = close;
        }

        @Override
        public void onHeaders(Metadata headers) {
            caller.run(() -> super.onHeaders(headers));
        }

        @Override
        public void onMessage(A message) {
            caller.run(() -> super.onMessage(message));
        }

        @Override
        public void onClose(Status status, Metadata trailers) {
            close.run();
            caller.run(() -> super.onClose(status, trailers));
        }

        @Override
        public void onReady() {
            caller.run(super::onReady);
        }
    }
}
