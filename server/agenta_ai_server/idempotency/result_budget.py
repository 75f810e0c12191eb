"""Limits what the large results of one principal take in the store."""

from __future__ import annotations

from agenta_ai_server.domain.gcra import MICROSECONDS, Buckets

# Far above any real result. A larger one isn't stored, because it would evict too many others.
MAX_BYTES = 4 << 20
# Results above this size, some twenty times an ordinary one, count towards the limit of their principal.
LARGE_BYTES = 1 << 16
MAX_LARGE_KIB_PER_PRINCIPAL = 32 << 10
# Principals with large results that are remembered.
MAX_PRINCIPALS = 10_000


class ResultBudget:
    """Decides which results are stored. For use by one event loop.

    Args:
        result_seconds: How long results are stored.
    """

    def __init__(self, result_seconds: float) -> None:
        self._kib_interval = round(result_seconds * MICROSECONDS / MAX_LARGE_KIB_PER_PRINCIPAL)
        self._large_kib: Buckets[str] = Buckets(MAX_PRINCIPALS)

    def charge(self, principal: str, size: int) -> bool:
        """Count a result of ``size`` bytes, and return whether it may be stored."""
        if size > MAX_BYTES:
            return False
        if size > LARGE_BYTES:
            if self._large_kib.delay(principal, self._kib_interval, MAX_LARGE_KIB_PER_PRINCIPAL):
                return False
            self._large_kib.charge(principal, self._kib_interval, size >> 10)
        return True
