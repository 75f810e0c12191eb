"""Sends the progress of one call: never more than the caller reads, and never delaying the result."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from agenta_ai_server.domain.progress import Progress

Encode: TypeAlias = Callable[[Progress], bytes]
Write: TypeAlias = Callable[[bytes], Awaitable[None]]

# At most ten messages a second.
GAP_SECONDS = 0.1


class ProgressSender:
    """Sends the latest progress of one call, one message at a time.

    The first is sent at once. While a message is under way, or less than a tenth of a second old, only the latest
    progress is kept. So a caller that doesn't read holds up nothing, and holds no more than one message here.

    Args:
        encode: Makes the message of a progress.
        write: Hands a message to grpc, and returns when grpc takes the next.
    """

    def __init__(self, encode: Encode, write: Write) -> None:
        self._encode = encode
        # None once the call has ended: its run may continue for others, and must not keep grpc's part of the call.
        self._write: Write | None = write
        self._latest: Progress | None = None
        self._writing: asyncio.Task[None] | None = None
        self._pause: asyncio.TimerHandle | None = None

    def report(self, progress: Progress) -> None:
        """Send the ``progress`` as soon as it may be sent, unless a later one comes first."""
        self._latest = progress
        if not self._writing and not self._pause:
            self._send_latest()

    async def stop(self) -> None:
        """Drop what hasn't been sent, and wait until grpc takes another message."""
        self.drop()
        if self._writing:
            await asyncio.wait({self._writing})

    def drop(self) -> None:
        """Drop everything that hasn't been sent, and all later progress."""
        self._write = None
        if self._pause:
            self._pause.cancel()
            # It holds the call's context variables, and so the call, which holds this.
            self._pause = None

    def _send_latest(self) -> None:
        self._pause = None
        progress, self._latest = self._latest, None
        if progress and self._write:
            self._writing = asyncio.create_task(self._send(self._encode(progress), self._write))

    async def _send(self, message: bytes, write: Write) -> None:
        try:
            await write(message)
        except Exception:  # grpc's own for a call that has ended, which the call learns by itself
            self.drop()
        self._writing = None
        if self._write:
            self._pause = asyncio.get_running_loop().call_later(GAP_SECONDS, self._send_latest)
