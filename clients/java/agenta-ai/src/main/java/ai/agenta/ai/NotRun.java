package ai.agenta.ai;

import io.grpc.Status;
import java.util.Optional;

/** The cause of a status that this client knows to mean that the tool was not run. Its message says why. */
final class NotRun extends Exception {
    private static final long serialVersionUID = 1;
    private static final String UNSENT = "Nothing was sent, so the tool was not run.";
    private static final String REFUSED = "The tool was not run.";

    private NotRun(String message, Throwable cause) {
        super(message, cause, false, false);
    }

    /** Marks a status that ended a call before anything was sent. */
    static Status unsent(Status status) {
        return status.withCause(new NotRun(UNSENT, status.getCause()));
    }

    /** Marks a status that ended a call after the service had refused its attempt. */
    static Status refused(Status status) {
        return status.withCause(new NotRun(REFUSED, status.getCause()));
    }

    /** The mark in the causes of what was thrown. */
    static Optional<NotRun> in(Throwable thrown) {
        for (Throwable cause = thrown; cause != null; cause = cause.getCause()) {
            if (cause instanceof NotRun mark) {
                return Optional.of(mark);
            }
        }
        return Optional.empty();
    }
}
