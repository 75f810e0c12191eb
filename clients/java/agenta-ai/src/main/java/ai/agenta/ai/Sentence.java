package ai.agenta.ai;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Pattern;

/** What an error tells people. The rule is that of the clients of all languages, tests/conformance/sentences.json. */
final class Sentence {
    private static final Pattern TRY_AGAIN =
            Pattern.compile("\\b(try again)(?: later\\b|(?=[.;,]|$))", Pattern.CASE_INSENSITIVE);
    private static final Pattern TRY_AGAIN_IN = Pattern.compile("try again in", Pattern.CASE_INSENSITIVE);

    private Sentence() {}

    /** The message, and what it leaves out of the details: violations and the time to wait. */
    static String of(String message, List<FieldViolation> violations, Duration retryDelay) {
        List<String> untold = untold(message, violations);
        String said = message;
        if (retryDelay.compareTo(Duration.ZERO) > 0
                && !TRY_AGAIN_IN.matcher(message).find()) {
            String when = "in " + retryDelay.plusNanos(999_999_999).toSeconds() + " s";
            said = TRY_AGAIN.matcher(message).replaceFirst("$1 " + when);
            if (said.equals(message)) {
                untold.add("try again " + when);
            }
        }
        for (String each : untold) {
            said = withoutPeriod(said) + "; " + each;
        }
        return said;
    }

    /** The violations that the message leaves out. What it says of one isn't said of the next. */
    private static List<String> untold(String message, List<FieldViolation> violations) {
        List<String> untold = new ArrayList<>();
        String rest = message;
        for (FieldViolation each : violations) {
            String before = rest;
            if (!each.field().isEmpty()) {
                rest = wholeName(each.field()).matcher(rest).replaceFirst(" ");
            }
            String description = withoutPeriod(each.description());
            if (!description.isEmpty()) {
                rest = Pattern.compile(description, Pattern.LITERAL)
                        .matcher(rest)
                        .replaceFirst(" ");
            }
            if (rest.equals(before)) {
                untold.add(each.field().isEmpty() ? each.description() : each.field() + ": " + each.description());
            }
        }
        return untold;
    }

    /** Finds a name, but not "arguments.text" in "arguments.text_format" or "arguments.text[3]". */
    private static Pattern wholeName(String field) {
        return Pattern.compile(
                "(?<![\\w.])" + Pattern.quote(field) + "(?!\\w|\\.\\w|\\[)", Pattern.UNICODE_CHARACTER_CLASS);
    }

    private static String withoutPeriod(String text) {
        return text.replaceFirst("\\.+$", "");
    }
}
