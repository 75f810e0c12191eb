"""What a run has cost, from its trace in Agenta."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from agenta_ai_server.domain.token import json_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agenta_ai_server.agenta.addresses import AgentaAddress
    from agenta_ai_server.agenta.credential import ServerKey
    from agenta_ai_server.agenta.http import HttpClient

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
        http: Sends the requests.
        address: Where Agenta is.
        key: The server's key.
        seconds: Bounds each request.
    """

    def __init__(self, http: HttpClient, address: AgentaAddress, key: ServerKey, *, seconds: float = 5.0) -> None:
        self._http = http
        self._address = address
        self._key = key
        self._seconds = seconds

    async def read(self, trace_id: str, span_id: str) -> Usage | None:
        """Return what a run has used; ``None`` if Agenta doesn't say, or not yet: it takes about a second.

        Args:
            trace_id: The trace, 32 lowercase hexadecimal digits.
            span_id: The span of the run in it: callers may put several runs into one trace.
        """
        if not _TRACE_ID.fullmatch(trace_id):
            return None
        url, headers = self._address.api(f"traces/{trace_id}"), {"authorization": self._key.authorization}
        try:
            response = await self._http.send("GET", url, headers=headers, seconds=self._seconds)
            document = json_object(response.body or b"") if response.status == httpx.codes.OK else {}
        except (httpx.TransportError, ValueError):
            return None
        for span in _spans(document.get("trace")):
            if span.get("span_id") == span_id:
                return _usage(span)
        return None

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()


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
