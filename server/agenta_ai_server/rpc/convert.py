"""Between ``google.protobuf.Struct`` and Python's JSON types.

Own walks, because protobuf's ``MessageToDict`` takes twice as long.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value

from agenta_ai_server.domain.errors import Reason, Refused, Violation

if TYPE_CHECKING:
    from agenta_ai_server.domain.values import Json

# A double holds every integer up to this one, so an integral number below it is what the caller meant.
MAX_EXACT_INTEGER = 2**53
MAX_STEP_CHARACTERS = 100
MAX_VALUES = 10_000
TOO_MANY_VALUES = f"Too many values (maximum {MAX_VALUES:,})."


def from_struct(struct: Struct, path: str) -> dict[str, Json]:
    """Return ``struct`` as a dict; integral numbers become integers.

    Args:
        struct: The message.
        path: Where it stands in the request, for errors.

    Raises:
        Refused: ARGUMENTS_INVALID for a number that is not finite, which JSON doesn't have, and for more than 10,000
            values.
    """
    try:
        return _Reader().struct(struct)
    except _WrongError as error:
        at = path + "".join(reversed(error.steps))
        violation = Violation(at, str(error))
    raise Refused(Reason.ARGUMENTS_INVALID, f"{at}: {violation.description}", violations=[violation])


class _WrongError(ValueError):
    """Collects the steps to the value on its way up, because most structs never need them."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.steps: list[str] = []


class _Reader:
    """Walks one message. A megabyte can hold so many values that all other calls would wait for their end."""

    def __init__(self) -> None:
        self._left = MAX_VALUES

    def struct(self, struct: Struct) -> dict[str, Json]:
        result: dict[str, Json] = {}
        for key, value in struct.fields.items():
            try:
                result[key] = self._value(value)
            except _WrongError as error:
                error.steps.append(f".{key[:MAX_STEP_CHARACTERS]}")
                raise
        return result

    def _list(self, values: ListValue) -> list[Json]:
        result: list[Json] = []
        for index, value in enumerate(values.values):
            try:
                result.append(self._value(value))
            except _WrongError as error:
                error.steps.append(f"[{index}]")
                raise
        return result

    def _value(self, value: Value) -> Json:
        self._left -= 1
        if self._left < 0:
            raise _WrongError(TOO_MANY_VALUES)
        match value.WhichOneof("kind"):
            case "string_value":
                return value.string_value
            case "number_value":
                return _from_number(value.number_value)
            case "bool_value":
                return value.bool_value
            case "struct_value":
                return self.struct(value.struct_value)
            case "list_value":
                return self._list(value.list_value)
            case _:
                return None


def _from_number(number: float) -> float | int:
    if not math.isfinite(number):
        raise _WrongError("Must be a finite number: JSON has no NaN and no infinity.")
    return int(number) if number.is_integer() and abs(number) <= MAX_EXACT_INTEGER else number


def to_struct(value: dict[str, Json]) -> Struct:
    """Return ``value`` as a message. Integers beyond 2^53 lose digits, as everywhere in a Struct."""
    struct = Struct()
    _fill_fields(struct, value)
    return struct


def fill(message: Value, value: Json) -> None:
    """Make ``message``, which must be empty, say ``value``.

    In its place, because a message that is put into another one is copied, at each level once more.
    Integers beyond 2^53 lose digits, as everywhere in a Struct.
    """
    match value:
        case str():
            message.string_value = value
        case bool():
            message.bool_value = value
        case int() | float():
            message.number_value = value
        case dict():
            message.struct_value.SetInParent()
            _fill_fields(message.struct_value, value)
        case list():
            message.list_value.SetInParent()
            for item in value:
                fill(message.list_value.values.add(), item)
        case None:
            message.null_value = NULL_VALUE


def _fill_fields(struct: Struct, value: dict[str, Json]) -> None:
    fields = struct.fields
    for key, item in value.items():
        fill(fields[key], item)
