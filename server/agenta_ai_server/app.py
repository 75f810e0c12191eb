"""The composition root: makes the parts from the settings, runs them, and takes them down again."""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from agenta_ai import __version__
from agenta_ai_server.domain.service import Service
from agenta_ai_server.rpc.authentication import Anonymous
from agenta_ai_server.rpc.server import Server
from agenta_ai_server.rpc.servicer import ToolServicer
from agenta_ai_server.settings import SettingsError
from agenta_ai_server.tools.registry import Dependencies, Registry, discover
from agenta_ai_server.upstream.agenta import AgentaCompletionService, AgentaConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agenta_ai_server.settings import Settings

log = logging.getLogger(__name__)


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[str]:
    """Run the service for as long as the context lasts, then let running calls end.

    Yields:
        The address that it listens on, with the real port if the port given was 0.

    Raises:
        SettingsError: A setting doesn't fit the tools that there are.
        ListenError: The address can't be listened on.
    """
    service = Service(version=__version__, missing_settings=settings.missing)
    completions = _completions(settings)
    try:
        servicer = ToolServicer(service, _registry(settings, completions))
        server = Server(servicer, [Anonymous()], with_reflection=settings.reflection != "off")
        address = await server.start(settings.listen)
        try:
            yield address
        finally:
            service.draining = True
            await server.stop(settings.drain_seconds, settings.shutdown_grace_seconds)
    finally:
        if completions:
            await completions.aclose()


async def serve(settings: Settings) -> None:
    """Run the service until SIGTERM or SIGINT; a second signal doesn't wait for running calls.

    Raises:
        SettingsError: As :func:`running`.
        ListenError: As :func:`running`.
    """
    stop = stop_signal(settings.shutdown_grace_seconds)
    async with running(settings) as address:
        log.info("listening on %s", address)
        if settings.missing:
            log.warning("AI services are disabled, because these are not set: %s", ", ".join(settings.missing))
        await stop.wait()


def stop_signal(grace: float) -> asyncio.Event:
    """Return an event that SIGTERM or SIGINT sets. The second signal has its usual effect, which is to kill.

    Args:
        grace: Seconds that running calls will have to end, for the log.
    """
    loop = asyncio.get_running_loop()
    event = asyncio.Event()

    def stop() -> None:
        event.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        # Last, so that whoever reads it can rely on the second signal.
        log.info("stopping; running calls have %g seconds to end", grace)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return event


def _completions(settings: Settings) -> AgentaCompletionService | None:
    if not (settings.api_url and settings.api_key and settings.environment_slug):
        return None
    proxy = settings.upstream_proxy
    return AgentaCompletionService(
        AgentaConfig(
            api_url=settings.api_url,
            api_key=settings.api_key.get_secret_value(),
            environment=settings.environment_slug,
            ca_file=settings.upstream_ca_file,
            proxy=proxy.get_secret_value() if proxy else None,
            max_seconds=settings.max_upstream_seconds,
            min_seconds=settings.min_upstream_seconds,
        )
    )


def _registry(settings: Settings, completions: AgentaCompletionService | None) -> Registry:
    if completions is None or settings.refine_prompt_key is None:
        return Registry()
    tools = discover(
        Dependencies(completions, apps={"refine_prompt": settings.refine_prompt_key}, repairs=settings.repairs)
    )
    try:
        return Registry(tools, settings.disabled_tools)
    except ValueError as error:
        raise SettingsError([f"AGENTA_AI_GRPC_DISABLED_TOOLS: {error}."]) from None
