"""The channel options: gRPC ignores names that it doesn't know, so a misspelt one would do nothing."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from agenta_ai.service_config import CHANNEL_OPTIONS

LIBRARY = Path(str(import_module("grpc._cython.cygrpc").__file__)).read_bytes()
# What servers of ours allow between two pings.
ALLOWED_PING_MS = 8_000


@pytest.mark.parametrize(
    "name", [name for name, _ in CHANNEL_OPTIONS] + ["grpc.enable_http_proxy", "grpc.use_local_subchannel_pool"]
)
def test_the_library_knows_every_option(name: str) -> None:
    assert f"{name}\0".encode() in LIBRARY


def test_the_library_does_not_know_just_any() -> None:
    assert b"grpc.http2.min_recv_ping_interval_without_data_ms\0" not in LIBRARY


def test_pings_come_no_faster_than_servers_allow() -> None:
    options = dict(CHANNEL_OPTIONS)
    assert int(options["grpc.keepalive_time_ms"]) > ALLOWED_PING_MS
