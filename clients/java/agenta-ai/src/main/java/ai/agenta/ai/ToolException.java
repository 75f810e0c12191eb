package ai.agenta.ai;

import ai.agenta.ai.v1.CallToolResponse;
import ai.agenta.ai.v1.ContentBlock;
import ai.agenta.ai.v1.ErrorReason;
import ai.agenta.ai.v1.ToolError;
import java.time.Duration;
import java.util.List;
import java.util.stream.Collectors;

/** A tool that ran and failed. */
public final class ToolException extends RuntimeException {
    private static final long serialVersionUID = 1;

    private final CallToolResponse response;

    ToolException(CallToolResponse response) {
        this.response = response;
    }

    private ToolError error() {
        return response.getError();
    }

    /** One sentence for people. */
    @Override
    public String getMessage() {
        return Sentences.make(
                Sentences.cause(reason(), "the tool failed"), description(), fieldViolations(), retryDelay());
    }

    /** What the tool said. */
    public String description() {
        return response.getContentList().stream()
                .filter(ContentBlock::hasText)
                .map(ContentBlock::getText)
                .collect(Collectors.joining("\n"));
    }

    /** The class of failure, one of those numbered from 100. */
    public ErrorReason reason() {
        return error().getReason();
    }

    /** Whether the same request may succeed later. Nothing was bought by this one then. */
    public boolean retryable() {
        return error().getRetryable();
    }

    /** The time to wait before that. Zero if unknown. */
    public Duration retryDelay() {
        return Sentences.duration(error().getRetryDelay());
    }

    /** The rules that the tool's answer broke, if that is why. */
    public List<FieldViolation> fieldViolations() {
        return error().getFieldViolationsList().stream()
                .map(each -> new FieldViolation(each.getField(), each.getDescription()))
                .toList();
    }

    /** The whole answer; its meta tells how it came about. */
    public CallToolResponse response() {
        return response;
    }
}
