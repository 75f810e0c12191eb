"""A TCP proxy on loopback between a client and a server, for what becomes of a call when its connection breaks."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Self


class Proxy:
    """Stands between a client and a server, and can cut what connects them. They may connect again."""

    def __init__(self, behind: str) -> None:
        self.lead_to(behind)
        self._open: set[asyncio.StreamWriter] = set()
        self._passing: set[asyncio.Task[None]] = set()
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.target = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._passing)

    def lead_to(self, behind: str) -> None:
        """Connect what comes from now on to this server."""
        self._behind = behind.rsplit(":", 1)

    def cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there = await asyncio.open_connection(*self._behind)
        for source, sink in ((reader, there[1]), (there[0], writer)):
            self._open.add(sink)
            self._passing.add(asyncio.create_task(self._pass(source, sink)))

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                sink.write(data)
        sink.close()
        with suppress(ConnectionError):
            await sink.wait_closed()
