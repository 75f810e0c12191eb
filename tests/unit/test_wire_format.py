"""Floods of values are found before a request is parsed, and nothing else is taken for one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from agenta_ai.v1 import tool_service_pb2
from agenta_ai_server.rpc.wire_format import CALL_TOOL, MIN_SCANNED_BYTES, Fields, Packed, is_flooded

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.struct_pb2 import Struct


MOST = 10_000


def request(fill: Callable[[Struct], None]) -> bytes:
    message = tool_service_pb2.CallToolRequest(name="tools.a.b.c", request_id="x" * 36)
    fill(message.arguments)
    message.rerun_if_outcome_unknown = True
    return message.SerializeToString()


def flat(count: int) -> Callable[[Struct], None]:
    return lambda struct: struct.update({f"{n:x}": "text" for n in range(count)})


def listed(count: int) -> Callable[[Struct], None]:
    return lambda struct: struct.update({"a": {"b": ["text"] * count}})


def text(size: int) -> Callable[[Struct], None]:
    # As bytes it looks like fields, if one takes it for a message.
    return lambda struct: struct.update({"a": "\x0a\x02ab" * (size // 4)})


@pytest.mark.parametrize(
    ("fill", "flooded"),
    [
        (flat(MOST), False),
        (flat(MOST + 1), True),
        # The list and what it is in are values, too.
        (listed(MOST - 2), False),
        (listed(MOST - 1), True),
        (lambda struct: struct.update({"x": {"y": dict.fromkeys(map(str, range(MOST + 1)), 1)}}), True),
        (text(1_000_000), False),
        (lambda struct: struct.update({f"{n}": "long " * 100 for n in range(1500)}), False),
        # The bound is that of all together, large or small.
        (lambda struct: struct.update({f"{n}": ["text"] * 1000 for n in range(9)}), False),
        (lambda struct: struct.update({f"{n}": ["text"] * 1000 for n in range(20)}), True),
        (lambda struct: struct.update({"a": ["some text"] * 6000, "b": ["some text"] * 6000}), True),
    ],
)
def test_what_is_a_flood(fill: Callable[[Struct], None], flooded: bool) -> None:
    data = request(fill)
    assert len(data) > MIN_SCANNED_BYTES
    assert is_flooded(data, MOST, CALL_TOOL) is flooded


# Fields that the contract doesn't have, each in two bytes, and where they stand.
UNKNOWN = {"a number": b"\x78\x00", "empty text": b"\x7a\x00"}
PLACES: dict[str, Callable[[bytes], bytes]] = {
    "the request": lambda fields: fields,
    "the arguments": lambda fields: nested(2, fields),
    "a value": lambda fields: nested(2, nested(1, nested(2, fields))),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", UNKNOWN)
def test_so_many_fields_that_looking_at_them_takes_long(kind: str, place: str) -> None:
    few, many = (PLACES[place](UNKNOWN[kind] * count) for count in (900, 500_000))
    assert not is_flooded(few, MOST, CALL_TOOL)
    assert is_flooded(many, MOST, CALL_TOOL)


def test_the_same_field_again_and_again() -> None:
    assert is_flooded(nested(2, b"") * 500_000, MOST, CALL_TOOL)


@pytest.mark.parametrize("entries", [10, 4500])
def test_a_struct_in_many_pieces(entries: int) -> None:
    """A parser makes one of all that are sent for the same field."""
    count = MOST // entries
    pieces = [flat_from(n * entries, entries) for n in range(count + 1)]
    assert not is_flooded(b"".join(pieces[:count]), MOST, CALL_TOOL)
    assert is_flooded(b"".join(pieces), MOST, CALL_TOOL)


def flat_from(first: int, count: int) -> bytes:
    struct = struct_pb2.Struct()
    struct.update({f"{first + n}": None for n in range(count)})
    return nested(2, struct.SerializeToString())


def typed(held: dict[int, Fields | Packed | None]) -> Fields:
    """The fields of a message of typed arguments."""
    return Fields(held, are_values=True)


@pytest.mark.parametrize(
    ("kind", "number", "flooded"),
    [
        (Packed.VARINTS, b"\x01", True),
        (Packed.VARINTS, b"\xff\x01", True),
        (Packed.DOUBLES, b"\x00" * 8, True),
        (None, b"0", False),
    ],
)
def test_numbers_that_are_packed_into_one_field(kind: Packed | None, number: bytes, flooded: bool) -> None:
    fields = Fields({1: typed({3: kind})})
    # The list is a value, too.
    assert not is_flooded(nested(1, nested(3, number * (MOST - 1))), MOST, fields)
    assert is_flooded(nested(1, nested(3, number * MOST)), MOST, fields) is flooded


@pytest.mark.parametrize(
    "number", [b"\x19" + bytes(8), b"\x18\x01", b"\x1d" + bytes(4)], ids=["double", "int", "float"]
)
def test_numbers_of_their_own_are_values_of_a_typed_message(number: bytes) -> None:
    """Ten of them in each of 900 items are no flood, and more than the bound are one."""
    fields = Fields({1: typed({1: typed({3: None})})})
    item = nested(1, number * 10)
    assert not is_flooded(nested(1, item * 900), MOST, fields)
    assert is_flooded(nested(1, item * 1000), MOST, fields)


@pytest.mark.parametrize(
    "group", [b"\x7b\x7c", b"\x7b\x78\x01\x7c", b"\x13\x14"], ids=["empty", "full", "of a known number"]
)
def test_a_group_hides_no_flood(group: bytes) -> None:
    """Parsers still read the groups of proto2, and all that follows."""
    assert is_flooded(group + request(flat(MOST + 1)), MOST, CALL_TOOL)


@pytest.mark.parametrize("before", [b"", b"\x78", b"\x12"], ids=["a tag", "a number", "a length"])
def test_a_number_without_end_is_not_added_up(before: bytes) -> None:
    """A megabyte of it took more than a minute, in which no other call was answered."""
    data = before + b"\xff" * 1_000_000
    began = time.process_time()
    assert not is_flooded(data, MOST, CALL_TOOL)
    assert time.process_time() - began < 1


def nested(number: int, content: bytes) -> bytes:
    size = len(content)
    # A number of five bytes, whatever it needs.
    length = bytes([size >> shift & 0x7F | 0x80 for shift in (0, 7, 14, 21)]) + b"\x00"
    return bytes([number << 3 | 2]) + length + content


@given(st.binary(max_size=300))
def test_whatever_comes_is_read_to_its_end(data: bytes) -> None:
    assert not is_flooded(data, MOST, CALL_TOOL)


@pytest.mark.parametrize("cut", range(0, 5000, 97))
def test_a_request_that_was_cut_is_no_flood(cut: int) -> None:
    assert not is_flooded(request(flat(MOST))[: -cut or None], MOST, CALL_TOOL)
