"""A TCP proxy on loopback that breaks connections on command."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Self, TypeAlias

from addresses import free_port

if TYPE_CHECKING:
    import ssl

Fault: TypeAlias = Callable[["Link"], Awaitable[None]]
"""Handles one exchange on a link: the request, and its answer or what becomes of it."""

SMALL_BUFFER = 4096


class Link:
    """One connection of the client's."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._proxy = proxy
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """Read a whole request."""
        return b"".join(await _message(self.reader))

    async def answer(self) -> tuple[bytes, bytes]:
        """Read a request, send it on, and return the answer's head and body."""
        request = await self.request()
        reader, writer = await asyncio.open_connection(*self._proxy.target)
        try:
            writer.write(request)
            return await _message(reader)
        finally:
            writer.close()

    async def send(self, *data: bytes) -> None:
        # Not writelines, which in Python 3.13.0 never waits for a reader that is slow.
        self.writer.write(b"".join(data))
        await self.writer.drain()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Close with RST in place of FIN."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def stall(self) -> None:
        """Say nothing until the client goes away."""
        await self.reader.read()
        self.close()


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    return head, await reader.readexactly(int(length[1]) if length else 0)


class Proxy:
    """The proxy.

    Args:
        target: Host and port that it stands before.

    Attributes:
        choose: Says what becomes of the next exchange; called when a connection is accepted or its last exchange ended.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.choose: Callable[[], Fault] = lambda: pass_on
        self.port = free_port()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._tls: ssl.SSLContext | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        """Listen, after a stop on the port of before; with TLS if a context is given."""
        self._tls = tls
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # So that a request which nobody reads doesn't vanish into the kernel.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        listener.bind(("127.0.0.1", self.port))
        self._server = await asyncio.start_server(
            self._accept, sock=listener, ssl=tls, limit=SMALL_BUFFER, backlog=1024
        )

    async def refuse(self) -> None:
        """Refuse new connections, and leave those that are."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def stop(self) -> None:
        """Refuse new connections, and reset those that are."""
        await self.refuse()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(Link(self, reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, link: Link) -> None:
        try:
            while not link.writer.is_closing():
                await self.choose()(link)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client went away
        finally:
            link.writer.transport.abort()


# What can become of an exchange.


async def pass_on(link: Link) -> None:
    await link.send(*await link.answer())


async def reset_at_once(link: Link) -> None:
    link.reset()


async def close_at_once(link: Link) -> None:
    link.close()


async def reset_within_the_request(link: Link) -> None:
    await link.reader.read(50)
    link.reset()


async def stall_within_the_request(link: Link) -> None:
    link.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.Event().wait()


async def answer_within_the_request_and_stall(link: Link) -> None:
    await link.reader.read(50)
    await link.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
    await stall_within_the_request(link)


async def never_answer(link: Link) -> None:
    await link.request()
    await link.stall()


async def reset_before_the_head(link: Link) -> None:
    await link.answer()
    link.reset()


async def reset_before_the_body(link: Link) -> None:
    head, _ = await link.answer()
    await link.send(head)
    link.reset()


async def reset_within_the_body(link: Link) -> None:
    head, body = await link.answer()
    await link.send(head, body[:10])
    link.reset()


async def stall_before_the_head(link: Link) -> None:
    await link.answer()
    await link.stall()


async def stall_before_the_body(link: Link) -> None:
    head, _ = await link.answer()
    await link.send(head)
    await link.stall()


async def stall_within_the_body(link: Link) -> None:
    head, body = await link.answer()
    await link.send(head, body[:10])
    await link.stall()


async def drip(link: Link) -> None:
    await _drip(link, *await link.answer())


async def drip_the_head(link: Link) -> None:
    head, body = await link.answer()
    await _drip(link, b"", head + body)


async def _drip(link: Link, head: bytes, rest: bytes) -> None:
    await link.send(head)
    for byte in rest:
        await link.send(bytes([byte]))
        await asyncio.sleep(0.02)


async def huge(link: Link) -> None:
    _, body = await link.answer()
    await link.send(b"HTTP/1.1 200 OK\r\n\r\n", body)
    while not link.writer.is_closing():
        await link.send(b" " * 65536)


async def huge_head(link: Link) -> None:
    await link.answer()
    await link.send(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 1_000_000)
    await link.stall()


async def many_headers(link: Link) -> None:
    await link.answer()
    await link.send(b"HTTP/1.1 200 OK\r\n", *(b"x-%d: y\r\n" % number for number in range(10_000)))
    await link.stall()


async def length_too_short(link: Link) -> None:
    head, body = await link.answer()
    await link.send(_with_length(head, len(body) // 2), body)


async def length_too_long_and_close(link: Link) -> None:
    head, body = await link.answer()
    await link.send(_with_length(head, len(body) + 10), body)
    link.close()


async def length_too_long_and_stall(link: Link) -> None:
    head, body = await link.answer()
    await link.send(_with_length(head, len(body) + 10), body)
    await link.stall()


async def length_of_nonsense(link: Link) -> None:
    head, body = await link.answer()
    await link.send(re.sub(rb"(?i)content-length: *\d+", b"content-length: -1", head), body)


def _with_length(head: bytes, length: int) -> bytes:
    return re.sub(rb"(?i)content-length: *\d+", b"content-length: %d" % length, head)


async def garbage(link: Link) -> None:
    """What is neither HTTP nor TLS, whatever the client says."""
    await link.reader.read(1)
    await link.send(b"\x00\x01 neither HTTP nor TLS \xff\r\n\r\n")
    link.close()
