"""Keeps callers to their rate limits, and tells them in a way that programs obey by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai.v1 import tool_service_pb2
from agenta_ai_server.domain.errors import ExceededQuota, Reason, Refused
from agenta_ai_server.limits.headers import ratelimit, ratelimit_policy
from agenta_ai_server.rpc.interceptor import Interceptor, Proceed

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from agenta_ai_server.domain.call import Call
    from agenta_ai_server.limits.limits import Check, RateLimits


class RateLimit(Interceptor):
    """Lets a ``CallTool`` proceed if its caller has one left."""

    def __init__(self, limits: RateLimits) -> None:
        self._limits = limits

    async def intercept(self, request: Message, call: Call, proceed: Proceed) -> Message:
        """Take one call, or refuse it."""
        if isinstance(request, tool_service_pb2.CallToolRequest):
            check = await self._limits.take(request.name, call.caller)
            if check:
                _tell(check, call)
                if not check.decision.allowed:
                    raise _limited(check)
        return await proceed(request, call)


def _tell(check: Check, call: Call) -> None:
    quota = check.quota
    call.trailers.append(("ratelimit-policy", ratelimit_policy(quota.id, quota.limit)))
    call.trailers.append(("ratelimit", ratelimit(quota.id, quota.limit, check.decision)))


def _limited(check: Check) -> Refused:
    limit = check.quota.limit
    allowed = f"{limit.burst} at once and {limit.per_minute:g} a minute"
    return Refused(
        Reason.RATE_LIMITED,
        f"You have used up the calls of this tool that you may make: {allowed}. Try again later.",
        retry_delay=check.decision.delay,
        quota=ExceededQuota(check.quota.subject, check.quota.id, limit.burst, f"Calls of this tool: {allowed}."),
    )
