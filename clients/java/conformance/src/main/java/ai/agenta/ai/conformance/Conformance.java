package ai.agenta.ai.conformance;

import ai.agenta.ai.CallException;
import ai.agenta.ai.Client;
import ai.agenta.ai.ToolCallOptions;
import ai.agenta.ai.ToolException;
import ai.agenta.ai.Values;
import ai.agenta.ai.tools.agenta.api.v1.ApiToolsServiceGrpc;
import ai.agenta.ai.tools.agenta.api.v1.RefinePromptRequest;
import ai.agenta.ai.tools.agenta.api.v1.RefinePromptResponse;
import ai.agenta.ai.v1.CallToolRequest;
import ai.agenta.ai.v1.CallToolResponse;
import ai.agenta.ai.v1.CallToolStreamResponse;
import ai.agenta.ai.v1.Progress;
import ai.agenta.ai.v1.ToolServiceGrpc;
import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.protobuf.TypeRegistry;
import com.google.protobuf.util.JsonFormat;
import com.google.rpc.ErrorDetailsProto;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptors;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import java.util.stream.Stream;

/** Makes the calls that come as lines of JSON, and prints what came of each: see tests/conformance. */
public final class Conformance {
    private static final String STREAM =
            ToolServiceGrpc.getCallToolStreamMethod().getBareMethodName();
    private static final MethodDescriptor<RefinePromptRequest, RefinePromptResponse> TYPED =
            ApiToolsServiceGrpc.getRefinePromptMethod();
    private static final Gson GSON = new GsonBuilder().serializeNulls().create();
    private static final JsonFormat.Printer PRINTER = JsonFormat.printer()
            .omittingInsignificantWhitespace()
            .usingTypeRegistry(TypeRegistry.newBuilder()
                    .add(ErrorDetailsProto.getDescriptor().getMessageTypes())
                    .build());

    private final Map<String, Connection> connections = new HashMap<>();
    private final ScheduledExecutorService clock = Executors.newSingleThreadScheduledExecutor(work -> {
        Thread thread = new Thread(work);
        thread.setDaemon(true);
        return thread;
    });

