"""The ports that tests choose: none may be given to somebody else before it is used."""

from __future__ import annotations

import errno
import re
import socket
from pathlib import Path

import pytest
from addresses import free_port, refusing_address

TESTS = Path(__file__).parent.parent
# A port that is asked for, and mostly let go of again. Servers that ask for one keep it.
LET_GO = re.compile(r"""\.bind\(\("[^"]*", 0\)\)|\bunused_tcp_port\b""")


def test_all_choose_them_in_one_place() -> None:
    found = {path.name for path in TESTS.rglob("*.py") if LET_GO.search(path.read_text()) and path != Path(__file__)}
    assert found == {"addresses.py"}, "use free_port or refusing_address of tests/addresses.py"


def test_none_is_given_again_soon_nor_while_it_is_in_use() -> None:
    taken = free_port()
    with socket.create_server(("127.0.0.1", taken)):
        # More than there are for one worker.
        ports = [free_port() for _ in range(1_000)]
    assert len(set(ports[:500])) == 500
    assert taken not in ports


def test_where_connections_are_refused_nobody_can_listen() -> None:
    with refusing_address() as address, socket.socket() as client, socket.socket() as server:
        host, port = address.split(":")
        assert client.connect_ex((host, int(port))) == errno.ECONNREFUSED
        with pytest.raises(OSError, match="in use"):
            server.bind((host, int(port)))
