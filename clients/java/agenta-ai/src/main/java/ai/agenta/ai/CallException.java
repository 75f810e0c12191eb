package ai.agenta.ai;

import ai.agenta.ai.v1.ErrorReason;
import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.QuotaFailure;
import com.google.rpc.RequestInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.io.IOException;
import java.net.ConnectException;
import java.time.Duration;
import java.util.List;
import java.util.Objects;
import javax.net.ssl.SSLException;
import org.jspecify.annotations.Nullable;

/** A call that ended with a status other than OK. Its cause is the exception of grpc-java, with all trailers. */
public final class CallException extends AgentaException {
    private static final long serialVersionUID = 1;
    static final String DOMAIN = "agenta.ai";
    private static final List<String> CONNECTION_FAILED = List.of("io exception", "ssl exception");
    private static final Metadata.Key<String> CALL_ID =
            Metadata.Key.of("x-request-id", Metadata.ASCII_STRING_MARSHALLER);

    private final Status.Code code;
    private final String description;
    private final Outcome.Kind outcome;
    private final boolean refused;
    private final ErrorReason reason;
    private final Duration retryDelay;
    private final transient List<FieldViolation> fieldViolations;
    private final transient List<QuotaFailure.Violation> quotaViolations;
    private final String callId;

    /** Reads what a stub threw. */
    public CallException(StatusRuntimeException thrown) {
        this(thrown, "", Outcome.Kind.UNSENT);
    }

    /**
     * Reads what a stub threw.
     *
     * @param before what became of the call before
     */
    CallException(StatusRuntimeException thrown, String requestId, Outcome.Kind before) {
        super(requestId, thrown);
        List<Any> details = details(thrown);
        ErrorInfo info = find(details, ErrorInfo.getDefaultInstance());
        code = thrown.getStatus().getCode();
        description = Objects.requireNonNullElse(thrown.getStatus().getDescription(), "");
        refused = info.getDomain().equals(DOMAIN);
        // A server that doesn't have the method runs nothing, either.
        var last = Outcome.in(thrown)
                .orElse(refused || code == Status.Code.UNIMPLEMENTED ? Outcome.Kind.REFUSED : Outcome.Kind.OPEN);
        outcome = last.compareTo(before) < 0 ? before : last;
        reason = refused ? reason(info.getReason()) : ErrorReason.ERROR_REASON_UNSPECIFIED;
        retryDelay = duration(find(details, RetryInfo.getDefaultInstance()).getRetryDelay());
        fieldViolations = find(details, BadRequest.getDefaultInstance()).getFieldViolationsList().stream()
                .map(each -> new FieldViolation(each.getField(), each.getDescription()))
                .toList();
        quotaViolations = find(details, QuotaFailure.getDefaultInstance()).getViolationsList();
        callId = callId(find(details, RequestInfo.getDefaultInstance()), thrown.getTrailers());
    }

    private static String callId(RequestInfo info, @Nullable Metadata trailers) {
        String trailer = trailers == null ? null : trailers.get(CALL_ID);
        return info.getRequestId().isEmpty() && trailer != null ? trailer : info.getRequestId();
    }

    private static List<Any> details(StatusRuntimeException thrown) {
        // A proxy may cut or rewrite trailers. The status itself still counts, so unreadable details are as good as
        // none.
        try {
            return StatusProto.fromThrowable(thrown).getDetailsList();
        } catch (RuntimeException unreadable) {
            return List.of();
        }
    }

    @SuppressWarnings("unchecked")
    private static <T extends Message> T find(List<Any> details, T none) {
        for (Any detail : details) {
            if (detail.is(none.getClass())) {
                try {
                    return (T) detail.unpack(none.getClass());
                } catch (InvalidProtocolBufferException unreadable) {
                    return none;
                }
            }
        }
        return none;
    }

    @Override
    public String getMessage() {
        String sentence =
                name(reason, code.toString()) + ": " + Sentence.of(explanation(), fieldViolations, retryDelay);
        boolean isTool = !requestId().isEmpty();
        return switch (outcome) {
            case UNSENT ->
                ended(sentence) + (isTool ? "Nothing was sent, so the tool was not run." : "Nothing was sent.");
            case REFUSED -> refused || !isTool ? sentence : ended(sentence) + "The tool was not run.";
            case OPEN ->
                !isTool
                        ? sentence
                        : ended(sentence)
                                + "The call may have run and may have been billed. To get its result, send it again"
                                + " with request_id " + requestId() + ".";
        };
    }

    private static String ended(String sentence) {
        return sentence.endsWith(".") || sentence.endsWith("?") ? sentence + " " : sentence + ". ";
    }

    /** The status's own text, unless grpc-java says no more there than that a connection failed. */
    private String explanation() {
        // Other causes are not of a connection, such as that of credentials that failed, and may hold secrets.
        if (CONNECTION_FAILED.stream().noneMatch(description::startsWith)) {
            return description;
        }
        for (Throwable cause = getCause(); cause != null; cause = cause.getCause()) {
            String text = Objects.requireNonNullElse(
                    cause.getMessage(), cause.getClass().getSimpleName());
            if (cause instanceof SSLException) {
                return "TLS failed: " + text
                        + ". Does the server speak TLS, with a certificate that this client trusts?";
            }
            if (cause instanceof IOException) {
                return outcome == Outcome.Kind.UNSENT || cause instanceof ConnectException
                        ? "no connection: " + text + ". Is agenta-ai-server running?"
                        : "the connection broke: " + text;
            }
        }
        return description;
    }

    Outcome.Kind outcome() {
        return outcome;
    }

    /** The status. */
    public Status.Code code() {
        return code;
    }

    /** The status's own text. Empty if it has none. */
    public String description() {
        return description;
    }

    /**
     * Whether the tool was certainly not run: the service said so, or nothing was sent. If false, the call may have run and may
     * have been billed; send it again with {@link #requestId()} to get its result.
     */
    public boolean notRun() {
        return outcome != Outcome.Kind.OPEN;
    }

    @Override
    public ErrorReason reason() {
        return reason;
    }

    @Override
    public Duration retryDelay() {
        return retryDelay;
    }

    @Override
    public List<FieldViolation> fieldViolations() {
        return fieldViolations;
    }

    /** The limits that the call exceeded, if that is why it was refused. */
    public List<QuotaFailure.Violation> quotaViolations() {
        return quotaViolations;
    }

    /** The server's own id of the call, as in its logs. Empty if unknown. */
    public String callId() {
        return callId;
    }
}
