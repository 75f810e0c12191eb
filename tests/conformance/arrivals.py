"""What arrived at a server, told apart by the trace that each vector's calls belong to."""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HEADER = "traceparent"
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-01")


def new_trace() -> str:
    return uuid4().hex


def traceparent(trace: str) -> str:
    """What a call of this trace is sent with, and hands on: W3C's trace context."""
    return f"00-{trace}-{uuid4().hex[:16]}-01"


def trace_of(metadata: Mapping[str, str]) -> str:
    """The trace that a call belongs to; empty if it tells of none."""
    found = _TRACEPARENT.fullmatch(metadata.get(HEADER, ""))
    return found[1] if found else ""


@dataclass(kw_only=True)
class Arrival:
    """One request as its server saw it.

    Attributes:
        method: Of gRPC, or of HTTP.
        request: The message as JSON, or the body.
        metadata: Or headers.
        left: Seconds to the deadline that came with it; ``None`` without one.
        began: When it came.
        ended: When it was answered or broken off; ``None`` if neither yet.
        closed: Whether its caller broke it off.
    """

    method: str
    request: Any
    metadata: Mapping[str, str]
    left: float | None = None
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    closed: bool = False

    def shown(self, before: Arrival | None) -> dict[str, Any]:
        """As vectors speak of it; ``after`` is how long it came after the one before."""
        told: dict[str, Any] = {
            "method": self.method,
            "request": self.request,
            "metadata": dict(self.metadata),
            "after": self.began - before.began if before else 0,
        }
        if self.left is not None:
            told["left"] = self.left
        if self.ended is not None:
            told |= {"seconds": self.ended - self.began, "closed": self.closed}
        return told


class Arrivals:
    """All that arrived."""

    def __init__(self) -> None:
        self._by_trace: dict[str, list[Arrival]] = defaultdict(list)
        self._changed = asyncio.Event()

    def begin(self, trace: str, arrival: Arrival) -> None:
        self._by_trace[trace].append(arrival)
        self._notify()

    def end(self, arrival: Arrival, *, closed: bool) -> None:
        arrival.ended, arrival.closed = time.monotonic(), closed
        self._notify()

    def of(self, trace: str) -> list[Arrival]:
        return self._by_trace[trace]

    async def when(self, condition: Callable[[list[Arrival]], bool], trace: str) -> None:
        """Wait until the condition holds for what arrived of a trace."""
        while not condition(self.of(trace)):
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
