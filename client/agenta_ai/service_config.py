"""How the clients' channels behave: load balancing, health, retries, keepalive and sizes. All of it, in one place."""

from __future__ import annotations

from typing import Any

from agenta_ai import __version__

#: Seconds that ``call_tool`` and ``refine_prompt`` may take if the caller doesn't say.
CALL_TIMEOUT = 90.0

#: Seconds that ``status`` and each page of ``list_tools`` may take if the caller doesn't say.
READ_TIMEOUT = 10.0

#: The longest time-out, a year: gRPC quietly shortens what is longer.
MAX_TIMEOUT = 365 * 24 * 3600

_SERVICE = "agenta.ai.v1.ToolService"

# What a caller gets when the connection breaks, and when a server stops before it has begun the call: gRPC cancels it.
_LOST = ["UNAVAILABLE", "CANCELLED"]


def service_config(*, wait_for_limit: bool = False) -> dict[str, Any]:
    """How gRPC balances, checks health and retries, in the form of its service config.

    No time-outs here, although the format has them: gRPC 1.85 takes up to two seconds off those, never sends them to
    the server (https://github.com/grpc/grpc/issues/40633), and they would cap what a caller asks for. Each call carries
    its own deadline instead.

    Args:
        wait_for_limit: Whether a call of a tool that was refused by a rate limit is sent again when the server says so.
            The tool was not run then, so none is paid for twice.
    """
    limited = ["RESOURCE_EXHAUSTED"] if wait_for_limit else []
    return {
        "loadBalancingConfig": [{"round_robin": {}}],
        "healthCheckConfig": {"serviceName": _SERVICE},
        "methodConfig": [
            _retried(["Status", "ListTools"], _LOST, attempts=4),
            # Each call has a request_id, so that the server knows the repeat of one that it is running or has run. gRPC
            # allows no more attempts than these.
            _retried(["CallTool"], [*_LOST, *limited], attempts=5),
        ],
    }


def _retried(methods: list[str], codes: list[str], attempts: int) -> dict[str, Any]:
    return {
        "name": [{"service": _SERVICE, "method": method} for method in methods],
        "retryPolicy": {
            "maxAttempts": attempts,
            # Where the server sends grpc-retry-pushback-ms, that counts instead.
            "initialBackoff": "0.1s",
            "maxBackoff": "2s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": codes,
        },
    }


#: What a client has that wasn't asked to wait for limits.
SERVICE_CONFIG = service_config()

#: What both clients open their channels with, besides the service config.
CHANNEL_OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.enable_retries", 1),
    # A request that doesn't fit in this buffer is never retried. The default is 256 KiB, the largest request 1 MiB.
    ("grpc.per_rpc_retry_buffer_size", 2 * 1024 * 1024),
    # The first new attempt to connect comes before the last repeat of a call. The default is a second: too long for a
    # connection that is lost together with one of several listeners on its port.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.primary_user_agent", f"agenta-ai/{__version__}"),
)
