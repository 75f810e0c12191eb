"""The rate limits in effect: the policy, and the limiter that counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.domain.record import record
from agenta_ai_server.limits.policy import LimitPolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agenta_ai_server.domain.call import Principal
    from agenta_ai_server.domain.store_state import StoreState
    from agenta_ai_server.files.reloading import ReloadingFile
    from agenta_ai_server.limits.limiter import Decision, Limit, RateLimiter
    from agenta_ai_server.limits.policy import Quota


@record
class Check:
    """One check by the limiter, and its decision."""

    quota: Quota
    decision: Decision


class RateLimits:
    """A policy, and the limiter that counts by it.

    Args:
        policy: The policy's file; ``None`` for the built-in policy.
        limiter: Counts.
    """

    def __init__(self, policy: ReloadingFile[LimitPolicy] | None, limiter: RateLimiter) -> None:
        self._policy = policy
        self._built_in = LimitPolicy()
        self._limiter = limiter

    @property
    def state(self) -> StoreState:
        """Where the counts are kept now."""
        return self._limiter.state

    def take(self, tool: str, principal: Principal) -> Awaitable[Check | None]:
        """Take one call of the ``tool``; ``None`` if nothing limits this caller.

        Raises:
            Refused: RATE_LIMITER_UNAVAILABLE, if the limiter's store fails and the limiter fails closed.
        """
        return self._check(self._limiter.take, tool, principal)

    def peek(self, tool: str, principal: Principal) -> Awaitable[Check | None]:
        """Return what :meth:`take` would, without taking a call."""
        return self._check(self._limiter.peek, tool, principal)

    async def _check(
        self, ask: Callable[[str, Limit], Awaitable[Decision]], tool: str, principal: Principal
    ) -> Check | None:
        policy = self._policy.content if self._policy else self._built_in
        quota = policy.quota(tool, principal)
        return Check(quota, await ask(quota.key, quota.limit)) if quota else None
