"""The connections to Redis, which rate limits and repeats share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.assembly.resources import secret

if TYPE_CHECKING:
    from agenta_ai_server.assembly.resources import Resources
    from agenta_ai_server.redis.client import RedisClient
    from agenta_ai_server.settings import Settings


def build_redis(settings: Settings, resources: Resources) -> RedisClient | None:
    """Build the client of Redis; ``None`` if there is none, or its settings are wrong."""
    if url := secret(settings.redis_url):
        with resources.faults_of("AGENTA_AI_GRPC_REDIS_URL"):
            from agenta_ai_server.redis.client import RedisClient

            client = RedisClient(url)
            resources.on_close(client.aclose)
            return client
    return None
