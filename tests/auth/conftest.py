"""The parties of a service with authentication, and a look at all that is logged: no secret may be in it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from auth.parties import SECRETS, WHOAMI, Authority, Issuer, Pair, Parties, whoami_tool
from cryptography.hazmat.primitives.asymmetric import rsa

import agenta_ai_server.tools
from agenta_ai_server.assembly import tools as assembled_tools
from agenta_ai_server.tools.catalog import discover

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from agenta_ai_server.standin.app import StandIn
    from agenta_ai_server.tools.catalog import Provide


@pytest.fixture(autouse=True)
def no_secret_is_logged(logged: list[str]) -> Iterator[None]:
    yield
    text = "\n".join(logged)
    assert not [known[:6] for known in SECRETS if known in text], "a secret is in the log"


@pytest.fixture(scope="session")
def issuer_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="session")
def server_pair(authority: Authority) -> Pair:
    return authority.server()


@pytest.fixture
async def parties(
    tmp_path: Path,
    standin: StandIn,
    issuer_key: rsa.RSAPrivateKey,
    authority: Authority,
    server_pair: Pair,
    caplog: pytest.LogCaptureFixture,
) -> AsyncIterator[Parties]:
    caplog.set_level(logging.DEBUG, "agenta_ai_server")
    issuer = Issuer(issuer_key)
    async with issuer.published():
        yield Parties(tmp_path, standin, issuer, authority, server_pair)


@pytest.fixture
def whoami(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds a tool that says who calls."""

    def discovered() -> dict[str, Provide]:
        return {**discover(), WHOAMI: lambda _: whoami_tool()}

    monkeypatch.setattr(assembled_tools, "discover", discovered)


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adds a tool that needs the permission "view"."""
    more = str(Path(__file__).parents[1] / "wire/more_tools")
    monkeypatch.setattr(agenta_ai_server.tools, "__path__", [*agenta_ai_server.tools.__path__, more])
