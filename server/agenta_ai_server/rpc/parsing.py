"""Reads requests: after the caller is known, because it costs far more than finding that out."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import DecodeError, Message

from agenta_ai_server.domain.errors import Reason, Refused

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_REQUEST_BYTES = 1 << 20

Request = TypeVar("Request", bound=Message)


def parse(data: bytes, read: Callable[[bytes], Request]) -> Request:
    """Return the message that ``data`` holds.

    Args:
        data: The request as it came.
        read: The message's ``FromString``.

    Raises:
        Refused: REQUEST_TOO_LARGE or REQUEST_MALFORMED.
    """
    if len(data) > MAX_REQUEST_BYTES:
        raise Refused(
            Reason.REQUEST_TOO_LARGE,
            f"The request has {len(data):,} bytes, more than the maximum of {MAX_REQUEST_BYTES:,}. Send a smaller one.",
        )
    try:
        return read(data)
    except DecodeError:
        raise Refused(
            Reason.REQUEST_MALFORMED,
            "The request can't be read as this method's message. Generate the client from the contract, and nest "
            "arguments at most 32 levels deep.",
        ) from None
