package ai.agenta.ai;

import io.grpc.CallCredentials;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.CompositeCallCredentials;
import io.grpc.Grpc;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.SecurityLevel;
import io.grpc.Status;
import java.net.InetSocketAddress;
import java.util.concurrent.Executor;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/** Says who calls, and lets no call out in plaintext to another machine, whatever a name may resolve to. */
final class Credentials extends CallCredentials implements ClientInterceptor {
    private static final Metadata.Key<String> AUTHORIZATION =
            Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

    private final String scheme;
    private final Supplier<? extends @Nullable String> secret;

    /** The secret is asked for with each call; null or an empty one is not sent. */
    Credentials(String scheme, Supplier<? extends @Nullable String> secret) {
        this.scheme = scheme;
        this.secret = secret;
    }

    @Override
    public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
        CallCredentials others = options.getCredentials();
        return next.newCall(
                method,
                options.withCallCredentials(others == null ? this : new CompositeCallCredentials(this, others)));
    }

    @Override
    public void applyRequestMetadata(RequestInfo connection, Executor executor, MetadataApplier applier) {
        if (!isPrivate(connection)) {
            applier.fail(Status.UNAUTHENTICATED.withDescription(
                    "The connection is in plaintext and leads to another machine: use TLS"));
            return;
        }
        executor.execute(() -> apply(applier));
    }

    private void apply(MetadataApplier applier) {
        try {
            applier.apply(headers(secret.get()));
        } catch (UnusableSecret unusable) {
            applier.fail(Status.UNAUTHENTICATED.withDescription(unusable.getMessage()));
        } catch (Throwable failure) { // or the call would hang until its deadline
            // Its text is left to the cause: it may hold a secret.
            applier.fail(Status.UNAUTHENTICATED
                    .withDescription(
                            "The token source failed: " + failure.getClass().getName())
                    .withCause(failure));
        }
    }

    private Metadata headers(@Nullable String said) {
        Metadata headers = new Metadata();
        if (said == null || said.isEmpty()) {
            return headers;
        }
        if (said.chars().anyMatch(character -> character < '!' || character > '~')) {
            throw new UnusableSecret();
        }
        headers.put(AUTHORIZATION, scheme + " " + said);
        return headers;
    }

    private static final class UnusableSecret extends RuntimeException {
        private static final long serialVersionUID = 1;

        UnusableSecret() {
            super(
                    "The key or token has blanks, a newline or other characters that can't be sent: pass it without them");
        }
    }

    /** Whether nobody on a network can read along: there is TLS, or no network. */
    private static boolean isPrivate(RequestInfo connection) {
        if (connection.getSecurityLevel() == SecurityLevel.PRIVACY_AND_INTEGRITY) {
            return true;
        }
        var peer = connection.getTransportAttrs().get(Grpc.TRANSPORT_ATTR_REMOTE_ADDR);
        if (peer instanceof InetSocketAddress address) {
            return !address.isUnresolved() && address.getAddress().isLoopbackAddress();
        }
        return peer != null; // a Unix socket
    }
}
