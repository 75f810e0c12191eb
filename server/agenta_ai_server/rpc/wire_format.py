"""Detects a flood of values or fields in a serialized request without parsing it.

A megabyte of tiny entries of one map takes a tenth of a second to parse, two thousand times as long as one of text, and
must be parsed before the rate limit, which needs the tool's name. The encoding is
https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

VARINT, LENGTH = 0, 2
# Ten bytes of seven bits each.
VARINT_BITS = 70
# The other kinds of fields, with their sizes in bytes. Groups, which parsers still read, have one at each end.
FIXED = {1: 8, 3: 0, 4: 0, 5: 4}
# What is smaller holds so few values that parsing it is quick.
MIN_SCANNED_BYTES = 1 << 16
# What a value needs at most: its entry in a struct, the entry's key, itself, and what it holds.
FIELDS_OF_VALUE = 4
# Fields besides: the request's own, and those that later clients may send.
OTHER_FIELDS = 1000
# Each number ends with a byte below these.
_GOES_ON = bytes(range(0x80, 0x100))


class Packed(Enum):
    """Numbers in a list that are packed into one field."""

    VARINTS = auto()
    DOUBLES = auto()


@dataclass(slots=True, eq=False)
class Fields:
    """The fields of a message that lead to values.

    Attributes:
        held: What each of them holds, by its number: a message with such fields, packed numbers, or anything else.
        are_values: Whether each of them is a value itself.
    """

    held: dict[int, Fields | Packed | None]
    are_values: bool = False


# Value, ListValue.values, Struct.fields with the value of each entry; Value.struct_value and list_value.
VALUE = Fields({})
LIST = Fields({1: VALUE}, are_values=True)
STRUCT = Fields({1: Fields({2: VALUE})}, are_values=True)
VALUE.held.update({5: STRUCT, 6: LIST})
CALL_TOOL = Fields({2: STRUCT})
NO_VALUES = Fields({})


def is_flooded(data: bytes, most: int, request: Fields) -> bool:
    """Return whether the request holds more than ``most`` values, or many fields that hold none.

    Small structs and lists are looked into, too: a parser makes one struct of many that are sent for the same field.

    Args:
        data: A serialized request. What isn't one is left to the parser.
        most: Values that its large structs and lists may hold in all.
        request: The fields of the request that lead to values.
    """
    values = found = 0
    nested = [(0, len(data), request)]
    while nested:
        begin, end, fields = nested.pop()
        for number, start, stop in _fields(data, begin, end):
            found += 1
            if number in fields.held:
                values += fields.are_values
                held = fields.held[number]
                if isinstance(held, Fields):
                    nested.append((start, stop, held))
                elif held:
                    values += _numbers(data, start, stop, held)
            if values > most or found > values * FIELDS_OF_VALUE + OTHER_FIELDS:
                return True
    return False


def _numbers(data: bytes, start: int, stop: int, packed: Packed) -> int:
    """Return how many numbers are packed into a field at most."""
    if packed is Packed.VARINTS:
        return len(data[start:stop].translate(None, _GOES_ON))
    return (stop - start) // FIXED[1]


def _fields(data: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number, the begin and the end of each field, up to where the data can't be read.

    Fields without a length hold nothing: they end where they begin.
    """
    try:
        while position < end:
            tag, position = _varint(data, position)
            kind, size = tag & 7, 0
            if kind == LENGTH:
                size, position = _varint(data, position)
            elif kind == VARINT:
                _, position = _varint(data, position)
            else:
                position += FIXED[kind]
            yield tag >> 3, position, position + size
            position += size
    except (IndexError, KeyError):
        return


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number at this position, and the position behind it.

    Raises:
        IndexError: The data end within it, or it is longer than any parser takes: adding up a megabyte takes a minute.
    """
    byte = data[position]
    if byte < 0x80:
        return byte, position + 1
    number, shift = byte & 0x7F, 7
    while byte >= 0x80:
        if shift >= VARINT_BITS:
            raise IndexError(position)
        position += 1
        byte = data[position]
        number |= (byte & 0x7F) << shift
        shift += 7
    return number, position + 1
