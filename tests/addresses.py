"""Addresses on loopback for servers that are started later, or again."""

from __future__ import annotations

import itertools
import os
import random
import socket
from contextlib import suppress

# Linux gives none of these to connections, nor to servers that ask for any port (net.ipv4.ip_local_port_range).
_PORTS = range(20_000, 32_000)
_WORKERS = 16


def _ports_of_this_worker() -> itertools.cycle[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    ports = _PORTS[worker::_WORKERS]
    # Another run of the tests on this machine most likely begins elsewhere.
    begin = random.randrange(len(ports))
    return itertools.cycle([*ports[begin:], *ports[:begin]])


_ports = _ports_of_this_worker()


def free_port() -> int:
    """Return a port that nobody else gets, whether or not something is listening on it at the moment."""
    for port in _ports:
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port
    raise AssertionError("unreachable: the ports repeat")


def free_address() -> str:
    """Return such a port with its host."""
    return f"127.0.0.1:{free_port()}"
