"""Compiled expectations, which check an output and say what is wrong with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import re2

from agenta_ai_server.domain.errors import Violation
from agenta_ai_server.domain.values import MAX_VALUES
from agenta_ai_server.tools import model_json
from agenta_ai_server.tools.cases import json_matching
from agenta_ai_server.tools.json_schema.bounds import subschemas
from agenta_ai_server.tools.json_schema.schema import Schema, SchemaError
from agenta_ai_server.tools.json_schema.values import WHOLE, count_values, path_of
from agenta_ai_server.tools.strict_json import TooManyValues

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenta_ai_server.domain.values import Json
    from agenta_ai_server.tools.cases.arguments import Expected

# What an output has at most where a pattern is matched, in how many instructions of RE2 a pattern is compiled at most,
# and their product. Matching takes time that grows with that: 60 ms at the worst, in a thread that lets others run.
MAX_PATTERN_CHARACTERS, MAX_PATTERN_SIZE, MAX_PATTERN_WORK = 10_000, 1_500, 5_000_000
MAX_PATTERN_BYTES = 1 << 18
# What an output has at most where it is checked as JSON.
MAX_JSON_CHARACTERS = 200_000
# The product of what an output has and of how many patterns and slow formats its schema matches with the same text.
# Other threads wait meanwhile, for up to 1.4 µs each: 80 ms.
MAX_MATCHED_CHARACTERS = 60_000
# Values in JSON that is expected of an output.
MAX_EXPECTED_VALUES = 1_000
# Patterns in a schema, each of which takes up to half a millisecond to compile.
MAX_SCHEMA_PATTERNS = 20
MAX_SHOWN = 200
MAX_REASON_CHARACTERS = 100
NO_PATTERN = "Must be an RE2 regular expression, without look-around and back-references: {reason}."
LARGE_PATTERN = "The pattern is too large. Use a shorter one, or smaller repetitions."
_JSON = ("json_schema", "json_equals", "json_contains")


class ExpectationError(ValueError):
    """What is expected can't be checked.

    Attributes:
        violations: What is wrong, with paths that begin with a property of the expectation.
    """

    def __init__(self, violations: list[Violation]) -> None:
        super().__init__(violations[0].description)
        self.violations = violations


class Expectation:
    """What one case expects.

    Args:
        expected: As the caller gave it.

    Raises:
        ExpectationError: A pattern or a schema can't be compiled, or a JSON value is too large.
    """

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._json = [name for name in _JSON if name in expected.model_fields_set]
        violations: list[Violation] = []
        self._pattern = _compiled(expected.pattern, violations)
        self._schema = _schema(expected.json_schema, violations)
        violations += [
            Violation(name, f"Must have at most {MAX_EXPECTED_VALUES:,} values.")
            for name in ("json_equals", "json_contains")
            if count_values(getattr(expected, name), MAX_EXPECTED_VALUES + 1) > MAX_EXPECTED_VALUES
        ]
        if violations:
            raise ExpectationError(violations)

    @property
    def texts(self) -> list[str]:
        """The texts that are expected in an output."""
        expected = self._expected
        given = [*(expected.contains_all or ()), *(expected.contains_any or ())]
        return [expected.equals, *given] if expected.equals else given

    def work(self, output: str) -> int:
        """Return the cost of checking this output, in characters that are examined once."""
        return len(output) * (100 if self._pattern else 10 if self._json else 1)

    def faults(self, output: str) -> list[str]:
        """Return what is wrong with an output, in sentences; nothing if it meets the expectations."""
        return [*self._of_text(output), *self._of_pattern(output), *self._of_json(output)]

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

    def _of_json(self, output: str) -> Iterator[str]:
        if not self._json:
            return
        matches = self._schema.matches if self._schema else 0
        most = MAX_MATCHED_CHARACTERS // matches if matches else MAX_JSON_CHARACTERS
        if len(output) > most:
            why = "its schema has patterns" if matches else "it is checked as JSON"
            yield f"Must have at most {most:,} characters, because {why}."
            return
        try:
            value = model_json.parse(output, exact=False)
        except TooManyValues:
            yield f"Must have at most {MAX_VALUES:,} values as JSON."
            return
        except ValueError:
            yield "Must be JSON, and nothing else."
            return
        if self._schema:
            for violation in self._schema.violations(value, ""):
                place = "" if violation.field == WHOLE else f"{violation.field}: "
                yield f"{place}{violation.description}"
        if "json_equals" in self._json and not json_matching.equals(value, self._expected.json_equals):
            yield f"Must equal {_as_json(self._expected.json_equals)} as JSON."
        if "json_contains" in self._json:
            yield from self._of_containment(value)

    def _of_containment(self, value: Json) -> Iterator[str]:
        try:
            if not json_matching.contains(value, self._expected.json_contains):
                yield f"Must contain {_as_json(self._expected.json_contains)} as JSON."
        except json_matching.TooManyComparisons as error:
            yield f"Can't be checked: {error}."


def _compiled(pattern: str | None, violations: list[Violation]) -> re2._Regexp | None:
    if pattern is None:
        return None
    options = re2.Options()
    options.max_mem = MAX_PATTERN_BYTES
    options.log_errors = False
    try:
        compiled = re2.compile(pattern, options)
    except UnicodeEncodeError:
        violations.append(Violation("pattern", NO_PATTERN.format(reason="half of a surrogate pair isn't text")))
        return None
    except re2.error as error:
        violations.append(Violation("pattern", _why_not(error)))
        return None
    if compiled.programsize > MAX_PATTERN_SIZE:
        violations.append(Violation("pattern", LARGE_PATTERN))
    return compiled


def _why_not(error: re2.error) -> str:
    """Describe why RE2, whose reasons are bytes, refuses a pattern."""
    reason = error.args[0].decode(errors="replace") if error.args else ""
    if "too large" in reason:
        return LARGE_PATTERN
    return NO_PATTERN.format(reason=reason[:MAX_REASON_CHARACTERS])


def _schema(source: dict[str, Json] | None, violations: list[Violation]) -> Schema | None:
    if _count_patterns(source) > MAX_SCHEMA_PATTERNS:
        violations.append(Violation("json_schema", f"Must have at most {MAX_SCHEMA_PATTERNS} patterns."))
        return None
    try:
        return None if source is None else Schema(source)
    except SchemaError as error:
        found = [(path_of("json_schema", list(path)), f"It {sentence}.") for path, sentence in error.faults]
        violations += [Violation(path, sentence) for path, sentence in found]
        return None


def _count_patterns(source: dict[str, Json] | None) -> int:
    of_keys = (each.get("patternProperties") for _, each in subschemas(source))
    return sum(len(each) for each in of_keys if isinstance(each, dict)) + sum(
        "pattern" in each for _, each in subschemas(source)
    )


def _shown(text: str) -> str:
    return f'"{text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"}"'


def _as_json(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
