import type { FieldViolation } from "./errors.js";

/**
 * The message, and what it leaves out of the details: violations and the time to wait. The rule is that of the clients of all
 * languages, tests/conformance/sentences.json.
 */
export function sentence(message: string, broken: readonly FieldViolation[], retryDelayMs: number | undefined): string {
  const untold = untoldOf(message, broken);
  let said = message;
  if (retryDelayMs && !/try again in/i.test(message)) {
    const when = `in ${Math.ceil(retryDelayMs / 1000)} s`;
    said = message.replace(/\b(try again)(?: later\b|(?=[.;,]|$))/i, `$1 ${when}`);
    if (said === message) {
      untold.push(`try again ${when}`);
    }
  }
  return untold.reduce((before, each) => `${before.replace(/\.+$/, "")}; ${each}`, said);
}

/** The violations that the message leaves out. What it says of one isn't said of the next. */
function untoldOf(message: string, broken: readonly FieldViolation[]): string[] {
  let rest = message;
  const untold: string[] = [];
  for (const { field, description } of broken) {
    const before = rest;
    if (field) {
      // A whole name: "arguments.text" isn't "arguments.text_format", and not "arguments.text[3]" either.
      const word = "[\\p{L}\\p{N}_]";
      rest = rest.replace(new RegExp(`(?<!${word}|\\.)${escaped(field)}(?!${word}|\\.${word}|\\[)`, "u"), " ");
    }
    const described = description.replace(/\.+$/, "");
    if (described) {
      rest = rest.replace(described, () => " ");
    }
    if (rest === before) {
      untold.push(field ? `${field}: ${description}` : description);
    }
  }
  return untold;
}

function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}
