package ai.agenta.ai;

import ai.agenta.ai.v1.ErrorReason;
import java.time.Duration;
import java.util.List;

/** What both exceptions say. */
final class Sentences {
    private static final String REASON_PREFIX = "ERROR_REASON_";

    private Sentences() {}

    /** The message, and what it leaves out of the details. */
    static String make(String cause, String message, List<FieldViolation> violations, Duration retryDelay) {
        StringBuilder said = new StringBuilder(cause).append(": ").append(message);
        for (FieldViolation each : violations) {
            if (!message.contains(each.field())) {
                said.append("; ").append(each.field()).append(": ").append(each.description());
            }
        }
        if (retryDelay.compareTo(Duration.ZERO) > 0) {
            said.append("; try again in ")
                    .append(retryDelay.toMillis() / 1000.0)
                    .append(" s");
        }
        return said.toString();
    }

    static String cause(ErrorReason reason, String otherwise) {
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
        return Duration.ofSeconds(duration.getSeconds(), duration.getNanos());
    }
}
