"""How the clients' channels behave: load balancing, health, retries, keepalive and sizes. All of it, in one place."""

import json

from agenta_ai import __version__

#: Seconds that ``call_tool`` and ``refine_prompt`` may take if the caller doesn't say.
CALL_TIMEOUT = 90.0

#: Seconds that ``status`` and each page of ``list_tools`` may take if the caller doesn't say.
READ_TIMEOUT = 10.0

#: The longest time-out, a year: gRPC quietly shortens what is longer.
MAX_TIMEOUT = 365 * 24 * 3600

# No time-outs here, although the format has them: gRPC 1.85 takes up to two seconds off those, never sends them to the
# server (https://github.com/grpc/grpc/issues/40633), and they would cap what a caller asks for. Each call carries its
# own deadline instead. RESOURCE_EXHAUSTED is not retried: a rate limit is the caller's to see.
# CallTool joins the retried methods when the server joins repeats of a request_id: until then a retry after a broken
# connection would be paid twice.
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "agenta.ai.v1.ToolService"},
    "methodConfig": [
        {
            "name": [
                {"service": "agenta.ai.v1.ToolService", "method": "Status"},
                {"service": "agenta.ai.v1.ToolService", "method": "ListTools"},
            ],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}

#: What both clients open their channels with.
CHANNEL_OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    # A request that doesn't fit in this buffer is never retried. The default is 256 KiB, the largest request 1 MiB.
    ("grpc.per_rpc_retry_buffer_size", 2 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.primary_user_agent", f"agenta-ai/{__version__}"),
)
