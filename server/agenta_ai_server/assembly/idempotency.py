"""Runs of calls with a request_id, and the store of their results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agenta_ai_server.idempotency.fallback import LocalFallback
from agenta_ai_server.idempotency.in_flight import InFlightCalls
from agenta_ai_server.idempotency.memory import MemoryStore

if TYPE_CHECKING:
    from agenta_ai_server.assembly.resources import Resources
    from agenta_ai_server.idempotency.store import Store
    from agenta_ai_server.redis.client import RedisClient
    from agenta_ai_server.settings import Settings


@dataclass(frozen=True, slots=True)
class Repeats:
    """The calls that run, and the store of those that have ended."""

    in_flight: InFlightCalls
    store: Store


def build_idempotency(settings: Settings, resources: Resources, redis: RedisClient | None) -> Repeats:
    """Build what runs a request_id once."""
    store = _store(settings, resources, redis)
    in_flight = InFlightCalls(store, settings.max_call_seconds)
    resources.on_close(in_flight.aclose)
    return Repeats(in_flight, store)


def _store(settings: Settings, resources: Resources, redis: RedisClient | None) -> Store:
    local = MemoryStore(settings.result_ttl_seconds)
    if redis:
        from agenta_ai_server.idempotency.redis import RedisStore

        shared = RedisStore(redis, replay_seconds=settings.result_ttl_seconds)
        resources.on_start(shared.connect)
        resources.on_close(shared.aclose)
        return shared if settings.idempotency_on_store_failure == "refuse" else LocalFallback(shared, local)
    return local
