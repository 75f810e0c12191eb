"""Reads the cost of a run from its trace in Agenta."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agenta_ai_server.agenta.api import AgentaApi

_TRACE_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Usage:
    """What one run has used.

    Attributes:
        prompt_tokens: Tokens that the model read.
        completion_tokens: Tokens that the model wrote.
        dollars: What they cost by Agenta's price list, in US dollars; 0 for a model that the list doesn't have.
    """

    prompt_tokens: float
    completion_tokens: float
    dollars: float


class UsageReader:
    """Reads the traces of runs with the server's own key; a viewer's key is enough.

    Args:
        api: Sends the requests.
    """

    def __init__(self, api: AgentaApi) -> None:
        self._api = api

    async def read(self, trace_id: str, span_id: str) -> Usage | None:
        """Return the usage of a run; ``None`` if Agenta doesn't have it, or not yet: it takes about a second.

        Args:
            trace_id: The trace, 32 lowercase hexadecimal digits.
            span_id: The span of the run in it: callers may put several runs into one trace.
        """
        if not _TRACE_ID.fullmatch(trace_id):
            return None
        try:
            response = await self._api.get(f"traces/{trace_id}")
        except (httpx.TransportError, ValueError):
            return None
        if response.status != httpx.codes.OK or not isinstance(response.document, dict):
            return None
        for span in _spans(response.document.get("trace")):
            if span.get("span_id") == span_id:
                return _usage(span)
        return None


def _spans(parent: object) -> Iterator[Mapping[str, Any]]:
    """Yield the spans below, in any depth. Spans of the same name stand in a list."""
    children = parent.get("spans") if isinstance(parent, dict) else None
    for named in children.values() if isinstance(children, dict) else ():
        for span in named if isinstance(named, list) else [named]:
            if isinstance(span, dict):
                yield span
                yield from _spans(span)


def _usage(span: Mapping[str, Any]) -> Usage | None:
    tokens, costs = (_numbers(span, "attributes", "ag", "metrics", kind, "cumulative") for kind in ("tokens", "costs"))
    if "total" not in tokens:
        return None
    return Usage(tokens.get("prompt", 0.0), tokens.get("completion", 0.0), costs.get("total", 0.0))


def _numbers(found: Any, *path: str) -> dict[str, float]:
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    numbers = found.items() if isinstance(found, dict) else ()
    return {name: float(value) for name, value in numbers if isinstance(value, int | float) and 0 <= value < 1e12}
