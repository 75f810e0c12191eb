"""Reads the bodies of HTTP requests within limits on time, memory and work."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.responses import PlainTextResponse

from agenta_ai.mcp.shares import Shares

if TYPE_CHECKING:
    from starlette.responses import Response
    from starlette.types import Message, Receive

# Bytes of one request: what the service takes, and room for the envelope and for escapes.
MAX_REQUEST_BYTES = 4 << 20
# Bytes of the requests that are being read, all together, and those of one caller.
MAX_BYTES = 64 << 20
MAX_BYTES_OF_CALLER = 16 << 20
# Seconds that a request may take to arrive, as at the service.
READ_SECONDS = 20.0
# Values in one request: what the service takes, and room for the envelope. Each is converted several times, so more
# of them would keep the other callers waiting.
MAX_VALUES = 11_000
# What is smaller holds so few values that they needn't be counted.
LARGE_BYTES = 1 << 16


class Refusal(Exception):
    """A body isn't read.

    Attributes:
        response: The response to its sender.
    """

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.response: Response = PlainTextResponse(sentence, status)


@dataclass
class Bodies:
    """Reads bodies, and counts the bytes of those that haven't arrived completely."""

    _arriving: Shares = field(default_factory=lambda: Shares(MAX_BYTES, MAX_BYTES_OF_CALLER))

    async def read(self, receive: Receive, holder: str) -> tuple[Receive, bytes]:
        """Return a function that receives the request again, with its whole body, and the body.

        Args:
            receive: Receives the request as it arrives.
            holder: Whose share the body uses.

        Raises:
            Refusal: The body is too large, too slow or has too many values, or too many others are being read.
        """
        try:
            async with asyncio.timeout(READ_SECONDS):
                body, last = await self._whole(receive, holder)
        except TimeoutError:
            sentence = f"The request hasn't arrived within {READ_SECONDS:g} seconds. Send it again."
            raise Refusal(sentence, 408) from None
        if len(body) >= LARGE_BYTES and _has_too_many_values(body):
            raise Refusal(f"The request has too many values (maximum {MAX_VALUES:,}). Send a smaller one.", 413)
        waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}, *([last] if last else [])]

        async def again() -> Message:
            return waiting.pop(0) if waiting else await receive()

        return again, body

    async def _whole(self, receive: Receive, holder: str) -> tuple[bytes, Message | None]:
        """Return the body, and the message that replaced its end if the sender has disconnected."""
        body = bytearray()
        try:
            while (message := await receive())["type"] == "http.request":
                chunk = message.get("body", b"")
                if len(body) + len(chunk) > MAX_REQUEST_BYTES:
                    raise Refusal(f"The request has more than {MAX_REQUEST_BYTES:,} bytes. Send a smaller one.", 413)
                if not self._arriving.take(holder, len(chunk)):
                    raise Refusal("Too many requests are arriving at once. Try again later.", 503)
                body += chunk
                if not message.get("more_body", False):
                    return bytes(body), None
            return bytes(body), message
        finally:
            self._arriving.give_back(holder, len(body))


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
