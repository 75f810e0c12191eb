"""Runs the service on its own event loop, so that code with and without asyncio can call it."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyio.from_thread import start_blocking_portal

from agenta_ai_server.commands import serve
from agenta_ai_server.settings import load
from agenta_ai_server.standin.app import StandIn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

# Where no logging is set up, nothing is printed.
logging.getLogger("agenta_ai_server").addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class LocalService:
    """A running service.

    Attributes:
        address: Where it listens, such as ``127.0.0.1:40123``: the target of a client.
        standin: The stand-in for Agenta behind it. It runs in another thread. A test may set its ``fault`` and
            ``respond``, and read its ``requests`` and counters, but not await its methods.
    """

    address: str
    standin: StandIn


@contextmanager
def run_service(settings: Mapping[str, str] | None = None, *, standin: StandIn | None = None) -> Iterator[LocalService]:
    """Run the service on a free port of this machine, in a thread, until the context ends.

    It reads nothing from the environment. Authentication, rate limits, retries, repairs and the circuit breaker are off
    unless ``settings`` turn them on, so anyone may call it, and each call sends exactly one request.

    Args:
        settings: Settings of the service by their names, such as ``{"AGENTA_AI_GRPC_RETRIES": "2"}``. They replace
            those above; an empty value removes one.
        standin: The stand-in; by default one with the prompt that refines prompts.

    Raises:
        SettingsError: A setting is invalid.
    """
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(_running(settings or {}, standin or StandIn())) as service,
    ):
        yield service


@asynccontextmanager
async def _running(settings: Mapping[str, str], standin: StandIn) -> AsyncIterator[LocalService]:
    async with standin:
        loaded, _ = load({**environment_for(standin), **settings})
        async with serve.running(loaded) as address:
            yield LocalService(address, standin)


def environment_for(standin: StandIn) -> dict[str, str]:
    """Return the settings of a service for tests in front of a running stand-in."""
    return {
        **standin.settings,
        "AGENTA_AI_GRPC_AUTH": "none",
        "AGENTA_AI_GRPC_LISTEN": f"{standin.host}:0",
        "AGENTA_AI_GRPC_SHUTDOWN_GRACE_SECONDS": "1",
        "AGENTA_AI_GRPC_DRAIN_SECONDS": "0",
        "AGENTA_AI_GRPC_LIMITS": "off",
        "AGENTA_AI_GRPC_REPAIRS": "0",
        "AGENTA_AI_GRPC_RETRIES": "0",
        "AGENTA_AI_GRPC_BREAKER": "off",
    }
