"""Runs the service: starts its parts, waits for a signal, and stops them."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from agenta_ai_server.assembly.resources import Resources
from agenta_ai_server.assembly.service import build_service
from agenta_ai_server.rpc.server import ListenerFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from agenta_ai_server.assembly.service import Service
    from agenta_ai_server.domain.tool import ToolSet
    from agenta_ai_server.rpc.server import Server
    from agenta_ai_server.settings import Settings

# A terminal that closes sends SIGHUP. There is nothing to reload by a signal: files are read again when they change.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

log = logging.getLogger(__name__)


@asynccontextmanager
async def running(settings: Settings, faults: Sequence[str] = ()) -> AsyncIterator[str]:
    """Run the service for as long as the context lasts, then let running calls end.

    Args:
        settings: Its settings.
        faults: What is known to be wrong with them; what else is wrong is added to these, and raised.

    Yields:
        The address that it listens on, with the real port if the port given was 0.

    Raises:
        SettingsError: There are faults, or what a setting names can't be used.
        ListenError: The address can't be listened on.
    """
    async with started(settings, faults) as (_, address):
        yield address


@asynccontextmanager
async def started(settings: Settings, faults: Sequence[str] = ()) -> AsyncIterator[tuple[Server, str]]:
    """Do the same as :func:`running`, and yield the server with its address."""
    async with Resources(faults) as resources:
        service = build_service(settings, resources)
        await resources.start()
        address = await service.server.start(settings.listen)
        _report_disabled(service.catalog.current)
        try:
            yield service.server, address
        finally:
            service.state.draining = True
            await _stop(service, settings.drain_seconds, settings.shutdown_grace_seconds)


def _report_disabled(tools: ToolSet) -> None:
    missing = ", ".join(tools.missing_settings)
    if tools.is_disabled:
        log.warning("AI services are disabled, because these are not set: %s", missing)
    elif missing:
        disabled = [tool.name for tool in tools.everything if tool.name not in tools]
        log.info("%d tools are disabled, because these are not set: %s: %s", len(disabled), missing, disabled[0])


async def _stop(service: Service, drain: float, grace: float) -> None:
    last = asyncio.get_running_loop().time() + drain + grace
    await service.server.stop(drain, grace)
    # Callers of other replicas may be waiting for running calls, and would otherwise be billed again.
    with suppress(TimeoutError):
        async with asyncio.timeout_at(last):
            await service.in_flight.idle()


async def serve(settings: Settings, faults: Sequence[str] = ()) -> None:
    """Run the service until SIGTERM, SIGINT or SIGHUP; a second signal doesn't wait for running calls.

    It ends, too, if grpc stops listening by itself, because then it can only be started again.

    Args:
        settings: As for :func:`running`.
        faults: As for :func:`running`.

    Raises:
        SettingsError: As :func:`running`.
        ListenError: As :func:`running`.
        ListenerFailed: grpc has stopped listening by itself.
    """
    # A core dump would hold keys and prompts. The hard limit stays, so that an operator can still ask for one.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    stop = stop_signal(settings.shutdown_grace_seconds)
    async with started(settings, faults) as (server, _):
        if not settings.idempotency_file and not settings.redis_url:
            log.info(
                "a restart forgets which request_ids were run, and repeats are then billed again: set "
                "AGENTA_AI_GRPC_IDEMPOTENCY_FILE, or AGENTA_AI_GRPC_REDIS_URL for several machines"
            )
        waiting = asyncio.create_task(stop.wait()), asyncio.create_task(server.ended())
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        if not stop.is_set():
            raise ListenerFailed("has stopped listening, because gRPC has failed. The log says why.")


def stop_signal(grace: float) -> asyncio.Event:
    """Return an event that SIGTERM, SIGINT or SIGHUP sets. A second signal has its usual effect, which is to kill.

    Args:
        grace: Seconds that running calls will have to end, for the log.
    """
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    signals = set(STOP_SIGNALS)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        # By nohup, which is to protect the server when the terminal closes.
        signals.remove(signal.SIGHUP)

    def stop() -> None:
        event.set()
        for number in signals:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        # Logged last, so that a reader of the line can rely on the second signal.
        log.info("stopping; running calls have %g seconds to finish", grace)

    for number in signals:
        loop.add_signal_handler(number, stop)
    return event
