"""Receives the messages of requests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import grpc.aio

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

# How long a request may take to arrive. One of 1 MiB arrives in that time at 50 KiB a second.
MAX_READ_SECONDS = 20.0


async def receive(read: Callable[[], Awaitable[object]]) -> bytes | None:
    """Return the bytes of a request's message, or ``None`` if it doesn't arrive in time.

    Args:
        read: Waits for the message: ``context.read``.
    """
    try:
        async with asyncio.timeout(MAX_READ_SECONDS):
            data = await read()
    except TimeoutError:
        return None
    # grpc has a value of its own for the end of the requests.
    return data if isinstance(data, bytes) else b""
