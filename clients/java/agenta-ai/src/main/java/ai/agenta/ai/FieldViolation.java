package ai.agenta.ai;

import java.io.Serializable;

/**
 * One rule that one field broke.
 *
 * @param field its path, such as "arguments.guidelines"
 * @param description a sentence
 */
public record FieldViolation(String field, String description) implements Serializable {}
