package ai.agenta.ai;

import ai.agenta.ai.ServiceConfig.RetryPolicy;
import ai.agenta.ai.v1.CallToolRequest;
import ai.agenta.ai.v1.CallToolResponse;
import ai.agenta.ai.v1.ToolServiceGrpc;
import com.google.protobuf.Message;
import io.grpc.ChannelCredentials;
import io.grpc.ForwardingChannelBuilder2;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.MethodDescriptor;
import io.grpc.TlsChannelCredentials;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/** A connection to Agenta AI services. It is opened by its first call, and serves many at once, from any thread. */
public final class Client implements AutoCloseable {
    /** The default time-out of a call. */
    public static final Duration CALL_TIMEOUT = Duration.ofSeconds(90);

    private static final String VERSION = version();

    private final ManagedChannel channel;
    private final Closing closing;
    private final boolean waitForLimit;
    private final RetryPolicy streams;
    private final Set<ToolCall<?, ?>> inFlight = ConcurrentHashMap.newKeySet();

    private Client(ManagedChannel channel, Closing closing, boolean waitForLimit, RetryPolicy streams) {
        this.channel = channel;
        this.closing = closing;
        this.waitForLimit = waitForLimit;
        this.streams = streams;
    }

    /**
     * Returns the builder of a client for a target: "host:port", "unix:/run/agenta.sock", or a name
     * of which the program has registered a {@link io.grpc.NameResolverProvider}.
     *
     * <p>It is in plaintext to localhost, a loopback address or a Unix socket, and has TLS with the system's certificate
     * authorities to any other. Nothing goes to another machine in plaintext, whatever a name may resolve to: such calls fail
     * with UNAUTHENTICATED.
     *
     * @throws IllegalArgumentException if the target is a web address, has no port from 1 to 65535, or is of a kind that
     *     grpc-java can't connect to
     */
    public static Builder to(String target) {
        return new Builder(Target.parse(target));
    }

    /**
     * Makes a request with a new request_id. To repeat a call, send its request again.
     *
     * @param arguments a map or a record, by the tool's input_schema; numbers are sent as doubles
     * @throws IllegalArgumentException if the arguments can't be sent
     */
    public static CallToolRequest request(String tool, Object arguments) {
        return request(tool, arguments, UUID.randomUUID().toString());
    }

    /**
     * Makes a request with the request_id of an earlier call, to get the result of that one.
     *
     * @param arguments those of the earlier call
     * @param requestId {@link AgentaException#requestId()}
     * @throws IllegalArgumentException if the arguments can't be sent, or the request_id is empty
     */
    public static CallToolRequest request(String tool, Object arguments, String requestId) {
        return CallToolRequest.newBuilder()
                .setName(tool)
                .setArguments(Values.pack(arguments))
                .setRequestId(checked(requestId))
                .build();
    }

    private static String version() {
        try (var file = Client.class.getResourceAsStream("version.txt")) {
            return new String(file.readAllBytes(), StandardCharsets.UTF_8).strip();
        } catch (IOException failure) {
            throw new UncheckedIOException(failure);
        }
    }

    private static String checked(String requestId) {
        if (requestId.isEmpty()) {
            throw new IllegalArgumentException("request_id: must not be empty, or a repeat would run the tool again");
        }
        return requestId;
    }

    /** Runs a tool, within {@link #CALL_TIMEOUT}: see {@link #callTool(CallToolRequest, ToolCallOptions)}. */
    public CallToolResponse callTool(CallToolRequest request) {
        return callTool(request, ToolCallOptions.DEFAULT);
    }

    /** Runs a tool, within a time-out: see {@link #callTool(CallToolRequest, ToolCallOptions)}. */
    public CallToolResponse callTool(CallToolRequest request, Duration timeout) {
        return callTool(request, ToolCallOptions.DEFAULT.withTimeout(timeout));
    }

    /**
     * Runs a tool. {@link Values#unpack} puts the structured content of its answer into a native type.
     *
     * @throws CallException if the call was refused or had no answer
     * @throws ToolException if the tool ran and failed
     * @throws IllegalArgumentException if the request has no request_id
     */
    public CallToolResponse callTool(CallToolRequest request, ToolCallOptions options) {
        checked(request.getRequestId());
        return await(start(ToolServiceGrpc.getCallToolMethod(), request, options));
    }

