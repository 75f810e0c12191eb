package ai.agenta.ai;

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
final class Pushback extends ClientStreamTracer.Factory implements ClientInterceptor {
    private static final Metadata.Key<String> PUSHBACK =
            Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER);

    private final Set<Status.Code> repeated;

    Pushback(Set<Status.Code> repeated) {
        this.repeated = repeated;
    }

    @Override
    public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
        return next.newCall(method, options.withStreamTracerFactory(this));
    }

    @Override
    public ClientStreamTracer newClientStreamTracer(ClientStreamTracer.StreamInfo info, Metadata headers) {
        return new ClientStreamTracer() {
            private Metadata trailers = new Metadata();

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
        };
    }
}
