package ai.agenta.ai;

import ai.agenta.ai.v1.CallToolRequest;
import ai.agenta.ai.v1.CallToolResponse;
import ai.agenta.ai.v1.ToolServiceGrpc;
import io.grpc.ChannelCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import java.time.Duration;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Supplier;
import java.util.regex.Pattern;

/** A connection to Agenta AI services. It is opened by its first call, and serves many at once, from any thread. */
public final class Client implements AutoCloseable {
    /** The time that {@link #callTool(CallToolRequest)} gives to a tool. */
    public static final Duration CALL_TIMEOUT = Duration.ofSeconds(90);

    private final ManagedChannel channel;

    private Client(ManagedChannel channel) {
        this.channel = channel;
    }

    /**
     * Begins a connection to a target, "host:port" or any name that gRPC knows, such as "unix:/run/agenta.sock".
     *
     * <p>It is in plaintext to a loopback address or a Unix socket, and has TLS with the system's certificate authorities to
     * any other. Nothing goes to another machine in plaintext, whatever a name may resolve to: such calls fail with
     * UNAUTHENTICATED.
     */
    public static Builder to(String target) {
        return new Builder(target);
    }

    /**
     * Makes a request with a request_id of its own. To repeat a call, send its request again.
     *
     * @param arguments a map or a record, by the tool's input_schema; numbers are sent as doubles
     * @throws IllegalArgumentException if the arguments can't be sent
     */
    public static CallToolRequest request(String tool, Object arguments) {
        return CallToolRequest.newBuilder()
                .setName(tool)
                .setArguments(Values.pack(arguments))
                .setRequestId(UUID.randomUUID().toString())
                .build();
    }

    /** Runs a tool, in {@link #CALL_TIMEOUT} at most. */
    public CallToolResponse callTool(CallToolRequest request) {
        return callTool(request, CALL_TIMEOUT);
    }

    /**
     * Runs a tool. {@link Values#unpack} puts the structured content of its answer into a native type.
     *
     * @throws CallException if the call was refused or had no answer
     * @throws ToolException if the tool ran and failed
     */
    public CallToolResponse callTool(CallToolRequest request, Duration timeout) {
        CallToolResponse response;
        try {
            response = ToolServiceGrpc.newBlockingStub(channel)
                    .withDeadlineAfter(timeout.toNanos(), TimeUnit.NANOSECONDS)
                    .callTool(request);
        } catch (StatusRuntimeException thrown) {
            throw new CallException(thrown);
        }
        if (response.getIsError()) {
            throw new ToolException(response);
        }
        return response;
    }

    /** The channel, for the generated stubs. They need deadlines of their own. */
    public ManagedChannel channel() {
        return channel;
    }

    /** Ends the connection, and the calls that run. */
    @Override
    public void close() {
        channel.shutdownNow();
    }

    /** How a connection is to be. */
    public static final class Builder {
        private static final Pattern LOCAL =
                Pattern.compile("unix:.*|(\\w+:///)?(localhost|127(\\.\\d{1,3}){3}|\\[::1])(:\\d+)?|(\\w+:///)?::1");

        private final String target;
        private ChannelCredentials transport;
        private Credentials caller = new Credentials("", () -> "");
        private boolean waitForLimit;
        private Consumer<ManagedChannelBuilder<?>> more = builder -> {};

        private Builder(String target) {
            this.target = target;
            transport = isLocal(target) ? InsecureChannelCredentials.create() : TlsChannelCredentials.create();
        }

        /** Whether a target is on this machine by its name alone. */
        static boolean isLocal(String target) {
            return LOCAL.matcher(target).matches();
        }

        /** Sends a key with every call, one of the server's, "aai_…", or of Agenta. Null or an empty one is not sent. */
        public Builder apiKey(String key) {
            caller = new Credentials("ApiKey", () -> key);
            return this;
        }

        /** Sends a bearer token with every call, and asks for it each time: keep it until it is about to expire. */
        public Builder token(Supplier<String> token) {
            caller = new Credentials("Bearer", token);
            return this;
        }

        /**
         * Makes a call of a tool that a rate limit refuses wait as long as the server says, and then sends it again: within
         * its deadline, and four times at most. Where the wait would outlast the deadline, it fails at once. A refused call
         * runs no tool, so none is paid for twice.
         */
        public Builder waitForLimit() {
            waitForLimit = true;
            return this;
        }

        /** Says how to encrypt, for other authorities or a certificate of your own. */
        public Builder transport(ChannelCredentials credentials) {
            transport = credentials;
            return this;
        }

        /** Sets whatever else grpc-java can, last of all. */
        public Builder configure(Consumer<ManagedChannelBuilder<?>> change) {
            more = change;
            return this;
        }

        /** Makes the connection. */
        public Client build() {
            ManagedChannelBuilder<?> builder = Grpc.newChannelBuilder(target, transport)
                    .intercept(caller, new Pushback(waitForLimit), new Detached())
                    .defaultServiceConfig(ServiceConfig.make(waitForLimit))
                    // A record in the DNS can't change what is retried.
                    .disableServiceConfigLookUp()
                    .userAgent("agenta-ai-java")
                    // A request that doesn't fit is never sent again. The largest is 1 MiB, and so is the default.
                    .perRpcBufferLimit(2 << 20)
                    .maxInboundMessageSize(16 << 20)
                    .keepAliveTime(30, TimeUnit.SECONDS)
                    .keepAliveTimeout(10, TimeUnit.SECONDS)
                    .keepAliveWithoutCalls(true);
            more.accept(builder);
            return new Client(builder.build());
        }
    }
}
