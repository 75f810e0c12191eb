"""Rate limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.files.reloading import ReloadingFile
from agenta_ai_server.limits.limits import RateLimits
from agenta_ai_server.limits.memory import MemoryLimiter
from agenta_ai_server.limits.policy import LimitPolicy

if TYPE_CHECKING:
    from agenta_ai_server.assembly.resources import Resources
    from agenta_ai_server.limits.limiter import RateLimiter
    from agenta_ai_server.redis.client import RedisClient
    from agenta_ai_server.settings import Settings
    from agenta_ai_server.tools.catalog import Catalog


def build_limits(
    settings: Settings, resources: Resources, catalog: Catalog, redis: RedisClient | None
) -> RateLimits | None:
    """Build the rate limits; ``None`` if there are none."""
    if settings.limits == "off":
        return None
    policy = None
    if settings.limits_file:
        with resources.faults_of("AGENTA_AI_GRPC_LIMITS_FILE"):
            policy = file = ReloadingFile(
                settings.limits_file,
                lambda content: LimitPolicy.parse(content, [tool.name for tool in catalog.current.everything]),
            )
            # It may name a tool that wasn't there before.
            catalog.on_change(lambda _: file.retry())
    limiter = _limiter(settings, redis)
    resources.on_start(limiter.connect)
    resources.on_close(limiter.aclose)
    return RateLimits(policy, limiter)


def _limiter(settings: Settings, redis: RedisClient | None) -> RateLimiter:
    if redis:
        from agenta_ai_server.limits.fallback import FallbackLimiter
        from agenta_ai_server.limits.redis import RedisLimiter

        return FallbackLimiter(RedisLimiter(redis), MemoryLimiter(), on_failure=settings.limits_on_store_failure)
    return MemoryLimiter()