    /**
     * Runs a tool by its own method, from code that was generated from the files of "agenta-ai-server tools proto":
     *
     * <pre>{@code
     * client.call(SupportToolsServiceGrpc.getClassifyTicketMethod(), request)
     * }</pre>
     *
     * The request gets a request_id if it has none. Other methods that are not streams can be called in the same way.
     *
     * @throws CallException if the call was refused or had no answer
     * @throws ToolException if the tool ran and failed
     * @throws IllegalArgumentException if the method is a stream
     */
    public <Q extends Message, A extends Message> A call(MethodDescriptor<Q, A> method, Q request) {
        return call(method, request, ToolCallOptions.DEFAULT);
    }

    /** Runs a tool by its own method: see {@link #call(MethodDescriptor, Message)}. */
    public <Q extends Message, A extends Message> A call(
            MethodDescriptor<Q, A> method, Q request, ToolCallOptions options) {
        return await(start(method, TypedMethods.named(request), options));
    }

    /** Runs a tool by its own method without blocking: see {@link #callToolAsync}. */
    public <Q extends Message, A extends Message> CompletableFuture<A> callAsync(
            MethodDescriptor<Q, A> method, Q request, ToolCallOptions options) {
        return start(method, TypedMethods.named(request), options).result();
    }

    private static <A extends Message> A await(ToolCall<?, A> call) {
        try {
            return call.result().get();
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw call.interrupt(interrupted);
        } catch (ExecutionException failure) {
            if (failure.getCause() instanceof AgentaException cause) {
                // Points to who called, and not to a thread of grpc-java.
                cause.fillInStackTrace();
                throw cause;
            }
            // Those of a callback, to which they point.
            if (failure.getCause() instanceof RuntimeException cause) {
                throw cause;
            }
            if (failure.getCause() instanceof Error cause) {
                throw cause;
            }
            throw new IllegalStateException("a callback failed", failure.getCause());
        }
    }

    /**
     * Runs a tool without blocking.
     *
     * @return completes with what {@link #callTool(CallToolRequest, ToolCallOptions)} returns or throws, on a thread of the
     *     channel that may block. Cancelling it cancels the call
     * @throws IllegalArgumentException if the request has no request_id
     */
    public CompletableFuture<CallToolResponse> callToolAsync(CallToolRequest request, ToolCallOptions options) {
        checked(request.getRequestId());
        return start(ToolServiceGrpc.getCallToolMethod(), request, options).result();
    }

    private <Q extends Message, A extends Message> ToolCall<Q, A> start(
            MethodDescriptor<Q, A> method, Q request, ToolCallOptions options) {
        if (method.getType() != MethodDescriptor.MethodType.UNARY) {
            throw new IllegalArgumentException(method.getFullMethodName() + " is a stream: call it by its stub");
        }
        var call = new ToolCall<>(channel, method, request, options, waitForLimit, streams);
        inFlight.add(call);
        call.result().whenComplete((response, failure) -> inFlight.remove(call));
        call.start();
        return call;
    }

    /**
     * The channel, for the generated stubs. They need deadlines of their own. A call of a tool gets a request_id if its request
     * has none, so that it is run once when it is sent again.
     */
    public ManagedChannel channel() {
        return channel;
    }

    /**
     * Closes the connection, without waiting for it. Calls in flight end at once with CANCELLED, "The client was closed"; the
     * exception has the request_id that gets their results. Later calls fail, and nothing is sent.
     */
    @Override
    public void close() {
        closing.close();
        channel.shutdownNow();
        inFlight.forEach(ToolCall::close);
    }

    /** Builds a {@link Client}. Not thread-safe. */
    public static final class Builder {
        private final Target target;
        private ChannelCredentials transport;
        private Credentials caller = new Credentials("", () -> "");
        private boolean waitForLimit;
        private boolean retries = true;
        private Consumer<ManagedChannelBuilder<?>> more = builder -> {};

        private Builder(Target target) {
            this.target = target;
            transport = target.local() ? InsecureChannelCredentials.create() : TlsChannelCredentials.create();
        }

