"""Between Python's JSON values and ``google.protobuf.Struct``, ``ListValue`` and ``Value``.

Client and server share it, so it knows nothing but protobuf. It walks messages itself, because protobuf's
``MessageToDict`` and ``ParseDict`` take twice as long and name no place in their errors.

A ``Struct`` holds every number as a double. Integers are exact up to 2**53; integral numbers up to there are read back
as ``int``. JSON has no NaN and no infinity, so neither direction lets them pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value

# The largest integer up to which a double holds every integer.
MAX_EXACT_INTEGER: Final = 2**53
# The most levels of objects and arrays that every protobuf runtime reads: it refuses messages nested deeper than 100,
# and each level of JSON takes three.
MAX_DEPTH: Final = 32
_MAX_STEP_CHARACTERS = 100


class CodecError(ValueError):
    """A value that can't be converted. ``str()`` is a sentence that begins with the place.

    Attributes:
        problem: What is wrong, a sentence without the place.
        path: The place below the root: ``".guidelines"``, ``".messages[3].content"``; empty for the root. Keys are cut
            after 100 characters.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem
        # Collected on the way up, because most values never need them.
        self._steps: list[str] = []

    @property
    def path(self) -> str:
        return "".join(reversed(self._steps))

    def at(self, step: str | int) -> None:
        """Add the next step towards the root: a key or an index."""
        self._steps.append(f"[{step}]" if isinstance(step, int) else f".{step[:_MAX_STEP_CHARACTERS]}")

    def __str__(self) -> str:
        return f"{self.path.removeprefix('.')}: {self.problem}" if self._steps else self.problem


# --- From messages


def from_struct(struct: Struct, *, max_values: int | None = None) -> dict[str, Any]:
    """Return the message as a dict. Integral numbers up to 2**53 become integers.

    Args:
        struct: The message.
        max_values: How many values it may hold at most, nested ones included; ``None`` for any number. A megabyte can
            hold so many values that all other calls would have to wait.

    Raises:
        CodecError: A number isn't finite, or there are more than ``max_values`` values.
    """
    return Reader(max_values).struct(struct)


def from_value(value: Value, *, max_values: int | None = None) -> Any:
    """Return the message as a JSON value; one that isn't set is ``None``. See :func:`from_struct`."""
    return Reader(max_values).value(value)


class Reader:
    """Reads values, and counts them.

    Args:
        max_values: How many there may be in all; ``None`` for any number.
    """

    def __init__(self, max_values: int | None) -> None:
        self._max = max_values
        self._left = -1 if max_values is None else max_values

    def count(self) -> None:
        """Count one value.

        Raises:
            CodecError: It is one too many.
        """
        if self._left == 0:
            raise CodecError(f"Too many values (maximum {self._max:,}).")
        # Below zero it counts without an end.
        self._left -= 1

    def struct(self, struct: Struct) -> dict[str, Any]:
        """Return an object; it itself isn't counted."""
        result: dict[str, Any] = {}
        for key, value in struct.fields.items():
            try:
                result[key] = self.value(value)
            except CodecError as error:
                error.at(key)
                raise
        return result

    def items(self, values: ListValue) -> list[Any]:
        """Return an array; it itself isn't counted."""
        result: list[Any] = []
        for index, value in enumerate(values.values):
            try:
                result.append(self.value(value))
            except CodecError as error:
                error.at(index)
                raise
        return result

    def value(self, value: Value) -> Any:
        """Return a value; one that isn't set is ``None``."""
        # As count(), which would take a fifth of the time.
        if self._left == 0:
            self.count()
        self._left -= 1
        match value.WhichOneof("kind"):
            case "string_value":
                return value.string_value
            case "number_value":
                return finite(value.number_value)
            case "bool_value":
                return value.bool_value
            case "struct_value":
                return self.struct(value.struct_value)
            case "list_value":
                return self.items(value.list_value)
            case _:
                return None


def finite(number: float) -> float | int:
    """Return the number as JSON has it: an integer if it is integral and exact.

    Raises:
        CodecError: It isn't finite.
    """
    if not isfinite(number):
        raise CodecError("Must be a finite number: JSON has no NaN and no infinity.")
    return int(number) if number.is_integer() and abs(number) <= MAX_EXACT_INTEGER else number


