"""Servers on loopback that answer byte by byte as a test wants."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import trustme
from addresses import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Handler = Callable[["Exchange"], Awaitable[None]]


@dataclass
class Exchange:
    """One request that came, and the connection to answer it on."""

    head: str
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(
        self, body: bytes = b"{}", *, status: int = 200, headers: str = "", length: int | None = None
    ) -> None:
        size = len(body) if length is None else length
        await self.send(f"HTTP/1.1 {status} Some Reason\r\ncontent-length: {size}\r\n{headers}\r\n".encode() + body)

    def reset(self) -> None:
        """Close with RST in place of FIN."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.close()


class Upstream:
    """A server; one handler answers all of its requests.

    Attributes:
        arrived: Set once a request has come.
        ended: Set once a connection is over.
    """

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []
        self.connections = 0
        self.port = 0
        self.arrived = asyncio.Event()
        self.ended = asyncio.Event()
        self._handler: Handler | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, handler: Handler | None, tls: ssl.SSLContext | None = None) -> str:
        """Serve, and return the URL. Without a handler no connection is ever spoken on."""
        self._handler = handler
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self._handler is not None and not writer.is_closing():
                exchange = await _next_exchange(reader, writer)
                self.exchanges.append(exchange)
                self.arrived.set()
                await self._handler(exchange)
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.ended.set()
            writer.close()


async def _next_exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Exchange:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = next((line[15:] for line in head.lower().split("\r\n") if line.startswith("content-length:")), "0")
    return Exchange(head, await reader.readexactly(int(length)), reader, writer)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    server = Upstream()
    yield server
    await server.stop()


@pytest.fixture
async def other_upstream() -> AsyncIterator[Upstream]:
    server = Upstream()
    yield server
    await server.stop()


@pytest.fixture
def closed_port() -> int:
    """A port that nobody listens on."""
    return free_port()


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context
