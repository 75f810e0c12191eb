"""The listener, and the interceptors that each call passes, in their order."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agenta_ai_server.concurrency.limiter import ConcurrencyLimiter
from agenta_ai_server.pipeline.authorize import Authorize
from agenta_ai_server.pipeline.concurrency import ConcurrencyLimit
from agenta_ai_server.pipeline.idempotency import Idempotency
from agenta_ai_server.pipeline.rate_limit import RateLimit
from agenta_ai_server.rpc import reflection
from agenta_ai_server.rpc.authentication import Authentication
from agenta_ai_server.rpc.boundary import Boundary
from agenta_ai_server.rpc.health import Health
from agenta_ai_server.rpc.request_reader import RequestReader
from agenta_ai_server.rpc.server import Server
from agenta_ai_server.rpc.servicer import ToolServicer
from agenta_ai_server.rpc.tool_calls import ToolCalls
from agenta_ai_server.rpc.tool_pipeline import ToolPipeline
from agenta_ai_server.rpc.typed_methods import TypedMethods
from agenta_ai_server.rpc.typed_tools import TypedTools

if TYPE_CHECKING:
    from agenta_ai_server.auth.authenticator import Authenticator
    from agenta_ai_server.auth.policy import AccessPolicy
    from agenta_ai_server.domain.listener import CallListener
    from agenta_ai_server.domain.server_state import ServerState
    from agenta_ai_server.idempotency.in_flight import InFlightCalls
    from agenta_ai_server.limits.limits import RateLimits
    from agenta_ai_server.rpc.tls import Certificates
    from agenta_ai_server.settings import Settings
    from agenta_ai_server.tools.catalog import Catalog

# Room for calls without a slot, such as Status. Not more, because a new call waits until grpc has dispatched all
# earlier ones, even those that have ended.
CALLS_WITHOUT_SLOT = 1_000


def build_limiter(settings: Settings) -> ConcurrencyLimiter:
    """Build the concurrency limiter."""
    return ConcurrencyLimiter(settings.max_in_flight, settings.max_queued, min_seconds=settings.min_remaining_seconds)


def build_pipeline(
    settings: Settings,
    policy: AccessPolicy,
    in_flight: InFlightCalls,
    limits: RateLimits | None,
    limiter: ConcurrencyLimiter,
) -> ToolPipeline:
    """Build the interceptors of a tool call, in their order."""
    return ToolPipeline(
        [
            Authorize(policy),
            Idempotency(in_flight, settings.min_remaining_seconds),
            *([RateLimit(limits)] if limits else []),
            ConcurrencyLimit(limiter),
        ],
        # As many as could get a slot or a place in the queue.
        RequestReader(max_waiting=settings.max_in_flight + settings.max_queued),
    )


@dataclass(frozen=True, slots=True)
class Services:
    """The services of the listener.

    Attributes:
        tools: The contract's own service.
        typed: Knows the services of the tools.
        methods: Answers these.
    """

    tools: ToolServicer
    typed: TypedTools
    methods: TypedMethods


def build_services(
    settings: Settings, state: ServerState, catalog: Catalog, policy: AccessPolicy, limits: RateLimits | None
) -> Services:
    """Build the services of the listener."""
    calls = ToolCalls(catalog, max_seconds=settings.max_call_seconds)
    typed = TypedTools(catalog)
    return Services(ToolServicer(state, catalog, policy, calls, limits), typed, TypedMethods(typed, calls))


def build_server(
    settings: Settings,
    services: Services,
    authenticator: Authenticator | None,
    pipeline: ToolPipeline,
    *,
    listener: CallListener,
    certificates: Certificates | None,
) -> Server:
    """Build the listener."""
    typed = services.typed
    boundary = Boundary(settings.max_call_seconds, listener)
    typed.on_change(boundary.forget_methods)
    return Server(
        boundary,
        [Authentication(authenticator), pipeline],
        [
            services.tools.handlers(),
            services.methods,
            *(reflection.handlers(typed) if settings.reflection == "on" else ()),
        ],
        Health(lambda: typed.current.services),
        tls=certificates,
        max_call_seconds=settings.longest_call_seconds,
        max_connection_age_seconds=settings.max_connection_age_seconds,
        max_pending_calls=settings.max_in_flight + settings.max_queued + CALLS_WITHOUT_SLOT,
        max_connections=settings.max_connections(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        reuse_port=settings.reuse_port,
    )
