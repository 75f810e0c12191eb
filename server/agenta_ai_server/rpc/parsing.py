"""Parses requests, after authentication, because parsing costs far more."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import DecodeError, Message

from agenta_ai.codec import CodecError, from_struct
from agenta_ai_server.domain.errors import Reason, Refused, Violation, invalid_fields
from agenta_ai_server.domain.values import MAX_VALUES
from agenta_ai_server.rpc.wire_format import MIN_SCANNED_BYTES, NO_VALUES, is_flooded

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.struct_pb2 import Struct

    from agenta_ai_server.domain.values import Json
    from agenta_ai_server.rpc.wire_format import Fields

MAX_REQUEST_BYTES = 1 << 20

Request = TypeVar("Request", bound=Message)


def parse(data: bytes, read: Callable[[bytes], Request], fields: Fields) -> Request:
    """Return the message that ``data`` holds.

    Args:
        data: The request as it came.
        read: The message's ``FromString``.
        fields: The fields of the message that lead to values.

    Raises:
        Refused: REQUEST_TOO_LARGE, REQUEST_MALFORMED, or ARGUMENTS_INVALID for more values or fields than anything
            takes.
    """
    if len(data) > MAX_REQUEST_BYTES:
        raise Refused(
            Reason.REQUEST_TOO_LARGE,
            f"The request has {len(data):,} bytes, more than the maximum of {MAX_REQUEST_BYTES:,}. Send a smaller one.",
        )
    if len(data) >= MIN_SCANNED_BYTES and is_flooded(data, MAX_VALUES, fields):
        if fields is NO_VALUES:
            message = "The request has many fields that the contract doesn't define. Generate the client from it."
            raise Refused(Reason.REQUEST_MALFORMED, message)
        problem = f"Too many values (maximum {MAX_VALUES:,}), or fields that the contract doesn't define."
        raise invalid_fields(Reason.ARGUMENTS_INVALID, Violation("arguments", problem))
    try:
        return read(data)
    except DecodeError:
        raise Refused(
            Reason.REQUEST_MALFORMED,
            "The request can't be read as this method's message. Generate the client from the contract, and nest "
            "arguments at most 32 levels deep.",
        ) from None


def read_arguments(struct: Struct, *, max_values: int = MAX_VALUES) -> dict[str, Json]:
    """Return the arguments of a tool; integral numbers become integers.

    Raises:
        Refused: ARGUMENTS_INVALID for a number that is not finite, which JSON doesn't have, and for too many values.
    """
    try:
        return from_struct(struct, max_values=max_values)
    except CodecError as error:
        raise invalid_arguments(error) from None


def invalid_arguments(error: CodecError) -> Refused:
    """Return the refusal of arguments that can't be read."""
    return invalid_fields(Reason.ARGUMENTS_INVALID, Violation(f"arguments{error.path}", error.problem))
