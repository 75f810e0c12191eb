"""Builds idempotency: the runs of calls with a request_id, and the store of their results."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agenta_ai_server.concurrency.pacing import PacedWork
from agenta_ai_server.idempotency.fallback import LocalFallback
from agenta_ai_server.idempotency.in_flight import InFlightCalls
from agenta_ai_server.idempotency.ledger import LedgerFailed
from agenta_ai_server.idempotency.memory import MemoryLedger
from agenta_ai_server.idempotency.sealing import EncryptedByFile, Plain, Unstored
from agenta_ai_server.idempotency.store import LedgerStore
from agenta_ai_server.settings import SettingsError

if TYPE_CHECKING:
    from agenta_ai_server.assembly.resources import Resources
    from agenta_ai_server.idempotency.ledger import Ledger
    from agenta_ai_server.idempotency.sealing import Sealing
    from agenta_ai_server.idempotency.store import Store
    from agenta_ai_server.redis.client import RedisClient
    from agenta_ai_server.settings import Settings


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IdempotencyParts:
    """The calls in flight, and the store of finished ones."""

    in_flight: InFlightCalls
    store: Store


def build_idempotency(settings: Settings, resources: Resources, redis: RedisClient | None) -> IdempotencyParts:
    """Build the part that runs each request_id only once."""
    store = _store(settings, resources, redis)
    in_flight = InFlightCalls(store, result_seconds=settings.result_ttl_seconds, pace=PacedWork())
    resources.on_close(in_flight.aclose)
    return IdempotencyParts(in_flight, store)


def _store(settings: Settings, resources: Resources, redis: RedisClient | None) -> Store:
    ttl = settings.result_ttl_seconds
    sealing = _sealing(settings, resources)
    shared = _shared_ledger(settings, redis)
    local = LedgerStore(MemoryLedger(ttl), ttl=ttl, sealing=sealing)
    if shared is None:
        return local
    falls_back = settings.idempotency_on_store_failure == "local"
    store = LedgerStore(shared, ttl=ttl, sealing=sealing, begin_unrecorded=falls_back)
    resources.on_start(lambda: _start(store, falls_back))
    resources.on_close(store.aclose)
    return LocalFallback(store, local) if falls_back else store


async def _start(store: LedgerStore, falls_back: bool) -> None:
    try:
        await store.start()
    except LedgerFailed as failure:
        from agenta_ai_server.idempotency.sqlite import file_fault

        sentence = f"AGENTA_AI_GRPC_IDEMPOTENCY_FILE: {file_fault(failure.why)}"
        if not falls_back:
            raise SettingsError([sentence]) from None
        log.error("%s", sentence)  # the trace tells nothing more


def _shared_ledger(settings: Settings, redis: RedisClient | None) -> Ledger | None:
    """Build the ledger that other processes use too: the file if there is one, and else Redis."""
    ttl = settings.result_ttl_seconds
    # Either is imported only where it is used, for the sake of the start.
    if settings.idempotency_file:
        from agenta_ai_server.idempotency.sqlite import SqliteLedger

        return SqliteLedger(settings.idempotency_file, ttl, durable=settings.idempotency_durable == "on")
    if redis:
        from agenta_ai_server.idempotency.redis import RedisLedger

        return RedisLedger(redis, ttl)
    return None


def _sealing(settings: Settings, resources: Resources) -> Sealing:
    if settings.result_storage == "plain":
        return Plain()
    if settings.result_storage == "encrypted" and settings.result_keys_file:
        with resources.faults_of("AGENTA_AI_GRPC_RESULT_KEYS_FILE"):
            return EncryptedByFile(settings.result_keys_file)
    return Unstored()
