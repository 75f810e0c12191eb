"""The whole service, from its settings."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agenta_ai import __version__
from agenta_ai_server.assembly.auth import build_authenticator, build_policy
from agenta_ai_server.assembly.idempotency import build_idempotency
from agenta_ai_server.assembly.limits import build_limits
from agenta_ai_server.assembly.redis import build_redis
from agenta_ai_server.assembly.resources import Resources
from agenta_ai_server.assembly.rpc import build_limiter, build_pipeline, build_server, build_services
from agenta_ai_server.assembly.telemetry import build_telemetry
from agenta_ai_server.assembly.tls import build_certificates
from agenta_ai_server.assembly.tools import build_tools
from agenta_ai_server.assembly.upstream import build_upstream
from agenta_ai_server.concurrency.pacing import PacedWork
from agenta_ai_server.domain.server_state import ServerState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenta_ai_server.idempotency.in_flight import InFlightCalls
    from agenta_ai_server.rpc.server import Server
    from agenta_ai_server.settings import Settings
    from agenta_ai_server.tools.catalog import Catalog

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Service:
    """The service, built and not yet started.

    Attributes:
        state: The process.
        catalog: Its tools.
        server: Its listener.
        in_flight: What it runs for callers who repeat their calls.
    """

    state: ServerState
    catalog: Catalog
    server: Server
    in_flight: InFlightCalls


def build_service(settings: Settings, resources: Resources) -> Service:
    """Build every part. Nothing is opened before ``resources.start()``, which also raises what is wrong."""
    state = ServerState(version=__version__)
    # First, so that it sees what the others do until these have closed.
    telemetry = build_telemetry(settings, resources)
    answers = PacedWork()
    upstream = build_upstream(settings, resources, telemetry.listener, state, answers)
    limiter = build_limiter(settings)
    catalog = build_tools(settings, resources, upstream.completions, telemetry.metrics, limiter, answers)
    policy = build_policy(settings)
    redis = build_redis(settings, resources)
    limits = build_limits(settings, resources, catalog, redis)
    idempotency = build_idempotency(settings, resources, redis)
    # After the idempotency file, which may be found to be wrong only when it is opened: it may make a file of keys.
    authenticator = build_authenticator(settings, resources, policy, catalog)
    certificates = build_certificates(settings, resources)
    if settings.reuse_port and not settings.redis_url:
        alone = "count rate limits" if settings.idempotency_file else "count rate limits and know request_ids"
        log.warning("processes that share the port each %s on their own. To share, set AGENTA_AI_GRPC_REDIS_URL", alone)
    if telemetry.metrics:
        telemetry.metrics.watch(limiter, limits, idempotency.store, upstream.breaker, certificates)
    server = build_server(
        settings,
        build_services(settings, state, catalog, policy, limits),
        authenticator,
        build_pipeline(settings, policy, idempotency.in_flight, limits, limiter),
        listener=telemetry.listener,
        certificates=certificates,
    )
    return Service(state, catalog, server, idempotency.in_flight)


async def find_faults(settings: Settings, faults: Sequence[str] = ()) -> list[str]:
    """Return everything that would stop the start, without starting anything.

    Args:
        settings: The settings.
        faults: What is known to be wrong with them. What is wrong with the files that they name is added.
    """
    async with Resources(faults) as resources:
        build_service(settings, resources)
        return resources.faults
