"""Addresses: on loopback for servers that are started later, or again, and some where nobody is."""

from __future__ import annotations

import itertools
import os
import random
import socket
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Linux gives none of these to connections, nor to servers that ask for any port (net.ipv4.ip_local_port_range).
_PORTS = range(20_000, 32_000)
_WORKERS = 16

# Too long to be a name, so it is rejected without asking a name server, which may be slow or missing.
UNKNOWN_HOST = ".".join(["x" * 60] * 5)


def _ports_of_this_worker() -> itertools.cycle[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    ports = _PORTS[worker::_WORKERS]
    # Another run of the tests on this machine most likely begins elsewhere.
    begin = random.randrange(len(ports))
    return itertools.cycle([*ports[begin:], *ports[:begin]])


_ports = _ports_of_this_worker()


def free_port() -> int:
    """Return a port on which nothing listens, and which nobody else is given later."""
    for port in itertools.islice(_ports, len(_PORTS)):
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
    raise AssertionError("all ports are in use")


def free_address() -> str:
    """Return such a port with its host."""
    return f"127.0.0.1:{free_port()}"


@contextmanager
def refusing_address() -> Iterator[str]:
    """Yield an address that refuses connections, and that nobody can listen on meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield "{}:{}".format(*held.getsockname())
