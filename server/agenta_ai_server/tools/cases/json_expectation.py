"""What is expected of an output as JSON. This runs in a worker process, where its time and memory are limited.

A caller chooses both the schema and the output, no bound on either keeps the library from taking a minute, and nothing
else in its process runs meanwhile.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from agenta_ai_server.domain.errors import Violation
from agenta_ai_server.domain.values import MAX_VALUES
from agenta_ai_server.tools import model_json
from agenta_ai_server.tools.cases import json_matching
from agenta_ai_server.tools.json_schema.bounds import subschemas
from agenta_ai_server.tools.json_schema.schema import Schema, SchemaError
from agenta_ai_server.tools.json_schema.values import WHOLE, count_values, path_of
from agenta_ai_server.tools.strict_json import TooManyValues

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agenta_ai_server.domain.values import Json

# The product of what an output has and of how many patterns and slow formats its schema matches with the same text.
# That takes up to 1.4 µs each: 80 ms.
MAX_MATCHED_CHARACTERS = 60_000
# Values in JSON that is expected of an output.
MAX_EXPECTED_VALUES = 1_000
# Patterns in a schema, each of which takes up to half a millisecond to compile.
MAX_SCHEMA_PATTERNS = 20
MAX_SHOWN = 200
# Of a sentence, which may begin with the path to a place a hundred levels down.
MAX_SENTENCE = 1_000


def violations(expected: Mapping[str, Json]) -> list[Violation]:
    """Return why no output can be checked; nothing if each can.

    Args:
        expected: What is expected by ``json_schema``, ``json_equals`` and ``json_contains``. The paths of violations
            begin with one of these.
    """
    return [
        *_of_schema(expected.get("json_schema")),
        *(
            Violation(name, f"Must have at most {MAX_EXPECTED_VALUES:,} values.")
            for name in ("json_equals", "json_contains")
            if count_values(expected.get(name), MAX_EXPECTED_VALUES + 1) > MAX_EXPECTED_VALUES
        ),
    ]


def faults(expected: Mapping[str, Json], output: str) -> list[str]:
    """Return what is wrong with an output, in sentences; nothing if it meets the expectations.

    Args:
        expected: What is expected, without :func:`violations`.
        output: The output.
    """
    return [fault[:MAX_SENTENCE] for fault in _faults(expected, output)]


def _of_schema(source: Json) -> Iterator[Violation]:
    if not isinstance(source, dict):
        return
    if _count_patterns(source) > MAX_SCHEMA_PATTERNS:
        yield Violation("json_schema", f"Must have at most {MAX_SCHEMA_PATTERNS} patterns.")
        return
    try:
        Schema(source)
    except SchemaError as error:
        for path, sentence in error.faults:
            yield Violation(path_of("json_schema", list(path)), f"It {sentence}.")


def _count_patterns(source: dict[str, Json]) -> int:
    of_keys = (each.get("patternProperties") for _, each in subschemas(source))
    return sum(len(each) for each in of_keys if isinstance(each, dict)) + sum(
        "pattern" in each for _, each in subschemas(source)
    )


def _faults(expected: Mapping[str, Json], output: str) -> Iterator[str]:
    source = expected.get("json_schema")
    schema = Schema(source) if isinstance(source, dict) else None
    if schema and schema.matches and len(output) > (most := MAX_MATCHED_CHARACTERS // schema.matches):
        yield f"Must have at most {most:,} characters, because its schema has patterns."
        return
    try:
        value = model_json.parse(output, exact=False)
    except TooManyValues:
        yield f"Must have at most {MAX_VALUES:,} values as JSON."
        return
    except ValueError:
        yield "Must be JSON, and nothing else."
        return
    if schema:
        for violation in schema.violations(value, ""):
            place = "" if violation.field == WHOLE else f"{violation.field}: "
            yield f"{place}{violation.description}"
    if "json_equals" in expected and not json_matching.equals(value, expected["json_equals"]):
        yield f"Must equal {_as_json(expected['json_equals'])} as JSON."
    if "json_contains" in expected:
        yield from _faults_of_containment(value, expected["json_contains"])


def _faults_of_containment(value: Json, expected: Json) -> Iterator[str]:
    try:
        if not json_matching.contains(value, expected):
            yield f"Must contain {_as_json(expected)} as JSON."
    except json_matching.TooManyComparisons as error:
        yield f"Can't be checked: {error}."


def _as_json(value: Json) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"
