"""Between ``google.protobuf.Struct`` and Python's JSON types.

Own walks, because protobuf's ``MessageToDict`` takes twice as long.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from google.protobuf.struct_pb2 import ListValue, Struct, Value

from agenta_ai_server.domain.errors import Reason, Refused, Violation

if TYPE_CHECKING:
    from agenta_ai_server.domain.results import Json

# A double holds every integer up to this one, so an integral number below it is what the caller meant.
MAX_EXACT_INTEGER = 2**53


def from_struct(struct: Struct, path: str) -> dict[str, Json]:
    """Return ``struct`` as a dict; integral numbers become integers.

    Args:
        struct: The message.
        path: Where it stands in the request, for errors.

    Raises:
        Refused: ARGUMENTS_INVALID for a number that is not finite, which JSON doesn't have.
    """
    return {key: _from_value(value, f"{path}.{key}") for key, value in struct.fields.items()}


def _from_value(value: Value, path: str) -> Json:
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value":
            return _from_number(value.number_value, path)
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return from_struct(value.struct_value, path)
        case "list_value":
            return [_from_value(item, f"{path}[{i}]") for i, item in enumerate(value.list_value.values)]
        case _:
            return None


def _from_number(number: float, path: str) -> float | int:
    if not math.isfinite(number):
        violation = Violation(path, "Must be a finite number: JSON has no NaN and no infinity.")
        raise Refused(Reason.ARGUMENTS_INVALID, f"{path} is not a finite number.", violations=[violation])
    return int(number) if number.is_integer() and abs(number) <= MAX_EXACT_INTEGER else number


def to_struct(value: dict[str, Json]) -> Struct:
    """Return ``value`` as a message. Integers beyond 2^53 lose digits, as everywhere in a Struct."""
    return Struct(fields={key: to_value(item) for key, item in value.items()})


def to_value(value: Json) -> Value:
    """Return ``value`` as a message. Integers beyond 2^53 lose digits, as everywhere in a Struct."""
    match value:
        case str():
            return Value(string_value=value)
        case bool():
            return Value(bool_value=value)
        case int() | float():
            return Value(number_value=value)
        case dict():
            return Value(struct_value=to_struct(value))
        case list():
            return Value(list_value=ListValue(values=[to_value(item) for item in value]))
        case None:
            return Value(null_value=0)  # type: ignore[arg-type]  # NULL_VALUE, the enum's only member
