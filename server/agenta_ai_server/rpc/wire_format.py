"""Finds a flood of values in a serialized ``CallToolRequest`` without parsing it.

A megabyte of tiny entries of one map takes a tenth of a second to parse, two thousand times as long as one of text, and
must be parsed before the rate limit, which needs the tool's name. The encoding is
https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

_Fields: TypeAlias = "dict[int, _Fields]"

VARINT, LENGTH = 0, 2
#: The other kinds of fields, with their sizes in bytes.
FIXED = {1: 8, 5: 4}
#: What is smaller holds so few values that parsing it is quick.
LARGE_BYTES = 1 << 16
# The fields that lead to values, by number: Struct.fields, its entry's value, Value.struct_value and list_value,
# ListValue.values.
_VALUE: _Fields = {}
_STRUCT: _Fields = {1: {2: _VALUE}}
_VALUE.update({5: _STRUCT, 6: {1: _VALUE}})
_REQUEST: _Fields = {2: _STRUCT}


def is_flooded(data: bytes, most: int) -> bool:
    """Say whether a single struct or list of the request holds more than ``most`` values.

    Args:
        data: A serialized ``CallToolRequest``. What isn't one is left to the parser.
        most: Values that one struct or list may hold.
    """
    large = [(0, len(data), _REQUEST)]
    while large:
        begin, end, fields = large.pop()
        found = 0
        for number, start, stop in _nested(data, begin, end):
            if (inner := fields.get(number)) is None:
                continue
            found += 1
            if found > most:
                return True
            if stop - start >= LARGE_BYTES:
                large.append((start, stop, inner))
    return False


def _nested(data: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number, the begin and the end of each field with a length, up to where the data can't be read."""
    try:
        while position < end:
            tag, position = _varint(data, position)
            kind = tag & 7
            if kind == LENGTH:
                size, position = _varint(data, position)
                yield tag >> 3, position, position + size
                position += size
            elif kind == VARINT:
                _, position = _varint(data, position)
            else:
                position += FIXED[kind]
    except (IndexError, KeyError):
        return


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return the number at this position, and the position behind it.

    Raises:
        IndexError: The data end within it.
    """
    byte = data[position]
    if byte < 0x80:
        return byte, position + 1
    number, shift = byte & 0x7F, 7
    while byte >= 0x80:
        position += 1
        byte = data[position]
        number |= (byte & 0x7F) << shift
        shift += 7
    return number, position + 1