# --- To messages


def to_struct(fields: Mapping[str, Any], *, exact: bool = True, max_depth: int = MAX_DEPTH) -> Struct:
    """Return a mapping as a message.

    Args:
        fields: JSON values by their keys. Mappings, lists and tuples may be nested.
        exact: Whether an integer beyond 2**53 is refused. Otherwise it loses digits, as everywhere in a ``Struct``.
        max_depth: How many levels of objects and arrays there may be, this one included.

    Raises:
        CodecError: Something isn't a JSON value, isn't text in UTF-8, is nested too deeply, or would lose digits.
    """
    struct = Struct()
    _Writer(exact).fields(struct, fields, max_depth)
    return struct


def fill(message: Value, value: Any, *, exact: bool = True, max_depth: int = MAX_DEPTH) -> None:
    """Make ``message``, which must be empty, hold ``value``. See :func:`to_struct`.

    In its place, because a message that is put into another one is copied, at each level once more.
    """
    _Writer(exact).value(message, value, max_depth)


def fill_struct(struct: Struct, fields: Mapping[str, Any], *, exact: bool = True, max_depth: int = MAX_DEPTH) -> None:
    """Make ``struct``, which must be empty, hold ``fields``. See :func:`to_struct`."""
    _Writer(exact).fields(struct, fields, max_depth)


def fill_list(message: ListValue, items: list[Any], *, exact: bool = True, max_depth: int = MAX_DEPTH) -> None:
    """Make ``message``, which must be empty, hold ``items``. See :func:`to_struct`."""
    _Writer(exact).items(message, items, max_depth)


class _Writer:
    def __init__(self, exact: bool) -> None:
        self._exact = exact

    def fields(self, struct: Struct, fields: Mapping[str, Any], depth: int) -> None:
        if depth <= 0:
            raise CodecError("Is nested too deeply. Send it as a string that contains JSON.")
        target = struct.fields
        for key, item in fields.items():
            try:
                self.value(target[key], item, depth - 1)
            except CodecError as error:
                error.at(_shown(key))
                raise
            except (TypeError, UnicodeEncodeError):
                raise CodecError(f"The key {_shown(key)!r} is not text.") from None

    def items(self, message: ListValue, items: list[Any] | tuple[Any, ...], depth: int) -> None:
        if depth <= 0:
            raise CodecError("Is nested too deeply. Send it as a string that contains JSON.")
        add = message.values.add
        for index, item in enumerate(items):
            try:
                self.value(add(), item, depth - 1)
            except CodecError as error:
                error.at(index)
                raise

    def value(self, message: Value, value: Any, depth: int) -> None:
        match value:
            case str():
                try:
                    message.string_value = value
                except UnicodeEncodeError as error:
                    raise CodecError(f"Character {error.start} is half of a surrogate pair, not text.") from None
            case bool():
                message.bool_value = value
            case int() | float():
                message.number_value = self._number(value)
            case dict():
                message.struct_value.SetInParent()
                self.fields(message.struct_value, value, depth)
            case list() | tuple():
                message.list_value.SetInParent()
                self.items(message.list_value, value, depth)
            case None:
                message.null_value = NULL_VALUE
            case Mapping():
                message.struct_value.SetInParent()
                self.fields(message.struct_value, value, depth)
            case _:
                raise CodecError(f"A {type(value).__name__} is not a JSON value.")

    def _number(self, number: float) -> float:
        if isinstance(number, int):
            if self._exact and abs(number) > MAX_EXACT_INTEGER:
                raise CodecError("An integer beyond 2**53 would lose digits. Send it as a string.")
            try:
                return float(number)
            except OverflowError:
                raise CodecError("An integer beyond 1e308 is too large for a double. Send it as a string.") from None
        if not isfinite(number):
            raise CodecError(f"{number} is not a JSON value.")
        return number


def _shown(key: object) -> str:
    return key if isinstance(key, str) else repr(key)
