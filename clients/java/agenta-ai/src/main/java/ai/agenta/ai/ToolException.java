package ai.agenta.ai;

import ai.agenta.ai.v1.CallToolResponse;
import ai.agenta.ai.v1.ContentBlock;
import ai.agenta.ai.v1.ErrorReason;
import ai.agenta.ai.v1.ToolError;
import java.time.Duration;
import java.util.List;
import java.util.stream.Collectors;

/** A tool that ran and failed. */
public final class ToolException extends AgentaException {
    private static final long serialVersionUID = 1;

    private final CallToolResponse response;

    /**
     * Reads what a stub returned.
     *
     * @param response one with {@code is_error}
     */
    public ToolException(CallToolResponse response) {
        this(response, "");
    }

    ToolException(CallToolResponse response, String requestId) {
        super(requestId, null);
        if (!response.getIsError()) {
            throw new IllegalArgumentException("the response has no is_error: the tool did not fail");
        }
        this.response = response;
    }

    private ToolError error() {
        return response.getError();
    }

    @Override
    public String getMessage() {
        return name(reason(), "the tool failed") + ": " + Sentence.of(description(), fieldViolations(), retryDelay());
    }

    /** What the tool said. */
    public String description() {
        return response.getContentList().stream()
                .filter(ContentBlock::hasText)
                .map(ContentBlock::getText)
                .collect(Collectors.joining("\n"));
    }

    /** The class of failure, one of those numbered from 100. */
    @Override
    public ErrorReason reason() {
        return error().getReason();
    }

    /** Whether the same request may succeed later. If so, this call was not billed. */
    public boolean retryable() {
        return error().getRetryable();
    }

    @Override
    public Duration retryDelay() {
        return duration(error().getRetryDelay());
    }

    @Override
    public List<FieldViolation> fieldViolations() {
        return error().getFieldViolationsList().stream()
                .map(each -> new FieldViolation(each.getField(), each.getDescription()))
                .toList();
    }

    /** The whole response; its meta describes how the result came about. */
    public CallToolResponse response() {
        return response;
    }
}
