"""A Redis with a password, a stand-in that counts by id, and clients that share no connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis_server import RedisServer
from replicas.model import Model

from agenta_ai import connection
from agenta_ai.service_config import CHANNEL_OPTIONS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

PASSWORD = "7c1cb68-hush"
# grpc lets the channels of one process share their connections, and callers elsewhere have their own.
OWN_CONNECTIONS = ("grpc.use_local_subchannel_pool", 1)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path, "--requirepass", PASSWORD)
    server.url = f"redis://:{PASSWORD}@127.0.0.1:{server.port}/0"
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
async def model() -> AsyncIterator[Model]:
    model = Model()
    async with model.standin:
        yield model


@pytest.fixture
def own_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is as it is shipped, but for one connection for each."""
    monkeypatch.setattr(connection, "CHANNEL_OPTIONS", (*CHANNEL_OPTIONS, OWN_CONNECTIONS))
