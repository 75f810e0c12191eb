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
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.net.ConnectException;
import java.time.Duration;
import java.util.List;

/** A call that ended with a status other than OK. Its cause is what grpc-java threw, with all that came. */
public final class CallException extends RuntimeException {
    private static final long serialVersionUID = 1;
    private static final String DOMAIN = "agenta.ai";

    private final Status.Code code;
    private final String description;
    private final boolean notRun;
    private final ErrorReason reason;
    private final Duration retryDelay;
    private final transient List<FieldViolation> fieldViolations;
    private final transient List<QuotaFailure.Violation> quotaViolations;
    private final String requestId;

    /** Reads what a stub threw. */
    public CallException(StatusRuntimeException thrown) {
        super(thrown);
        List<Any> details = details(thrown);
        ErrorInfo info = find(details, ErrorInfo.getDefaultInstance());
        code = thrown.getStatus().getCode();
        description = thrown.getStatus().getDescription() == null
                ? ""
                : thrown.getStatus().getDescription();
        notRun = info.getDomain().equals(DOMAIN);
        reason = notRun ? Sentences.reason(info.getReason()) : ErrorReason.ERROR_REASON_UNSPECIFIED;
        retryDelay =
                Sentences.duration(find(details, RetryInfo.getDefaultInstance()).getRetryDelay());
        fieldViolations = find(details, BadRequest.getDefaultInstance()).getFieldViolationsList().stream()
                .map(each -> new FieldViolation(each.getField(), each.getDescription()))
                .toList();
        quotaViolations = find(details, QuotaFailure.getDefaultInstance()).getViolationsList();
        requestId = find(details, RequestInfo.getDefaultInstance()).getRequestId();
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

    /** One sentence for people. */
    @Override
    public String getMessage() {
        return Sentences.make(Sentences.cause(reason, code.toString()), said(), fieldViolations, retryDelay);
    }

    /** The status's own text, unless there was no connection: then it is "io exception", and the cause says why. */
    private String said() {
        for (Throwable cause = getCause(); cause != null; cause = cause.getCause()) {
            if (cause instanceof ConnectException) {
                return "no connection, is agenta-ai-server running? " + cause.getMessage();
            }
        }
        return description;
    }

    /** The status. */
    public Status.Code code() {
        return code;
    }

    /** The status's own text. Empty if it has none. */
    public String description() {
        return description;
    }

    /** Whether the service says that the tool was not run. If false, it may have run, and been paid for. */
    public boolean notRun() {
        return notRun;
    }

    /** Why the service refused the call. UNSPECIFIED if that isn't known, UNRECOGNIZED if this version doesn't know it. */
    public ErrorReason reason() {
        return reason;
    }

    /** The time after which a new attempt makes sense. Zero if unknown. */
    public Duration retryDelay() {
        return retryDelay;
    }

    /** The fields of the request that are at fault, if that is why. */
    public List<FieldViolation> fieldViolations() {
        return fieldViolations;
    }

    /** The limits that were used up, if that is why. */
    public List<QuotaFailure.Violation> quotaViolations() {
        return quotaViolations;
    }

    /** What the server calls the call in its logs. Empty if it didn't say. */
    public String requestId() {
        return requestId;
    }
}
