"""The rate limit fields of draft-ietf-httpapi-ratelimit-headers-11."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from agenta_ai_server.domain.gcra import MICROSECONDS

if TYPE_CHECKING:
    from agenta_ai_server.limits.limiter import Decision, Limit


def ratelimit_policy(name: str, limit: Limit) -> str:
    """Return the field ``RateLimit-Policy``: ``"default";q=10;w=20``.

    ``q`` calls may be made at once, and as many come back in ``w`` seconds: the bucket, and the time that it takes to
    refill, rounded up. A caller that keeps to ``q`` calls in any ``w`` seconds is never refused.

    Args:
        name: Names the policy; letters, digits and hyphens.
        limit: The limit by that policy.
    """
    return f'"{name}";q={limit.burst};w={math.ceil(limit.window)}'


def ratelimit(name: str, limit: Limit, decision: Decision) -> str:
    """Return the field ``RateLimit``: ``"default";r=7;t=2``.

    ``r`` calls may be made within the next ``t`` seconds, and then at least one more; so with ``r=0``, ``t`` is the
    delay until the next call, rounded up.

    Args:
        name: As for :func:`ratelimit_policy`.
        limit: The limit by that policy.
        decision: What became of the call.
    """
    missing = limit.burst - decision.remaining
    wait = round(decision.reset * MICROSECONDS) - (missing - 1) * limit.interval
    return f'"{name}";r={decision.remaining};t={math.ceil(wait / MICROSECONDS)}'
