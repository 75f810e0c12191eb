"""Builds the client of Agenta's completion service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agenta_ai_server.agenta.completion_service import Unconfigured
from agenta_ai_server.agenta.completions import AgentaCompletionService, AgentaConfig
from agenta_ai_server.assembly.resources import secret
from agenta_ai_server.resilience.circuit_breaker import CircuitBreaker, CircuitBreakingCompletions, State
from agenta_ai_server.resilience.retry import RetryingCompletions

if TYPE_CHECKING:
    from agenta_ai_server.agenta.completion_service import CompletionService
    from agenta_ai_server.assembly.resources import Resources
    from agenta_ai_server.domain.listener import CallListener
    from agenta_ai_server.domain.pace import Pace
    from agenta_ai_server.domain.server_state import ServerState
    from agenta_ai_server.settings import Settings


@dataclass(frozen=True, slots=True)
class Upstream:
    """The completion service as the tools get it, and the breaker in front of it, if there is one."""

    completions: CompletionService
    breaker: CircuitBreaker | None = None


def build_upstream(
    settings: Settings, resources: Resources, listener: CallListener, state: ServerState, pace: Pace
) -> Upstream:
    """Build the client of the completion service, with breaker and retries. Without settings, it refuses."""
    completions = build_completions(settings, resources, listener, pace)
    if completions is None:
        return Upstream(Unconfigured())
    breaker = None
    guarded: CompletionService = completions
    if settings.breaker == "on":

        def note(now: State) -> None:
            state.degraded = now is not State.CLOSED

        breaker = CircuitBreaker(on_change=note)
        guarded = CircuitBreakingCompletions(completions, breaker)
    # Outside the breaker, so that each request counts there.
    retrying = RetryingCompletions(
        guarded,
        retries=settings.retries,
        max_seconds=settings.max_upstream_seconds,
        min_remaining_seconds=settings.min_remaining_seconds,
        unsafe=settings.retry_unsafe,
    )
    return Upstream(retrying, breaker)


def build_completions(
    settings: Settings, resources: Resources, listener: CallListener | None = None, pace: Pace | None = None
) -> AgentaCompletionService | None:
    """Build the bare client; ``None`` if the settings don't say all of what it needs."""
    if not (settings.api_url and settings.api_key):
        return None
    with resources.faults_of("AGENTA_AI_SERVICES_API_KEY_FILE"):
        config = AgentaConfig(
            api_url=settings.api_url,
            api_key=settings.api_key.get_secret_value(),
            api_key_file=settings.api_key_file,
            environment=settings.environment_slug or "",
            route=settings.upstream_route,
            ca_file=settings.upstream_ca_file,
            proxy=secret(settings.upstream_proxy),
            keep_alive=settings.upstream_keepalive == "on",
            max_seconds=settings.max_upstream_seconds,
            min_seconds=settings.min_remaining_seconds,
        )
        completions = AgentaCompletionService(config, listener, pace=pace)
        resources.on_close(completions.aclose)
        return completions
    return None
