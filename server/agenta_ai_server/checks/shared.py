"""The parts that checks share: the form of a finding, and requests.

No sentence of theirs holds a secret, nor the text of somebody else's error, which may.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from agenta_ai_server.agenta.addresses import AgentaAddress
from agenta_ai_server.agenta.http import HttpClient, HttpResponse
from agenta_ai_server.assembly.resources import secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from agenta_ai_server.settings import Settings

State: TypeAlias = Literal["ok", "warning", "failed", "skipped"]

HTTP_SECONDS = 5.0


class Found(NamedTuple):
    """What a part says of itself; see :class:`~agenta_ai_server.commands.check.Finding`."""

    state: State
    said: str
    remedy: str = ""


Probe: TypeAlias = "Callable[[Settings], AsyncIterator[Found]]"


def ok(said: str) -> Found:
    """Return a finding that everything is fine."""
    return Found("ok", said)


def warning(said: str, remedy: str) -> Found:
    """Return a warning: it works, but not for long or not in every case."""
    return Found("warning", said, remedy)


def failed(said: str, remedy: str) -> Found:
    """Return a failure."""
    return Found("failed", said, remedy)


async def get(url: str, headers: dict[str, str] | None = None, **way: Any) -> HttpResponse:
    """Send a GET, in the ``way`` that :class:`~agenta_ai_server.agenta.http.HttpClient` is given.

    Raises:
        TransportError: No response came. The text says why.
    """
    client = HttpClient(url, keep_alive=False, **way)
    try:
        return await client.send("GET", url, headers=headers, seconds=HTTP_SECONDS)
    finally:
        await client.aclose()


@asynccontextmanager
async def open_agenta(settings: Settings) -> AsyncIterator[tuple[HttpClient, AgentaAddress, str]]:
    """Open the way to Agenta that the settings name: the client, the address, and the server's key."""
    address = AgentaAddress.parse(settings.api_url or "")
    http = HttpClient(
        address.root, ca_file=settings.upstream_ca_file, proxy=secret(settings.upstream_proxy), keep_alive=False
    )
    try:
        yield http, address, secret(settings.api_key) or ""
    finally:
        await http.aclose()


def sentence(error: Exception) -> str:
    """Return what an error of our own says, with one full stop."""
    return f"{str(error).rstrip('.')}."
