package ai.agenta.ai;

import ai.agenta.ai.v1.CallMeta;
import ai.agenta.ai.v1.CallToolResponse;
import ai.agenta.ai.v1.ContentBlock;
import ai.agenta.ai.v1.ToolError;
import ai.agenta.ai.v1.ToolServiceGrpc;
import com.google.protobuf.Descriptors.FieldDescriptor;
import com.google.protobuf.Message;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.MethodDescriptor;
import java.util.List;
import java.util.UUID;
import org.jspecify.annotations.Nullable;

/**
 * Knows the methods that tools have of their own, of code that was generated from the files of "agenta-ai-server tools proto".
 * As an interceptor it gives each call of a tool a request_id: it is sent again when the connection breaks.
 */
record TypedMethods() implements ClientInterceptor {
    private static final String PACKAGE = "agenta.ai.tools.";

    @Override
    public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
        ClientCall<Q, A> call = next.newCall(method, options);
        String name = method.getFullMethodName();
        if (!name.startsWith(PACKAGE)
                && !name.equals(ToolServiceGrpc.getCallToolMethod().getFullMethodName())) {
            return call;
        }
        return new SimpleForwardingClientCall<>(call) {
            @Override
            @SuppressWarnings("unchecked")
            public void sendMessage(Q message) {
                super.sendMessage(message instanceof Message request ? (Q) named(request) : message);
            }
        };
    }

    /** The request, or a copy with a new request_id if it has none. */
    @SuppressWarnings("unchecked")
    static <Q extends Message> Q named(Q request) {
        FieldDescriptor field = request.getDescriptorForType().findFieldByName("request_id");
        if (field == null || !request.getField(field).equals("")) {
            return request;
        }
        return (Q) request.toBuilder()
                .setField(field, UUID.randomUUID().toString())
                .build();
    }

    /**
     * The same request, to be run again if its outcome is unknown.
     *
     * @throws IllegalArgumentException if the method has no such field
     */
    @SuppressWarnings("unchecked")
    static <Q extends Message> Q rerun(Q request) {
        FieldDescriptor field = request.getDescriptorForType().findFieldByName("rerun_if_outcome_unknown");
        if (field == null) {
            throw new IllegalArgumentException("withRerunIfOutcomeUnknown: only methods of tools take it");
        }
        return (Q) request.toBuilder().setField(field, true).build();
    }

    /** The request_id of a request. Empty if its method has none, because it runs no tool. */
    static String requestId(Message request) {
        FieldDescriptor field = request.getDescriptorForType().findFieldByName("request_id");
        return field == null ? "" : (String) request.getField(field);
    }

    /** The answer of a tool that failed, as CallTool gives it; null if it did its work. */
    @SuppressWarnings("unchecked")
    static @Nullable CallToolResponse failed(Message response) {
        if (response instanceof CallToolResponse answer) {
            return answer.getIsError() ? answer : null;
        }
        FieldDescriptor error = response.getDescriptorForType().findFieldByName("error");
        if (error == null || !response.hasField(error)) {
            return null;
        }
        var type = response.getDescriptorForType();
        return CallToolResponse.newBuilder()
                .setIsError(true)
                .setError((ToolError) response.getField(error))
                .addAllContent((List<ContentBlock>) response.getField(type.findFieldByName("content")))
                .setMeta((CallMeta) response.getField(type.findFieldByName("meta")))
                .build();
    }
}
