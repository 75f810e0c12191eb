"""How the clients' channels behave: load balancing, health, repeats, keepalive and sizes. All of it, in one place.

service_config.json is shared by the clients of all languages, in the form that gRPC gives it. It has no time-outs,
although the format does: gRPC 1.85 takes up to two seconds off those, never sends them to the server
(https://github.com/grpc/grpc/issues/40633), and they would cap what a caller asks for. Each call carries its own
deadline instead.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from agenta_ai.version import __version__

# Seconds that ``call_tool`` and ``refine_prompt`` may take if the caller doesn't say.
CALL_TIMEOUT = 90.0

# Seconds that ``refine_prompt_with_cases`` may take if the caller doesn't say, unless the client has more.
CASES_TIMEOUT = 300.0

# Seconds that ``status`` and each page of ``list_tools`` may take if the caller doesn't say.
READ_TIMEOUT = 10.0

# The longest time-out, a year: gRPC quietly shortens what is longer.
MAX_TIMEOUT = 365 * 24 * 3600

# Most bytes of a request when serialized, by the contract.
MAX_REQUEST_BYTES = 1024 * 1024

# gRPC's service config with its retry policies, for those who call the generated stub themselves.
SERVICE_CONFIG: dict[str, Any] = json.loads(files("agenta_ai").joinpath("service_config.json").read_bytes())


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """A retry policy of gRPC's service config. The backoffs are seconds, the codes names such as ``"UNAVAILABLE"``."""

    retries: int
    initial_backoff: float
    max_backoff: float
    multiplier: float
    codes: frozenset[str]


def _policies() -> dict[str, RetryPolicy]:
    return {
        name["method"]: RetryPolicy(
            retries=entry["retryPolicy"]["maxAttempts"] - 1,
            initial_backoff=float(entry["retryPolicy"]["initialBackoff"].removesuffix("s")),
            max_backoff=float(entry["retryPolicy"]["maxBackoff"].removesuffix("s")),
            multiplier=entry["retryPolicy"]["backoffMultiplier"],
            codes=frozenset(entry["retryPolicy"]["retryableStatusCodes"]),
        )
        for entry in SERVICE_CONFIG["methodConfig"]
        for name in entry["name"]
    }


# The retry policy of each method. The clients apply it themselves: gRPC tells only how the last attempt ended, and so
# couldn't say whether a call may have run; nor can it be switched off for one call.
RETRY_POLICIES = _policies()

_CHANNEL_CONFIG = {name: value for name, value in SERVICE_CONFIG.items() if name != "methodConfig"}

# What both clients open their channels with.
CHANNEL_OPTIONS: tuple[tuple[str, str | int], ...] = (
    ("grpc.service_config", json.dumps(_CHANNEL_CONFIG)),
    # The first new attempt to connect comes before the last repeat of a call. The default is a second: too long for a
    # connection that is lost together with one of several listeners on its port.
    ("grpc.initial_reconnect_backoff_ms", 200),
    # The attempts of each tool call include a new attempt to connect, however long the server was away. The default is
    # two minutes.
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Servers of ours allow a ping every 8 seconds, also without calls.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.primary_user_agent", f"agenta-ai/{__version__}"),
)
