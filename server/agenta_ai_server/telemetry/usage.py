"""Tokens and cost of the requests to Agenta, for Prometheus: read after the call, not on the caller's time."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import TYPE_CHECKING

from prometheus_client import Counter

from agenta_ai_server.domain.listener import CallListener

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client import CollectorRegistry

    from agenta_ai_server.agenta.usage import UsageReader
    from agenta_ai_server.domain.call import Call, UpstreamRequest

# Agenta has a trace about 0.7 s after its answer.
PAUSES = (1.0, 2.0, 4.0, 8.0)
MAX_PENDING = 1000
MAX_AT_ONCE = 8
MAX_ORGANIZATIONS = 1000
OTHERS = "(others)"
CLOSE_SECONDS = 2.0


class UsageMetrics(CallListener):
    """Counts what each request has used, by tool and organization.

    At most 1,000 requests wait to be read, and at most 1,000 organizations are distinguished; later ones share a label.

    Args:
        reader: Reads the traces.
        registry: Takes the metrics.
        pauses: Seconds to wait before each attempt to read a trace.
    """

    def __init__(self, reader: UsageReader, registry: CollectorRegistry, pauses: Sequence[float] = PAUSES) -> None:
        self._reader = reader
        self._pauses = pauses
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._pending: set[asyncio.Task[None]] = set()
        self._organizations: set[str] = set()
        self._tokens = Counter(
            "agenta_ai_tokens_total",
            "Tokens that models have read (prompt) and written (completion), as Agenta counts them.",
            ["tool", "organization", "kind"],
            registry=registry,
        )
        self._dollars = Counter(
            "agenta_ai_cost_dollars_total",
            "What models have cost by Agenta's price list, in US dollars.",
            ["tool", "organization"],
            registry=registry,
        )
        self._unread = Counter(
            "agenta_ai_usage_unread_total",
            "Requests to Agenta whose tokens and cost couldn't be read, and aren't counted.",
            registry=registry,
        )

    def request_ended(self, request: UpstreamRequest, call: Call | None) -> None:
        """Read it later, if it left a trace."""
        if not request.trace_id or request.attempt is None or request.uses_caller_credential:
            return
        if len(self._pending) >= MAX_PENDING:
            self._unread.inc()
            return
        tool = call.tool if call else ""
        organization = call.principal.organization if call and call.principal else ""
        count = self._count(request.trace_id, request.attempt.span_id, tool, self._label(organization))
        # In a context of its own: the call's would keep its prompt until then.
        task = asyncio.get_running_loop().create_task(count, context=Context())
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def aclose(self) -> None:
        """Wait briefly for pending traces, and count the rest as unread."""
        if self._pending:
            _, late = await asyncio.wait(self._pending, timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()
            self._unread.inc(len(late))

    async def _count(self, trace_id: str, span_id: str, tool: str, organization: str) -> None:
        for pause in self._pauses:
            await asyncio.sleep(pause)
            async with self._slots:
                usage = await self._reader.read(trace_id, span_id)
            if usage:
                self._tokens.labels(tool, organization, "prompt").inc(usage.prompt_tokens)
                self._tokens.labels(tool, organization, "completion").inc(usage.completion_tokens)
                self._dollars.labels(tool, organization).inc(usage.dollars)
                return
        self._unread.inc()

    def _label(self, organization: str) -> str:
        if organization not in self._organizations and len(self._organizations) >= MAX_ORGANIZATIONS:
            return OTHERS
        self._organizations.add(organization)
        return organization
