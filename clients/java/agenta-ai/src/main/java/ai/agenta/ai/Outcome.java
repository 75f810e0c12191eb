package ai.agenta.ai;

import io.grpc.Status;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/** What this client knows of a call that failed, as the cause of its status. */
final class Outcome extends Exception {
    private static final long serialVersionUID = 1;

    /** From the best to the worst. */
    enum Kind {
        /** Nothing was sent. */
        UNSENT,
        /** All that was sent was refused. */
        REFUSED,
        /** An attempt was lost, and may have run the tool. */
        OPEN
    }

    private final Kind kind;

    private Outcome(Kind kind, Throwable cause) {
        super(kind.name(), cause, false, false);
        this.kind = kind;
    }

    /** The status with this as its cause, and what was its cause as the cause of this. */
    static Status mark(Status status, Kind kind) {
        return status.withCause(new Outcome(kind, status.getCause()));
    }

    /** The second status, with the outcome of the first. */
    static Status copy(Status from, Status to) {
        return in(from.getCause()).map(kind -> mark(to, kind)).orElse(to);
    }

    /** The outcome among the causes of what was thrown. */
    static Optional<Kind> in(@Nullable Throwable thrown) {
        for (Throwable cause = thrown; cause != null; cause = cause.getCause()) {
            if (cause instanceof Outcome outcome) {
                return Optional.of(outcome.kind);
            }
        }
        return Optional.empty();
    }
}