    public static void main(String[] arguments) throws IOException {
        var program = new Conformance();
        var input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        var output = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            output.println(program.answer(line));
        }
    }

    private String answer(String line) {
        JsonObject call = JsonParser.parseString(line).getAsJsonObject();
        JsonObject result = new JsonObject();
        try {
            make(call, result);
        } catch (IOException | RuntimeException failure) {
            failure.printStackTrace();
            result = new JsonObject();
            result.addProperty("error", failure.toString());
        }
        result.add("id", call.get("id"));
        return GSON.toJson(result);
    }

    private void make(JsonObject call, JsonObject result) throws IOException {
        String name = call.get("method").getAsString();
        MethodDescriptor<?, ?> method = method(name);
        byte[] request = request(call, method);
        List<Progress> progress = name.equals(STREAM) ? new CopyOnWriteArrayList<>() : null;
        Connection connection = connection(call);
        connection.headers().set(null);
        connection.trailers().set(null);
        long began = System.nanoTime();
        Message response = null;
        CallException thrown = null;
        try {
            response = connection.client() != null && (name.startsWith("CallTool") || method == TYPED)
                    ? callTool(connection.client(), call, request, progress)
                    : call(connection.channel(), call, taking(method), request, progress);
        } catch (CallException failure) {
            thrown = failure;
        } catch (StatusRuntimeException failure) {
            thrown = new CallException(failure);
        }
        result.addProperty("seconds", (System.nanoTime() - began) / 1e9);
        result.addProperty("code", thrown == null ? "OK" : thrown.code().name());
        result.addProperty("message", thrown == null ? "" : thrown.description());
        result.add("details", GSON.toJsonTree(details(thrown)));
        if (thrown != null && connection.client() != null) {
            result.add("outcome", outcome(thrown));
        }
        result.add(
                "metadata",
                GSON.toJsonTree(
                        texts(connection.headers().get(), connection.trailers().get())));
        if (progress != null) {
            JsonArray came = new JsonArray();
            for (Progress each : progress) {
                came.add(JsonParser.parseString(PRINTER.print(each)));
            }
            result.add("progress", came);
        }
        if (response != null) {
            result.add("response", JsonParser.parseString(PRINTER.print(response)));
        }
        if (response instanceof CallToolResponse answer && answer.hasStructuredContent()) {
            result.add("native", GSON.toJsonTree(Values.unpack(answer.getStructuredContent(), Object.class)));
        }
    }

    private Message call(
            Channel channel,
            JsonObject call,
            MethodDescriptor<byte[], ?> method,
            byte[] request,
            List<Progress> progress) {
        CallOptions options = CallOptions.DEFAULT;
        if (call.has("timeout")) {
            options = options.withDeadlineAfter(nanos(call.get("timeout")), TimeUnit.NANOSECONDS);
        }
        ClientCall<byte[], ?> made = ClientInterceptors.intercept(
                        channel, MetadataUtils.newAttachHeadersInterceptor(metadata(call)))
                .newCall(method, options);
        cancelLater(call, () -> made.cancel("cancelled", null));
        if (progress == null) {
            return (Message) ClientCalls.blockingUnaryCall(made, request);
        }
        return result(ClientCalls.blockingServerStreamingCall(made, request), call, progress);
    }

    private static Message result(Iterator<?> events, JsonObject call, List<Progress> progress) {
        if (call.has("read_after")) {
            LockSupport.parkNanos(nanos(call.get("read_after")));
        }
        Message result = null;
        while (events.hasNext()) {
            var event = (CallToolStreamResponse) events.next();
            if (event.hasProgress()) {
                progress.add(event.getProgress());
            }
            if (event.hasResult()) {
                result = event.getResult();
            }
        }
        return result;
    }

    /** Calls a tool as the README has it. */
    private Message callTool(Client client, JsonObject call, byte[] request, List<Progress> progress)
            throws InvalidProtocolBufferException {
        ToolCallOptions options = ToolCallOptions.DEFAULT.withHeaders(metadata(call));
        if (call.has("timeout")) {
            options = options.withTimeout(Duration.ofNanos(nanos(call.get("timeout"))));
        }
        if (progress != null) {
            options = options.withProgress(progress::add);
        }
        boolean typed = call.get("method").getAsString().equals(TYPED.getBareMethodName());
        CompletableFuture<? extends Message> made = typed
                ? client.callAsync(TYPED, RefinePromptRequest.parseFrom(request), options)
                // The same bytes are a request of either method.
                : client.callToolAsync(CallToolRequest.parseFrom(request), options);
        cancelLater(call, () -> made.cancel(true));
        if (call.has("close_after")) {
            connections.clear();
            clock.schedule(client::close, nanos(call.get("close_after")), TimeUnit.NANOSECONDS);
        }
        try {
            return made.join();
        } catch (CancellationException cancelled) {
            throw new CallException(Status.CANCELLED.asRuntimeException());
        } catch (CompletionException failure) {
            if (failure.getCause() instanceof ToolException failed) {
                CallToolResponse answer = failed.response();
                return !typed
                        ? answer
                        : RefinePromptResponse.newBuilder()
                                .setError(answer.getError())
                                .addAllContent(answer.getContentList())
                                .setMeta(answer.getMeta())
                                .build();
            }
            throw (CallException) failure.getCause();
        }
    }

    private void cancelLater(JsonObject call, Runnable cancel) {
        if (call.has("cancel_after")) {
            clock.schedule(cancel, nanos(call.get("cancel_after")), TimeUnit.NANOSECONDS);
        }
    }

    /** One that is open; without a client if it is a bare one. What came with its last call is at hand. */
    private record Connection(
            Client client, Channel channel, AtomicReference<Metadata> headers, AtomicReference<Metadata> trailers) {}

    private Connection connection(JsonObject call) {
        String target = call.get("target").getAsString();
        boolean wait = call.has("wait_for_limit") && call.get("wait_for_limit").getAsBoolean();
        boolean retries = !call.has("retries") || call.get("retries").getAsBoolean();
        String kind = call.get("client").getAsString();
        return connections.computeIfAbsent(
                kind + " " + wait + " " + retries + " " + target, key -> connect(kind, target, wait, retries));
    }

    private static Connection connect(String kind, String target, boolean wait, boolean retries) {
        var headers = new AtomicReference<Metadata>();
        var trailers = new AtomicReference<Metadata>();
        var capture = MetadataUtils.newCaptureMetadataInterceptor(headers, trailers);
        if (kind.equals("bare")) {
            Channel channel = Grpc.newChannelBuilder(target, InsecureChannelCredentials.create())
                    .disableRetry()
                    .intercept(capture)
                    .build();
            return new Connection(null, channel, headers, trailers);
        }
        if (!kind.equals("shipped")) {
            throw new IllegalArgumentException("no client is called " + kind);
        }
        Client.Builder builder = Client.to(target).configure(channel -> channel.intercept(capture));
        if (wait) {
            builder.waitForLimit();
        }
        if (!retries) {
            builder.disableRetries();
        }
        Client client = builder.build();
        return new Connection(client, client.channel(), headers, trailers);
    }

    private static MethodDescriptor<?, ?> method(String name) {
        return Stream.of(ToolServiceGrpc.getServiceDescriptor(), ApiToolsServiceGrpc.getServiceDescriptor())
                .flatMap(service -> service.getMethods().stream())
                .filter(method -> name.equals(method.getBareMethodName()))
                .findAny()
                .orElseThrow(() -> new IllegalArgumentException("no method is called " + name));
    }

    /** The method, for a request that is bytes, whatever they hold. */
    private static <T> MethodDescriptor<byte[], T> taking(MethodDescriptor<?, T> method) {
        return method.toBuilder(new Bytes(), method.getResponseMarshaller()).build();
    }

    private static byte[] request(JsonObject call, MethodDescriptor<?, ?> method) throws IOException {
        if (call.has("request_base64")) {
            return Base64.getDecoder().decode(call.get("request_base64").getAsString());
        }
        var marshaller = (MethodDescriptor.PrototypeMarshaller<?>) method.getRequestMarshaller();
        Message.Builder request = ((Message) marshaller.getMessagePrototype()).newBuilderForType();
        JsonFormat.parser().merge(call.get("request").toString(), request);
        return request.build().toByteArray();
    }

    private static Metadata metadata(JsonObject call) {
        Metadata metadata = new Metadata();
        if (call.has("metadata")) {
            call.getAsJsonObject("metadata")
                    .asMap()
                    .forEach((name, text) -> metadata.put(key(name), text.getAsString()));
        }
        return metadata;
    }

    private static Map<String, List<String>> texts(Metadata... received) {
        Map<String, List<String>> texts = new TreeMap<>();
        for (Metadata metadata : received) {
            if (metadata == null) { // nothing came
                continue;
            }
            for (String name : metadata.keys()) {
                if (!name.endsWith(Metadata.BINARY_HEADER_SUFFIX)) {
                    metadata.getAll(key(name)).forEach(texts.computeIfAbsent(name, key -> new ArrayList<>())::add);
                }
            }
        }
        return texts;
    }

    private static Metadata.Key<String> key(String name) {
        return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
    }

    private static List<JsonElement> details(CallException thrown) {
        com.google.rpc.Status status = thrown == null ? null : StatusProto.fromThrowable(thrown);
        return status == null
                ? List.of()
                : status.getDetailsList().stream().map(Conformance::detail).toList();
    }

    private static JsonElement outcome(CallException thrown) {
        JsonObject outcome = new JsonObject();
        outcome.addProperty("not_run", thrown.notRun());
        outcome.addProperty("request_id", thrown.requestId());
        outcome.addProperty("sentence", thrown.getMessage());
        return outcome;
    }

    private static JsonElement detail(Any detail) {
        try {
            return JsonParser.parseString(PRINTER.print(detail));
        } catch (InvalidProtocolBufferException unknown) {
            JsonObject bytes = new JsonObject();
            bytes.addProperty("@type", detail.getTypeUrl());
            bytes.addProperty(
                    "value",
                    Base64.getEncoder().encodeToString(detail.getValue().toByteArray()));
            return bytes;
        }
    }

    private static long nanos(JsonElement seconds) {
        return (long) (seconds.getAsDouble() * 1e9);
    }

    private static final class Bytes implements MethodDescriptor.Marshaller<byte[]> {
        @Override
        public InputStream stream(byte[] bytes) {
            return new ByteArrayInputStream(bytes);
        }

        @Override
        public byte[] parse(InputStream stream) {
            throw new UnsupportedOperationException("requests are only sent");
        }
    }
}
