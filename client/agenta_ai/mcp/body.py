"""Reads the bodies of HTTP requests within limits on time, memory and work."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Message, Receive

    from agenta_ai.mcp.shares import Hold

# Bytes of one request: what the service takes, and room for the envelope and for escapes.
MAX_REQUEST_BYTES = 4 << 20
# Bytes of the large requests that haven't ended, all together, and those of one caller. Each takes up to ten times as
# much memory: as bytes, parsed, and as the message to the service.
MAX_BYTES = 64 << 20
MAX_BYTES_OF_CALLER = 16 << 20
# Seconds that a request may take to arrive, as at the service.
READ_SECONDS = 20.0
# Values in one request: what the service takes, and room for the envelope. Each is converted several times, so more
# of them would keep the other callers waiting.
MAX_VALUES = 11_000
# The bytes of smaller requests needn't be counted, as connections and running calls are limited.
LARGE_BYTES = 1 << 16
# Seconds after which to send a request again that found no room.
RETRY_SECONDS = 5


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
        hold: Counts the bytes of the body, if it is large.

    Raises:
        Refusal: The body is too large, too slow or has too many values, or there are too many others.
    """
    try:
        async with asyncio.timeout(READ_SECONDS):
            body, last = await _whole(receive, hold)
    except TimeoutError:
        sentence = f"The request hasn't arrived within {READ_SECONDS:g} seconds. Send it again."
        raise Refusal(sentence, 408) from None
    if _has_too_many_values(body):
        raise Refusal(f"The request has too many values (maximum {MAX_VALUES:,}). Send a smaller one.", 413)
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
        if len(body) >= LARGE_BYTES and not hold.grow(len(body)):
            raise Refusal(f"Too many large requests haven't ended. Try again in {RETRY_SECONDS} s.", 503)
        if not message.get("more_body", False):
            return bytes(body), None
    return bytes(body), message


def _has_too_many_values(body: bytes) -> bool:
    """Say whether JSON holds more than ``MAX_VALUES``. The SDK reports bodies that aren't JSON."""
    # Each value but the first follows one of these, inside of strings or not.
    if sum(map(body.count, (b",", b"[", b"{", b":"))) < MAX_VALUES:
        return False
    try:
        waiting: list[Any] = [json.loads(body)]
    except (ValueError, RecursionError):
        return False
    count = 0
    while waiting and count <= MAX_VALUES:
        each = waiting.pop()
        count += 1
        if isinstance(each, dict | list):
            waiting.extend(each.values() if isinstance(each, dict) else each)
    return count > MAX_VALUES
