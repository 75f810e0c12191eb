"""Where the HTTP endpoint listens, and what it needs before other machines may reach it."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agenta_ai.errors import CallFailed, InvalidInput
from agenta_ai.mcp.targets import canonical

if TYPE_CHECKING:
    from agenta_ai.client import Client

# New connections that may wait to be accepted. The system may allow fewer.
QUEUE = 1024
_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^:\[\]]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Address:
    """An address to listen on: a name or an IP address, and a port, 0 for any free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        if canonical(self.host) == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def bind(self) -> socket.socket:
        """Return a socket that listens there.

        Raises:
            InvalidInput: The address can't be used.
        """
        try:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            family, _, _, _, where = found[0]
            listener = socket.create_server(where[:2], family=family)
        except OSError as error:
            # Python appends the address to the system's words for what create_server met.
            reason = (error.strerror or str(error)).partition(" (while attempting")[0]
            raise InvalidInput(f"--listen {self.host}:{self.port}: {reason}. Choose another address or port.") from None
        # Connections inherit it. asyncio sets it only where the socket names its protocol, which this one doesn't;
        # without it an answer waits 40 ms for the acknowledgement of its head.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _Listener(fileno=listener.detach())


class _Listener(socket.socket):
    """A socket with a long queue of new connections. Each that doesn't fit waits for at least a second."""

    def listen(self, backlog: int = QUEUE, /) -> None:
        """Listen. asyncio passes a small number, because it also accepts as many connections at once."""
        super().listen(max(backlog, QUEUE))


def address(text: str) -> Address:
    """Return the address.

    Raises:
        InvalidInput: It isn't ``host:port``.
    """
    found = _ADDRESS.fullmatch(text)
    if not found or int(found["port"]) > 65535:
        raise InvalidInput(f"--listen {text}: must be host:port, or [host]:port for IPv6.")
    return Address(found["v6"] or found["host"], int(found["port"]))


async def check_exposure(where: Address, asking: Client, *, encrypted: bool) -> None:
    """Find out whether other machines may reach the endpoint.

    Args:
        where: Where it listens.
        asking: A client of the service without credentials.
        encrypted: Whether TLS protects connections to it, here or at a proxy.

    Raises:
        InvalidInput: They may not: credentials would be sent in plaintext, or none would be required.
        CallFailed: The service doesn't say whether it requires credentials.
    """
    if where.is_loopback:
        return
    if not encrypted:
        raise InvalidInput(
            f"--listen {where.host}: other machines would send their credentials in plaintext. Pass --listen-cert and "
            "--listen-key, or --behind-tls-proxy if a proxy in front terminates TLS, or listen on 127.0.0.1."
        )
    try:
        await asking.status()
    except CallFailed as failure:
        if failure.code.name == "UNAUTHENTICATED":
            return
        raise
    raise InvalidInput(
        f"--listen {where.host}: the service doesn't require credentials, so anyone who can reach this address "
        "could call it. Turn on authentication at the service, or listen on 127.0.0.1."
    )
