package ai.agenta.ai;

import ai.agenta.ai.v1.ToolServiceGrpc;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ClientStreamTracer;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.util.Set;

/**
 * Takes the time for a repeat off each attempt whose status is not to be repeated.
 *
 * <p>grpc-java sends a call again whenever the server names a time for it, whatever statuses the service config has. A client
 * that wasn't asked to wait for a limit would wait.
 */
record Pushback(boolean waitForLimit) implements ClientInterceptor {
    private static final Metadata.Key<String> PUSHBACK =
            Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER);

    @Override
    public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
        boolean waits = waitForLimit
                && method.getFullMethodName()
                        .equals(ToolServiceGrpc.getCallToolMethod().getFullMethodName());
        return next.newCall(method, options.withStreamTracerFactory(new Attempts(ServiceConfig.repeated(waits))));
    }

    private static final class Attempts extends ClientStreamTracer.Factory {
        private final Set<Status.Code> repeated;

        Attempts(Set<Status.Code> repeated) {
            this.repeated = repeated;
        }

        @Override
        public ClientStreamTracer newClientStreamTracer(ClientStreamTracer.StreamInfo info, Metadata headers) {
            return new Attempt(repeated);
        }
    }

    private static final class Attempt extends ClientStreamTracer {
        private final Set<Status.Code> repeated;
        private Metadata trailers = new Metadata();

        Attempt(Set<Status.Code> repeated) {
            this.repeated = repeated;
        }

        @Override
        public void inboundTrailers(Metadata received) {
            trailers = received;
        }

        // Comes after the trailers and before anyone else reads them.
        @Override
        public void streamClosed(Status status) {
            if (!repeated.contains(status.getCode())) {
                trailers.discardAll(PUSHBACK);
            }
        }
    }
}
