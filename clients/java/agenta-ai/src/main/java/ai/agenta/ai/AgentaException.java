package ai.agenta.ai;

import ai.agenta.ai.v1.ErrorReason;
import java.time.Duration;
import java.util.List;

/** The error of a call. Its message says what happened, whether the tool may have run, and what to do. */
public abstract class AgentaException extends RuntimeException {
    private static final long serialVersionUID = 1;
    private static final String REASON_PREFIX = "ERROR_REASON_";
    /** The longest duration that protobuf allows: 10,000 years. A longer one could not be computed with. */
    private static final long MAX_SECONDS = 315_576_000_000L;

    private final String requestId;

    AgentaException(String requestId, Throwable cause) {
        super(null, cause);
        this.requestId = requestId;
    }

    /**
     * The request_id of the call (the idempotency key, AIP-155). Send the call again with it to get its result, or to have it
     * run once. Empty if the exception was made from what a stub threw, which doesn't know it.
     */
    public final String requestId() {
        return requestId;
    }

    /**
     * The class of the error. {@code ERROR_REASON_UNSPECIFIED} if it doesn't come from the service, {@code UNRECOGNIZED} if
     * this version doesn't know it.
     */
    public abstract ErrorReason reason();

    /** The fields at fault: of the request if it was refused, of the tool's answer if that was unusable. */
    public abstract List<FieldViolation> fieldViolations();

    /** The time after which a new attempt makes sense. Zero if unknown. */
    public abstract Duration retryDelay();

    static String name(ErrorReason reason, String otherwise) {
        return switch (reason) {
            case ERROR_REASON_UNSPECIFIED, UNRECOGNIZED -> otherwise;
            default -> reason.name().substring(REASON_PREFIX.length());
        };
    }

    static ErrorReason reason(String name) {
        var known = ErrorReason.getDescriptor().findValueByName(name);
        return known == null ? ErrorReason.UNRECOGNIZED : ErrorReason.valueOf(known);
    }

    static Duration duration(com.google.protobuf.Duration duration) {
        long seconds = Math.max(-MAX_SECONDS, Math.min(MAX_SECONDS, duration.getSeconds()));
        return Duration.ofSeconds(seconds, duration.getNanos());
    }
}
