"""Targets, TLS, time-outs and metadata, as a client checks them when it is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from agenta_ai import InvalidInput
from agenta_ai.connection import Connection, call_metadata, connection, read_timeout

# The table that the clients of all languages play.
TARGETS = json.loads((Path(__file__).parents[1] / "conformance" / "targets.json").read_text())


@pytest.mark.parametrize("row", TARGETS, ids=lambda row: row["target"] or "empty")
def test_targets(row: dict[str, Any]) -> None:
    target = row["target"]
    if row["kind"] == "error" or "python" not in row.get("clients", ["python"]):
        with pytest.raises(InvalidInput, match=r"\. Give host:port") as refused:
            connection(target)
        assert repr(target) in str(refused.value) or "@" in target
        assert "secret" not in str(refused.value)
        return
    assert (connection(target).channel_credentials is None) is (row["kind"] == "local")
    # Credentials travel in plaintext on this machine only.
    if row["kind"] == "local":
        assert connection(target, tls=False, api_key="k").is_local
    else:
        with pytest.raises(InvalidInput, match="not sent to another machine in plaintext"):
            connection(target, tls=False, api_key="k")


@pytest.mark.parametrize(
    ("target", "address", "loopback"),
    [
        ("127.0.0.1:50051", "dns:///127.0.0.1:50051", True),
        ("127.8.9.1:1", "dns:///127.8.9.1:1", True),
        ("localhost:50051", "dns:///localhost:50051", True),
        ("LOCALHOST:50051", "dns:///LOCALHOST:50051", True),
        ("[::1]:50051", "dns:///[::1]:50051", True),
        ("dns:[::1]:50051", "dns:[::1]:50051", True),
        ("ipv6:[::1]:1", "ipv6:[::1]:1", True),
        ("unix:///run/agenta.sock", "unix:///run/agenta.sock", True),
        ("unix:agenta,10.0.0.1:1", "unix:agenta,10.0.0.1:1", True),
        ("ipv4:127.0.0.1:1,127.0.0.2:1", "ipv4:127.0.0.1:1,127.0.0.2:1", True),
        ("unix:/run/agenta.sock", "unix:/run/agenta.sock", True),
        ("unix-abstract:agenta", "unix-abstract:agenta", True),
        ("ipv4:127.0.0.1:1,10.0.0.1:1", "ipv4:127.0.0.1:1,10.0.0.1:1", False),
        ("ai.example.com:443", "dns:///ai.example.com:443", False),
        ("localhost.example.com:443", "dns:///localhost.example.com:443", False),
        ("dns://8.8.8.8/localhost:1", "dns://8.8.8.8/localhost:1", False),
        ("127.0.0.256:1", "dns:///127.0.0.256:1", False),
        ("127.0.0.1.evil.com:1", "dns:///127.0.0.1.evil.com:1", False),
        ("dns://127.0.0.1/ai.example.com:1", "dns://127.0.0.1/ai.example.com:1", False),
        ("0.0.0.0:50051", "dns:///0.0.0.0:50051", False),
    ],
)
def test_addresses_of_grpc(target: str, address: str, loopback: bool) -> None:
    made = connection(target)
    assert made.address == address
    assert (made.channel_credentials is None) is loopback


@pytest.mark.parametrize(
    "target",
    [
        "ipv4:192.0.2.2:47477?/127.0.0.1:1",
        "dns:///evil.com:50051?/localhost:1",
        "evil.com:50051?/localhost",
        "dns:///evil.com#/127.0.0.1",
        "unix:/run/agenta.sock ",
        "localhost:1\n",
        "localhost\x00:1",
        "localhost\u2028:1",
        "b\u00fccher.example:1",
    ],
)
def test_what_no_target_holds(target: str) -> None:
    with pytest.raises(InvalidInput, match="an address can't contain") as refused:
        connection(target)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "target",
    [
        "[::1]evil.com:1",
        "evil.com/localhost:1",
        "localhost",
        "localhost:",
        "ai.example.com",
        ":50051",
        "::1",
        "[::1]",
        "::1:50051",
        "dns:///evil.com/localhost:1",
        "dns:///[::1]evil.com:1",
        "ipv4:192.0.2.2:1/127.0.0.1:1",
        "ipv4:127.0.0.1:1%2C192.0.2.2:1",
        "ipv4:localhost:1",
        "unix://evil/x",
        "unix-abstract://evil/x",
    ],
)
def test_a_target_is_an_address(target: str) -> None:
    with pytest.raises(InvalidInput, match="host:port"):
        connection(target)


@pytest.mark.parametrize("tls", ["ca.pem", b"-----BEGIN", 1, 0, ""])
def test_tls_that_is_neither_a_switch_nor_credentials(tls: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^tls: must be True, False or"):
        connection("localhost:1", tls=tls)


def test_tls_is_switched_off_only_in_so_many_words() -> None:
    own = grpc.ssl_channel_credentials()
    assert connection("ai.example.com:443", tls=False).channel_credentials is None
    assert connection("localhost:1", tls=True).channel_credentials is not None
    assert connection("localhost:1", tls=own).channel_credentials is own


def test_a_target_is_a_string() -> None:
    with pytest.raises(InvalidInput, match="target: must be a string"):
        connection(None)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="an address can't contain"):
        connection("localhost\ud800:1")


@pytest.mark.parametrize(
    "timeout", [0, -1, float("inf"), float("nan"), 1e10, 31536001, pytest.param(10**5000, id="huge"), "5", True]
)
def test_a_timeout_is_a_number_of_seconds_up_to_a_year(timeout: Any) -> None:
    with pytest.raises(InvalidInput, match="timeout"):
        connection("localhost:1", timeout=timeout)
    with pytest.raises(InvalidInput, match="timeout"):
        read_timeout(timeout)
    with pytest.raises(InvalidInput, match="timeout"):
        connection("localhost:1").timeout_of(timeout)


def test_metadata_keys_are_lowercase() -> None:
    assert call_metadata([("X-Team", "a"), ("y-bin", b"\0")]) == (("x-team", "a"), ("y-bin", b"\0"))


@pytest.mark.parametrize(
    ("pair", "complaint"),
    [
        (("x-team", "secret\r\nx-admin: 1"), "the value of 'x-team' must be a line"),
        (("x-team", "secret\u00e9"), "the value of 'x-team' must be a line"),
        (("X-Team", 5), "the value of 'x-team' must be a line"),
        (("x-bin", "secret"), "the value of 'x-bin' must be bytes"),
        (("x team", "secret"), "Keys have letters"),
        (("", "secret"), "Keys have letters"),
        ((b"x", "secret"), "Keys have letters"),
        ("secret", "must be pairs"),
    ],
)
def test_metadata_that_cannot_be_sent(pair: Any, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=f"^metadata: .*{complaint}") as refused:
        connection("localhost:1", metadata=[pair])
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("connections", [0, 101, 1.5, "2", True])
def test_connections_are_a_number(connections: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^connections: must be an integer from 1 to 100\."):
        connection("localhost:1", connections=connections)


@pytest.mark.parametrize("retries", [-1, 1.5, "2", True])
def test_retries_are_a_number(retries: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^retries: must be an integer of at least 0"):
        connection("localhost:1", retries=retries)


def test_metadata_of_a_call() -> None:
    remote: Connection = connection("ai.example.com:1", tls=False)
    assert remote.extra_metadata([("X-Team", "a")]) == (("x-team", "a"),)
    with pytest.raises(InvalidInput, match=r"^authorization in metadata: credentials are not sent"):
        remote.extra_metadata([("Authorization", "Bearer t")])
