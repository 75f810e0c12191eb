"""Reads the bodies of HTTP requests within limits on time, memory and work."""

from __future__ import annotations

import asyncio
import re
from itertools import islice
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Message, Receive

    from agenta_ai.mcp.shares import Hold

# Bytes of one request: what the service takes, and room for the envelope and for escapes.
MAX_REQUEST_BYTES = 4 << 20
# Bytes of the large requests that haven't ended, all together, and those of one caller. Each takes up to ten times as
# much memory as its text has bytes: as bytes, parsed, and as the message to the service.
MAX_BYTES = 64 << 20
MAX_BYTES_OF_CALLER = 16 << 20
# Seconds that a request may take to arrive, as at the service.
READ_SECONDS = 20.0
# Values in one request: what the service takes, and room for the envelope. Each is converted several times, so more
# of them would keep the other callers waiting.
MAX_VALUES = 11_000
# What each value takes besides, however short its text.
VALUE_BYTES = 128
# Smaller requests, with their values, needn't be counted, as connections and running calls are limited.
LARGE_BYTES = 1 << 16
# Seconds after which to send a request again that found no room.
RETRY_SECONDS = 5

# Matches once for each value of JSON, up to the comma or bracket before the next one. Before that are at most five
# pieces: text without quotes, a key, a colon, a string or an empty container, and closing brackets. In what isn't JSON
# there may be more, which then count as more values: the whole of a flood is never searched.
_VALUE = re.compile(
    rb"""(?!\Z)(?: [^",\[{]++ | "[^"\\]*+(?:\\.[^"\\]*+)*+"? | [\[{]\s*+[\]}] ){0,5}+ [,\[{]?""", re.DOTALL | re.VERBOSE
)


class Refusal(Exception):
    """A body isn't read.

    Attributes:
        response: The response to its sender.
    """

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        headers = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else None
        self.response: Response = PlainTextResponse(sentence, status, headers)


async def read(receive: Receive, hold: Hold) -> tuple[Receive, bytes]:
    """Return a function that receives the request again, with its whole body, and the body.

    Args:
        receive: Receives the request as it arrives.
        hold: Counts the memory that the request takes, if it is large, and takes turns.

    Raises:
        Refusal: The body is too large, too slow, isn't text or has too many values, or there are too many others.
    """
    try:
        async with asyncio.timeout(READ_SECONDS):
            body, last = await _whole(receive, hold)
    except TimeoutError:
        sentence = f"The request hasn't arrived within {READ_SECONDS:g} seconds. Send it again."
        raise Refusal(sentence, 408) from None
    await hold.turns.take(hold.holder)
    if (size := len(body) + VALUE_BYTES * _values(body)) >= LARGE_BYTES:
        _take(hold, size)
    await hold.turn()
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}, *([last] if last else [])]

    async def again() -> Message:
        return waiting.pop(0) if waiting else await receive()

    return again, body


async def _whole(receive: Receive, hold: Hold) -> tuple[bytes, Message | None]:
    """Return the body, and the message that replaced its end if the sender has disconnected."""
    body = bytearray()
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if len(body) > MAX_REQUEST_BYTES:
            raise Refusal(f"The request has more than {MAX_REQUEST_BYTES:,} bytes. Send a smaller one.", 413)
        if len(body) >= LARGE_BYTES:
            _take(hold, len(body))
        if not message.get("more_body", False):
            return bytes(body), None
    return bytes(body), message


def _take(hold: Hold, size: int) -> None:
    if not hold.grow(size):
        raise Refusal(f"Too many large requests haven't ended. Try again in {RETRY_SECONDS} s.", 503)


def _values(body: bytes) -> int:
    """Return how many values JSON has. Whether it is JSON is left to the SDK.

    Raises:
        Refusal: There are too many, or they can't be counted.
    """
    if b"\0" in body:  # Python also reads JSON in UTF-16 and UTF-32
        raise Refusal("The request isn't JSON in UTF-8.", 400)
    count = sum(1 for _ in islice(_VALUE.finditer(body), MAX_VALUES + 1))
    if count > MAX_VALUES:
        raise Refusal(f"The request has too many values (maximum {MAX_VALUES:,}). Send a smaller one.", 413)
    return count
