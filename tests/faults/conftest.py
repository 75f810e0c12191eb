from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
import trustme
from faults.proxy import Proxy
from faults.suite import Caller, keep_grpc, leaving_nothing, served

from agenta_ai_server.standin.app import StandIn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_warm = False


@pytest.fixture(autouse=True, params=["unary", "stream"])
def methods(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test makes its calls by one method, and then by the other; "mixed" are calls by both at once."""
    methods = {"unary": [False], "stream": [True], "mixed": [False, True]}
    monkeypatch.setattr(Caller, "streams", itertools.cycle(methods[request.param]))


@pytest.fixture
async def nothing_left() -> AsyncIterator[None]:
    """Whatever the test opens is closed at its end. Must be asked for before everything that opens something."""
    global _warm
    if not _warm:
        keep_grpc()
        async with (
            StandIn() as standin,
            Proxy(_target(standin)) as proxy,
            served(proxy, standin) as caller,
        ):
            await caller.call(30)
        _warm = True
    async with leaving_nothing():
        yield


@pytest.fixture
async def standin(nothing_left: None) -> AsyncIterator[StandIn]:
    async with StandIn() as standin:
        yield standin


@pytest.fixture
async def proxy(standin: StandIn) -> AsyncIterator[Proxy]:
    async with Proxy(_target(standin)) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


def _target(standin: StandIn) -> tuple[str, int]:
    host, _, port = standin.url.removeprefix("http://").partition(":")
    return host, int(port)
