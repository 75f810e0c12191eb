package ai.agenta.ai;

import ai.agenta.ai.v1.Progress;
import io.grpc.CallCredentials;
import io.grpc.Metadata;
import java.time.Duration;
import java.util.Objects;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/** The options of one call. Immutable: each method returns a changed copy. */
public final class ToolCallOptions {
    /** The defaults: a time-out of {@link Client#CALL_TIMEOUT}, and nothing else. */
    public static final ToolCallOptions DEFAULT =
            new ToolCallOptions(Client.CALL_TIMEOUT, new Metadata(), null, false, trailers -> {}, null);

    private final Duration timeout;
    private final Metadata headers;
    private final @Nullable CallCredentials credentials;
    private final boolean rerunIfOutcomeUnknown;
    private final Consumer<Metadata> onTrailers;
    private final @Nullable Consumer<Progress> onProgress;

    private ToolCallOptions(
            Duration timeout,
            Metadata headers,
            @Nullable CallCredentials credentials,
            boolean rerunIfOutcomeUnknown,
            Consumer<Metadata> onTrailers,
            @Nullable Consumer<Progress> onProgress) {
        this.timeout = timeout;
        this.headers = headers;
        this.credentials = credentials;
        this.rerunIfOutcomeUnknown = rerunIfOutcomeUnknown;
        this.onTrailers = onTrailers;
        this.onProgress = onProgress;
    }

    /**
     * Sets the time-out of the call, for all its attempts together.
     *
     * @throws IllegalArgumentException if it isn't positive
     */
    public ToolCallOptions withTimeout(Duration timeout) {
        if (timeout.isZero() || timeout.isNegative()) {
            throw new IllegalArgumentException("timeout: must be positive");
        }
        return new ToolCallOptions(timeout, headers, credentials, rerunIfOutcomeUnknown, onTrailers, onProgress);
    }

    /**
     * Sends a header, such as {@code traceparent} of W3C Trace Context.
     *
     * @throws IllegalArgumentException if the name is not one of HTTP/2, or the value has other characters than printable
     *     ASCII
     */
    public ToolCallOptions withHeader(String name, String value) {
        if (value.chars().anyMatch(character -> character < ' ' || character > '~')) {
            // It isn't shown: it may be a secret.
            throw new IllegalArgumentException("header " + name + ": the value must be printable ASCII");
        }
        Metadata more = new Metadata();
        more.put(Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER), value);
        return withHeaders(more);
    }

    /** Sends these headers, besides those that were given before. */
    public ToolCallOptions withHeaders(Metadata more) {
        Metadata all = new Metadata();
        all.merge(headers);
        all.merge(more);
        return new ToolCallOptions(timeout, all, credentials, rerunIfOutcomeUnknown, onTrailers, onProgress);
    }

    /**
     * Sends credentials of this call, in addition to those of the client. To send a key or token that differs from call to call,
     * build the client without one: the server refuses a call that has two.
     */
    public ToolCallOptions withCredentials(CallCredentials credentials) {
        return new ToolCallOptions(timeout, headers, credentials, rerunIfOutcomeUnknown, onTrailers, onProgress);
    }

    /**
     * Runs the tool again if an earlier call with this request_id may have been billed and has no result, instead of failing
     * with {@code ERROR_REASON_OUTCOME_UNKNOWN}. The tool may then be billed twice.
     */
    public ToolCallOptions withRerunIfOutcomeUnknown() {
        return new ToolCallOptions(timeout, headers, credentials, true, onTrailers, onProgress);
    }

    /**
     * Passes the trailing metadata of each answer to a consumer: those of rate limits that the call waits for and of streams
     * that broke, and finally that of the call, before it ends. If the consumer throws, the call throws the same.
     */
    public ToolCallOptions withTrailers(Consumer<Metadata> consumer) {
        return new ToolCallOptions(
                timeout,
                headers,
                credentials,
                rerunIfOutcomeUnknown,
                Objects.requireNonNull(consumer, "consumer"),
                onProgress);
    }

    /**
     * Reports what is happening to the call while it runs: that it is queued, has started, waits for a retry, and so on. The
     * call has the same result, exceptions, time-out and repeats as without it. Calls of tools by their own methods report
     * nothing.
     *
     * <p>Progress is for display: stages may be skipped, and repeated when the call is sent again. The consumer gets one message
     * after the other, on a thread of the channel, and none after the call has ended. A slow consumer delays only its own call,
     * and skips stages. If it throws, the call throws the same. A server that is older than this option reports nothing.
     */
    public ToolCallOptions withProgress(Consumer<Progress> consumer) {
        return new ToolCallOptions(
                timeout,
                headers,
                credentials,
                rerunIfOutcomeUnknown,
                onTrailers,
                Objects.requireNonNull(consumer, "consumer"));
    }

    Duration timeout() {
        return timeout;
    }

    Metadata headers() {
        return headers;
    }

    @Nullable
    CallCredentials credentials() {
        return credentials;
    }

    boolean rerunIfOutcomeUnknown() {
        return rerunIfOutcomeUnknown;
    }

    Consumer<Metadata> onTrailers() {
        return onTrailers;
    }

    @Nullable
    Consumer<Progress> onProgress() {
        return onProgress;
    }
}
