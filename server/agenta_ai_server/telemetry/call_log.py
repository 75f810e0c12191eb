"""Logs one line per call, one per denied call, and one for all calls that came too late.

The lines have ids, names and numbers, but no prompt or credential.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from agenta_ai_server.domain.listener import CallListener
from agenta_ai_server.telemetry.logs import log_event

if TYPE_CHECKING:
    from agenta_ai_server.domain.call import Call, UpstreamRequest
    from agenta_ai_server.domain.listener import CallOutcome

DENIED = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})

calls = logging.getLogger("agenta_ai_server.calls")
audit = logging.getLogger("agenta_ai_server.audit")
upstream = logging.getLogger("agenta_ai_server.upstream")

# By gRPC's status: our own bugs, and failures that the caller didn't cause. The caller causes all others.
LEVELS = {
    **dict.fromkeys(("INTERNAL", "UNKNOWN", "DATA_LOSS"), logging.ERROR),
    **dict.fromkeys(("UNAVAILABLE", "DEADLINE_EXCEEDED"), logging.WARNING),
}


class CallLog(CallListener):
    """Logs each call when it has ended, and each request to Agenta that failed.

    The line of a bug has level error; that of a failed tool, an unavailable service and a passed deadline, warning;
    that of a success, a refusal for which the caller is responsible, and a caller who left, info.
    """

    def request_ended(self, request: UpstreamRequest, call: Call | None) -> None:
        """Write the line, if the request failed. At debug, it has Agenta's own sentence."""
        if request.outcome in ("OK", "CANCELLED"):
            return
        fields = {
            "call": call.id if call else "",
            "attempt": call.requests.index(request) + 1 if call else 1,
            "reason": request.outcome,
            "upstream_status": request.status,
            "agenta_trace_id": request.trace_id,
            "seconds": round(request.seconds, 6),
        }
        if request.explanation and upstream.isEnabledFor(logging.DEBUG):
            fields["agenta_said"] = request.explanation
        log_event(upstream, logging.WARNING, "request to Agenta failed", fields)

    def call_ended(self, call: Call, outcome: CallOutcome) -> None:
        """Write the line."""
        level = LEVELS.get(outcome.code, logging.INFO)
        if outcome.code == "OK" and not outcome.is_success:
            level = logging.WARNING
        if not calls.isEnabledFor(level):
            return
        fields = _who_and_what(call, outcome) | {
            "seconds": round(outcome.seconds, 6),
            "upstream_seconds": round(call.upstream_seconds, 6),
            "request_bytes": call.request_bytes,
            "response_bytes": outcome.response_bytes,
            "attempts": len(call.requests),
            "upstream_status": call.requests[-1].status if call.requests else 0,
            "agenta_trace_id": call.requests[-1].trace_id if call.requests else "",
            "replayed": outcome.replayed,
            "repaired": outcome.repaired,
        }
        log_event(calls, level, "call ended", fields)


class AuditLog(CallListener):
    """Logs each denied call, but only the first ones of a caller who floods the service.

    Within a window as many lines are written for each address as are allowed, and at its end one that says how many
    were left out. Addresses that there is no more room for share one count.

    Args:
        lines: Lines for each address in a window, at least 1.
        hosts: Addresses that are counted separately in a window, at least 1.
        seconds: Length of a window.
    """

    def __init__(self, lines: int = 10, hosts: int = 1000, seconds: float = 60.0) -> None:
        self._lines = lines
        self._hosts = hosts
        self._seconds = seconds
        self._denied: dict[str, int] = {}
        self._window_end: asyncio.TimerHandle | None = None

    def call_ended(self, call: Call, outcome: CallOutcome) -> None:
        """Write the line, if the call was denied."""
        if outcome.code not in DENIED:
            return
        host = call.host
        if host not in self._denied and len(self._denied) >= self._hosts:
            host = "others"
        self._denied[host] = self._denied.get(host, 0) + 1
        if self._window_end is None:
            self._window_end = asyncio.get_running_loop().call_later(self._seconds, self._end_window)
        if self._denied[host] <= self._lines:
            log_event(audit, logging.WARNING, "access denied", _who_and_what(call, outcome))

    async def aclose(self) -> None:
        """Log how many lines have been left out so far."""
        if self._window_end:
            self._window_end.cancel()
            self._end_window()

    def _end_window(self) -> None:
        self._window_end = None
        for host, denied in self._denied.items():
            if denied > self._lines:
                left_out = {"peer": host, "left_out": denied - self._lines}
                log_event(audit, logging.WARNING, "further denied calls are not logged for a while", left_out)
        self._denied.clear()


class ExpiredLog(CallListener):
    """Logs how many calls came too late: one line for all of them within a window, as anyone can send very many.

    Args:
        seconds: Length of a window.
    """

    def __init__(self, seconds: float = 10.0) -> None:
        self._seconds = seconds
        self._calls = 0
        self._window_end: asyncio.TimerHandle | None = None

    def call_expired(self, method: str, tool: str) -> None:
        self._calls += 1
        if self._window_end is None:
            self._window_end = asyncio.get_running_loop().call_later(self._seconds, self._end_window)

    async def aclose(self) -> None:
        """Log what has been counted so far."""
        if self._window_end:
            self._window_end.cancel()
            self._end_window()

    def _end_window(self) -> None:
        self._window_end = None
        log_event(
            calls, logging.WARNING, "calls were dropped because their deadlines had passed", {"dropped": self._calls}
        )
        self._calls = 0


def _who_and_what(call: Call, outcome: CallOutcome) -> dict[str, Any]:
    principal = call.principal
    return {
        "call": call.id,
        "request_id": call.request_id,
        "trace_id": call.trace_id,
        "peer": call.host,
        "method": call.rpc,
        "tool": call.tool,
        "code": outcome.code,
        "reason": outcome.reason,
        "user": principal.user if principal else "",
        "organization": principal.organization if principal else "",
        "project": principal.project if principal else "",
        "auth": principal.method if principal else "",
    }
