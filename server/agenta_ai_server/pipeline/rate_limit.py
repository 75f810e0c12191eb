"""Enforces rate limits, and reports what is left in headers for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.domain.errors import ExceededQuota, Reason, Refused
from agenta_ai_server.limits.headers import ratelimit, ratelimit_policy

if TYPE_CHECKING:
    from agenta_ai_server.domain.outcome import ToolOutcome
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.limits.limits import Check, RateLimits
    from agenta_ai_server.pipeline.pipeline import Proceed


class RateLimit:
    """Takes one call from the caller's bucket, or refuses the call."""

    def __init__(self, limits: RateLimits) -> None:
        self._limits = limits

    async def intercept(self, call: ToolCall, proceed: Proceed) -> ToolOutcome:
        """Take one call, or refuse it.

        Raises:
            Refused: RATE_LIMITED or RATE_LIMITER_UNAVAILABLE.
        """
        if check := await self._limits.take(call.name, call.caller):
            call.response_metadata.extend(_headers(check))
            if not check.decision.allowed:
                raise _limited(check)
        return await proceed(call)


def _headers(check: Check) -> list[tuple[str, str]]:
    quota = check.quota
    return [
        ("ratelimit-policy", ratelimit_policy(quota.id, quota.limit)),
        ("ratelimit", ratelimit(quota.id, quota.limit, check.decision)),
    ]


def _limited(check: Check) -> Refused:
    limit = check.quota.limit
    allowed = f"{limit.burst} at once and {limit.per_minute:g} a minute"
    return Refused(
        Reason.RATE_LIMITED,
        f"You have reached the rate limit for this tool: {allowed}. Try again later.",
        retry_delay=check.decision.delay,
        quota=ExceededQuota(check.quota.subject, check.quota.id, limit.burst, f"Calls of this tool: {allowed}."),
    )
