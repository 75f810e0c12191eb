"""Metrics for Prometheus.

Label values are bounded: methods, codes and reasons are the contract's names, tools those that are registered and
``"other"`` for those of a tools file after the first thousand, and outcomes ``"OK"``,
``"CANCELLED"``, ``"INTERNAL"`` or a reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from agenta_ai_server.domain.call import rpc_name
from agenta_ai_server.domain.errors import Reason
from agenta_ai_server.domain.listener import CallListener
from agenta_ai_server.domain.store_state import StoreState
from agenta_ai_server.resilience.circuit_breaker import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agenta_ai_server.concurrency.limiter import ConcurrencyLimiter
    from agenta_ai_server.domain.call import Call, UpstreamRequest
    from agenta_ai_server.domain.listener import CallOutcome
    from agenta_ai_server.idempotency.store import Store
    from agenta_ai_server.limits.limits import RateLimits
    from agenta_ai_server.resilience.circuit_breaker import CircuitBreaker

# The values of the gauges of these states, which their descriptions explain.
BREAKER_STATES = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}
STORE_STATES = {StoreState.SHARED: 0, StoreState.LOCAL: 1, StoreState.FALLBACK: 2}
# Seconds. A model takes its time, and a call ends after 90 by default; what the service itself adds are milliseconds.
CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 90)
OVERHEAD_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
# Each has some forty series. Those of a tool that is gone stay until the process ends.
MAX_TOOLS = 1_000
OTHER_TOOLS = "other"

Child = TypeVar("Child", Counter, Histogram)


class HasExpiry(Protocol):
    """Certificates."""

    @property
    def expires(self) -> float:
        """When the first of them expires, in seconds since the epoch."""


class _Children(Generic[Child]):
    """A metric's children by their label values: the library's own look-up doubles the time of a count."""

    def __init__(self, metric: Child) -> None:
        self._metric: Child = metric
        self._children: dict[tuple[str, ...], Child] = {}

    def __call__(self, *labels: str) -> Child:
        child = self._children.get(labels)
        if child is None:
            child = self._children[labels] = self._metric.labels(*labels)
        return child


class Metrics(CallListener):
    """What one server exports. Each has a registry of its own.

    Args:
        version: The server's.
    """

    def __init__(self, version: str) -> None:
        # When a series began is of use to OpenMetrics alone, and would double their number.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._tools: set[str] = set()
        ProcessCollector(registry=self.registry)
        self._calls = self._counter(
            "agenta_ai_calls_total",
            "Calls that have ended. The reason is empty for successes, bugs (INTERNAL), passed deadlines and cancelled "
            "calls.",
            "method", "tool", "code", "reason",
        )  # fmt: skip
        self._call_seconds = self._histogram(
            "agenta_ai_call_seconds", "Seconds from a call's arrival to its response.", CALL_BUCKETS, "method", "tool"
        )
        self._upstream_seconds = self._histogram(
            "agenta_ai_upstream_seconds", "Seconds of one request to Agenta.", CALL_BUCKETS, "tool", "outcome"
        )
        self._overhead_seconds = self._histogram(
            "agenta_ai_overhead_seconds",
            "Seconds that a completed call spent outside its requests to Agenta, including queueing and waiting for "
            "retries. Calls that sent no request aren't counted.",
            OVERHEAD_BUCKETS,
            "tool",
        )
        self._replayed = Counter(
            "agenta_ai_replayed_total",
            "Calls that got the stored result of an earlier call with the same request_id.",
            registry=self.registry,
        )
        self._repaired = self._counter(
            "agenta_ai_repaired_total",
            "Calls whose first answer broke a rule, so that the model was asked again. The outcome is repaired or "
            "failed.",
            "outcome",
        )
        self._retries = Counter(
            "agenta_ai_upstream_retries_total",
            "Requests to Agenta that were retries of a failed request.",
            registry=self.registry,
        )
        for outcome in ("repaired", "failed"):
            self._repaired(outcome)
        build = Gauge("agenta_ai_build_info", "1, with the server's version.", ["version"], registry=self.registry)
        build.labels(version).set(1)

    def gauge(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Add a gauge whose value is read at each scrape, in another thread."""
        Gauge(name, description, registry=self.registry).set_function(value)

    def watch(
        self,
        limiter: ConcurrencyLimiter,
        limits: RateLimits | None,
        store: Store,
        breaker: CircuitBreaker | None,
        certificates: HasExpiry | None,
    ) -> None:
        """Add the gauges of the service's parts."""
        self.gauge("agenta_ai_in_flight", "Tool calls that are running now.", lambda: limiter.in_flight)
        self.gauge("agenta_ai_waiting", "Calls that are queued for a slot now.", lambda: limiter.queued)
        if breaker:
            self.gauge(
                "agenta_ai_breaker_state",
                "The circuit breaker in front of Agenta: 0 closed, 1 half-open, 2 open.",
                lambda: BREAKER_STATES[breaker.state],
            )
        if limits:
            self.gauge(
                "agenta_ai_limiter_state",
                "Where rate limits are counted: 0 in the shared Redis; 1 in this process, as configured; 2 in this "
                "process or nowhere, because Redis is failing.",
                lambda: STORE_STATES[limits.state],
            )
        self.gauge(
            "agenta_ai_replay_store_state",
            "Where request_ids and results are kept: 0 in the shared file or Redis; 1 in this process, as configured; "
            "2 in this process or nowhere, because the file or Redis is failing.",
            lambda: STORE_STATES[store.state],
        )
        if certificates:
            self.gauge(
                "agenta_ai_certificate_expiry_seconds",
                "Earliest expiry of a certificate in the server's chain, in seconds since the epoch.",
                lambda: certificates.expires,
            )

    def watch_tools(self, count: Callable[[], int], is_file_broken: Callable[[], bool]) -> None:
        """Add the gauges of a tools file."""
        self.gauge("agenta_ai_tools", "Tools that can be called now.", count)
        self.gauge(
            "agenta_ai_tools_file_broken",
            "1 while the tools file is invalid, so that its last valid version is in effect; otherwise 0.",
            is_file_broken,
        )

    def call_ended(self, call: Call, outcome: CallOutcome) -> None:
        method, tool = call.rpc, self._label(call.tool)
        self._calls(method, tool, outcome.code, outcome.reason).inc()
        self._call_seconds(method, tool).observe(outcome.seconds)
        if outcome.replayed:
            self._replayed.inc()
        if call.requests and outcome.code == "OK":
            self._overhead_seconds(tool).observe(max(0.0, outcome.seconds - call.upstream_seconds))
            self._count_repair(call, outcome)

    def call_expired(self, method: str, tool: str) -> None:
        self._calls(rpc_name(method), self._label(tool), "DEADLINE_EXCEEDED", "").inc()

    def request_began(self, request: UpstreamRequest, call: Call | None) -> None:
        if request.resends:
            self._retries.inc()

    def request_ended(self, request: UpstreamRequest, call: Call | None) -> None:
        self._upstream_seconds(self._label(call.tool) if call else "", request.outcome).observe(request.seconds)

    def _counter(self, name: str, description: str, *labels: str) -> _Children[Counter]:
        return _Children(Counter(name, description, labels, registry=self.registry))

    def _histogram(self, name: str, description: str, buckets: Sequence[float], *labels: str) -> _Children[Histogram]:
        return _Children(Histogram(name, description, labels, buckets=buckets, registry=self.registry))

    def _label(self, tool: str) -> str:
        if tool not in self._tools:
            if len(self._tools) >= MAX_TOOLS:
                return OTHER_TOOLS
            self._tools.add(tool)
        return tool

    def _count_repair(self, call: Call, outcome: CallOutcome) -> None:
        if outcome.repaired:
            self._repaired("repaired").inc()
        elif outcome.reason == Reason.UPSTREAM_OUTPUT_INVALID and any(
            request.outcome == "OK" for request in call.requests[:-1]
        ):
            self._repaired("failed").inc()
