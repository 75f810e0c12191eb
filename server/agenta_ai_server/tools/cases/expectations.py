"""What is expected of an output as text, compiled: it checks an output and says what is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import re2

from agenta_ai_server.domain.errors import Violation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenta_ai_server.tools.cases.arguments import Expected

# What an output has at most where a pattern is matched, in how many instructions of RE2 a pattern is compiled at most,
# and their product. Matching takes time that grows with that: 60 ms at the worst, in a thread that lets others run.
MAX_PATTERN_CHARACTERS, MAX_PATTERN_SIZE, MAX_PATTERN_WORK = 10_000, 1_500, 5_000_000
MAX_PATTERN_BYTES = 1 << 18
MAX_SHOWN = 200
MAX_REASON_CHARACTERS = 100
NO_PATTERN = "Must be an RE2 regular expression, without look-around and back-references: {reason}."
LARGE_PATTERN = "The pattern is too large. Use a shorter one, or smaller repetitions."
_JSON = ("json_schema", "json_equals", "json_contains")


class ExpectationError(ValueError):
    """What is expected can't be checked.

    Attributes:
        violation: What is wrong, with a path that begins with a property of the expectation.
    """

    def __init__(self, field: str, description: str) -> None:
        super().__init__(description)
        self.violation = Violation(field, description)


class Expectation:
    """What one case expects.

    Args:
        expected: As the caller gave it.

    Raises:
        ExpectationError: The pattern can't be compiled.

    Attributes:
        of_json: What it expects of an output as JSON, which isn't checked here; see ``json_expectation``.
    """

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._pattern = None if expected.pattern is None else _compiled(expected.pattern)
        self.of_json = {name: getattr(expected, name) for name in _JSON if name in expected.model_fields_set}

    @property
    def texts(self) -> list[str]:
        """The texts that are expected in an output."""
        expected = self._expected
        given = [*(expected.contains_all or ()), *(expected.contains_any or ())]
        return [expected.equals, *given] if expected.equals else given

    def work(self, output: str) -> int:
        """Return the cost of checking this output, in characters that are examined once."""
        return len(output) * (100 if self._pattern else 1)

    def faults(self, output: str) -> list[str]:
        """Return what is wrong with an output as text, in sentences; nothing if it meets the expectations."""
        return [*self._of_text(output), *self._of_pattern(output)]

    def _of_text(self, output: str) -> Iterator[str]:
        expected = self._expected
        if expected.equals is not None and output.strip() != expected.equals.strip():
            yield f"Must be {_shown(expected.equals)}."
        for text in expected.contains_all or ():
            if text not in output:
                yield f"Must contain {_shown(text)}."
        if expected.contains_any and not any(text in output for text in expected.contains_any):
            yield f"Must contain one of {', '.join(_shown(text) for text in expected.contains_any)}."
        for text in expected.contains_none or ():
            if text in output:
                yield f"Must not contain {_shown(text)}."
        if expected.max_characters is not None and len(output) > expected.max_characters:
            yield f"Must have at most {expected.max_characters:,} characters, and has {len(output):,}."

    def _of_pattern(self, output: str) -> Iterator[str]:
        if self._pattern is None:
            return
        most = min(MAX_PATTERN_CHARACTERS, MAX_PATTERN_WORK // self._pattern.programsize)
        if len(output) > most:
            yield f"Must have at most {most:,} characters, because a pattern of this size is matched."
        elif self._pattern.search(output) is None:
            yield f"Must match the pattern {_shown(self._expected.pattern or '')}."


def _compiled(pattern: str) -> re2._Regexp:
    options = re2.Options()
    options.max_mem = MAX_PATTERN_BYTES
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except UnicodeEncodeError:
        raise ExpectationError("pattern", NO_PATTERN.format(reason="half of a surrogate pair isn't text")) from None
    except re2.error as error:
        raise ExpectationError("pattern", _why_not(error)) from None
    if compiled.programsize > MAX_PATTERN_SIZE:
        raise ExpectationError("pattern", LARGE_PATTERN)
    return compiled


def _why_not(error: re2.error) -> str:
    """Describe why RE2, whose reasons are bytes, refuses a pattern."""
    reason = error.args[0].decode(errors="replace") if error.args else ""
    if "too large" in reason:
        return LARGE_PATTERN
    return NO_PATTERN.format(reason=reason[:MAX_REASON_CHARACTERS])


def _shown(text: str) -> str:
    return f'"{text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"}"'