        /**
         * Sends a key with every call: one of the server's, "aai_…", or one of Agenta. If it is null or empty, none is sent. It
         * replaces a {@link #token(String) token}.
         */
        public Builder apiKey(@Nullable String key) {
            caller = new Credentials("ApiKey", () -> key);
            return this;
        }

        /** Sends a bearer token with every call. If it is null or empty, none is sent. It replaces an {@link #apiKey}. */
        public Builder token(@Nullable String token) {
            return token(() -> token);
        }

        /**
         * Sends a bearer token with every call. The supplier is called each time that a call is sent, on a thread that may
         * block: cache the token until it is about to expire. If the supplier throws, the call fails with UNAUTHENTICATED; if it
         * hangs, with DEADLINE_EXCEEDED. Nothing is sent then.
         */
        public Builder token(Supplier<? extends @Nullable String> token) {
            caller = new Credentials("Bearer", Objects.requireNonNull(token, "token"));
            return this;
        }

        /**
         * Waits for rate limits. A call of a tool that exceeds one waits as long as the server says plus a random time, and is
         * sent again with the same request_id, until its deadline. It fails at once if the wait would outlast the deadline. A
         * refused call runs no tool, so none is billed twice.
         */
        public Builder waitForLimit() {
            waitForLimit = true;
            return this;
        }

        /** Disables the retries of calls whose connection breaks or whose server is unavailable. */
        public Builder disableRetries() {
            retries = false;
            return this;
        }

        /** Sets the transport security, for example TLS with your own certificate authorities or a client certificate. */
        public Builder transport(ChannelCredentials credentials) {
            transport = Objects.requireNonNull(credentials, "credentials");
            return this;
        }

        /**
         * Changes other settings of the channel, after those of this builder. A service config would replace the load balancing
         * and retries of this client: then {@link #build} throws an {@code IllegalArgumentException}.
         */
        public Builder configure(Consumer<ManagedChannelBuilder<?>> change) {
            more = Objects.requireNonNull(change, "change");
            return this;
        }

        /** Makes the client. It connects when it is first used. */
        public Client build() {
            Closing closing = new Closing();
            Reconnecting reconnecting = new Reconnecting();
            ManagedChannelBuilder<?> builder = Grpc.newChannelBuilder(target.name(), transport)
                    .intercept(caller, new Attempts(), reconnecting, closing, new Detached(), new TypedMethods())
                    .defaultServiceConfig(ServiceConfig.read())
                    // A record in the DNS can't change what is retried.
                    .disableServiceConfigLookUp()
                    .userAgent("agenta-ai-java/" + VERSION)
                    // A request that doesn't fit is never sent again. The largest is 1 MiB, and so is the default.
                    .perRpcBufferLimit(2 << 20)
                    // The default for all calls in flight together is 16 MiB.
                    .retryBufferSize(Long.MAX_VALUE)
                    .maxInboundMessageSize(16 << 20)
                    .keepAliveTime(30, TimeUnit.SECONDS)
                    .keepAliveTimeout(10, TimeUnit.SECONDS)
                    .keepAliveWithoutCalls(true);
            if (transport.withoutBearerTokens() instanceof InsecureChannelCredentials) {
                // A proxy could read along, and its address would pass for that of the server.
                builder.proxyDetector(server -> null);
            }
            if (!retries) {
                builder.disableRetry();
            }
            more.accept(new Configured(builder));
            ManagedChannel channel = builder.build();
            reconnecting.setChannel(channel);
            var streams = retries ? ServiceConfig.streams() : RetryPolicy.NEVER;
            return new Client(channel, closing, waitForLimit, streams);
        }
    }

    /** What may be configured: all but what would replace our service config in silence. */
    private static final class Configured extends ForwardingChannelBuilder2<Configured> {
        private final ManagedChannelBuilder<?> builder;

        Configured(ManagedChannelBuilder<?> builder) {
            this.builder = builder;
        }

        @Override
        protected ManagedChannelBuilder<?> delegate() {
            return builder;
        }

        @Override
        public Configured defaultServiceConfig(@Nullable Map<String, ?> config) {
            throw new IllegalArgumentException(
                    "defaultServiceConfig would replace the load balancing and retries of this"
                            + " client: remove it; disableRetries() switches retries off");
        }
    }
}
