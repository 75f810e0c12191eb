"""Forwards the W3C trace context of the caller: https://www.w3.org/TR/trace-context/."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agenta_ai_server.domain.listener import CallListener

if TYPE_CHECKING:
    from agenta_ai_server.domain.call import Call, UpstreamRequest

# Ids of zeros alone are invalid, and so is the version ff.
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
TRACESTATE = re.compile(r"[!-~][ -~\t]{0,511}", re.ASCII)


def trace_context(call: Call) -> dict[str, str]:
    """Return the headers ``traceparent`` and ``tracestate`` that the caller sent, as far as they are valid."""
    parents = call.values("traceparent")
    if len(parents) != 1 or not TRACEPARENT.fullmatch(parents[0]):
        return {}
    headers = {"traceparent": parents[0]}
    state = ",".join(call.values("tracestate"))
    if TRACESTATE.fullmatch(state):
        headers["tracestate"] = state
    return headers


class TraceContextForwarder(CallListener):
    """Forwards the caller's trace context to the completion service, without spans of our own."""

    def call_began(self, call: Call) -> None:
        """Note the trace that the call belongs to."""
        if parent := trace_context(call).get("traceparent"):
            call.trace_id = parent.split("-")[1]

    def request_began(self, request: UpstreamRequest, call: Call | None) -> None:
        """Add the headers."""
        if call and call.trace_id:
            request.headers.update(trace_context(call))
