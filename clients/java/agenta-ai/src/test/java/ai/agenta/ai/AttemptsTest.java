package ai.agenta.ai;

import static org.junit.jupiter.api.Assertions.assertEquals;

import ai.agenta.ai.v1.ToolServiceGrpc;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.Status.Code;
import java.nio.channels.ClosedChannelException;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.Test;

final class AttemptsTest {
    private static Code codeOf(Status ended) throws Exception {
        var call = new Attempts().interceptCall(ToolServiceGrpc.getStatusMethod(), CallOptions.DEFAULT, ending(ended));
        var code = new CompletableFuture<Code>();
        call.start(
                new ClientCall.Listener<>() {
                    @Override
                    public void onClose(Status status, Metadata trailers) {
                        code.complete(status.getCode());
                    }
                },
                new Metadata());
        return code.get();
    }

    /** A channel whose calls end so. */
    private static Channel ending(Status status) {
        return new Channel() {
            @Override
            public <Q, A> ClientCall<Q, A> newCall(MethodDescriptor<Q, A> method, CallOptions options) {
                return new ClientCall<>() {
                    @Override
                    public void start(Listener<A> listener, Metadata headers) {
                        listener.onClose(status, new Metadata());
                    }

                    @Override
                    public void request(int messages) {}

                    @Override
                    public void cancel(String message, Throwable cause) {}

                    @Override
                    public void halfClose() {}

                    @Override
                    public void sendMessage(Q message) {}
                };
            }

            @Override
            public String authority() {
                return "";
            }
        };
    }

    @Test
    void aConnectionThatBrokeWhileItWroteIsUnavailable() throws Exception {
        var broken = Status.UNKNOWN.withDescription("channel closed").withCause(new ClosedChannelException());
        assertEquals(Code.UNAVAILABLE, codeOf(broken));
        assertEquals(Code.UNKNOWN, codeOf(Status.UNKNOWN));
    }
}
