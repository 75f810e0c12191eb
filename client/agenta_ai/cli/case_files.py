"""Test cases as people have them: JSON lines, or a table as CSV."""

from __future__ import annotations

import csv
import io
import json
import os
from typing import TYPE_CHECKING, Any, cast

from agenta_ai.cli import streams

if TYPE_CHECKING:
    from agenta_ai import PromptCase

# Columns of a table that aren't inputs. Agenta's own test sets call what is expected "correct_answer".
_OF_CASE = ("name", "remark")
_EXPECTED = {"expected": "equals", "correct_answer": "equals"}
_PREFIX, _INPUT_PREFIX = "expected.", "inputs."
_LISTS = ("contains_all", "contains_any", "contains_none")
_JSON = ("json_schema", "json_equals", "json_contains")
_NUMBERS = ("max_characters",)
_PROPERTIES = ("equals", "pattern", *_LISTS, *_JSON, *_NUMBERS)
_BETWEEN = "|"


def read(name: str) -> list[PromptCase]:
    """Return the cases that a file holds: a table if its name ends in ``.csv``, else an object of JSON in each line.

    Raises:
        InvalidInput: It can't be read, or isn't of that form. The sentence names the line.
    """
    from agenta_ai.errors import InvalidInput

    text = streams.read_text(name)[0]
    is_table = os.path.splitext(name)[1].lower() == ".csv"
    cases = _of_table(name, text) if is_table else _of_lines(name, text)
    if not cases:
        raise InvalidInput(f"{streams.shown(name)} contains no cases.")
    return cases


def _of_lines(name: str, text: str) -> list[PromptCase]:
    cases: list[PromptCase] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            case = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
            raise _wrong(name, number, f"is not JSON: {reason}") from None
        if not isinstance(case, dict):
            raise _wrong(name, number, 'is not an object such as {"inputs": {…}, "expected": {…}}')
        cases.append(cast("PromptCase", case))
    return cases


def _of_table(name: str, text: str) -> list[PromptCase]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    cases: list[PromptCase] = []
    try:
        for row in reader:
            if None in row or None in row.values():
                raise _wrong(name, reader.line_num, "doesn't have one cell for each column")
            cases.append(_case(name, reader.line_num, row))
    except csv.Error as error:
        raise _wrong(name, reader.line_num, f"is not CSV: {error}") from None
    return cases


def _case(name: str, number: int, row: dict[str, str]) -> PromptCase:
    case: dict[str, Any] = {"inputs": {}, "expected": {}}
    for column, cell in row.items():
        if column in _OF_CASE:
            case |= {column: cell} if cell else {}
        elif column in _EXPECTED or column.startswith(_PREFIX):
            property_ = _EXPECTED.get(column) or column.removeprefix(_PREFIX)
            if property_ not in _PROPERTIES:
                raise _wrong(
                    name,
                    1,
                    f"has the column {column}. Known columns of this kind: {', '.join(map(_column, _PROPERTIES))}",
                )
            if cell:
                case["expected"][property_] = _value(name, number, property_, cell)
        else:
            case["inputs"][column.removeprefix(_INPUT_PREFIX)] = cell
    return cast("PromptCase", case)


def _column(property_: str) -> str:
    return _PREFIX + property_


def _value(name: str, number: int, property_: str, cell: str) -> Any:
    if property_ in _LISTS:
        return [text.strip() for text in cell.split(_BETWEEN) if text.strip()]
    if property_ not in (*_JSON, *_NUMBERS):
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        raise _wrong(name, number, f"has something other than JSON in the column {_column(property_)}") from None


def _wrong(name: str, number: int, problem: str) -> Exception:
    from agenta_ai.errors import InvalidInput

    return InvalidInput(f"{streams.shown(name)}, line {number} {problem}.")
