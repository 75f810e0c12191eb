"""Sessions of earlier revisions of MCP, within limits on their number and memory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from mcp.server.streamable_http import MCP_SESSION_ID_HEADER
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from agenta_ai.mcp.body import LARGE_BYTES, Refusal
from agenta_ai.mcp.shares import Shares

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mcp.server.auth.middleware.bearer_auth import AuthorizationContext
    from mcp.server.streamable_http import StreamableHTTPServerTransport

# Sessions at the same time, and the seconds after which an idle one ends.
MAX_SESSIONS = 1000
# Of these, sessions that begin with the same credentials.
MAX_SESSIONS_OF_CALLER = 100
SESSION_SECONDS = 600.0
# Bytes of the last large requests of all sessions, and of those of one caller. Parsed, they take twice as many.
MAX_BYTES = 128 << 20
MAX_BYTES_OF_CALLER = 32 << 20


class Sessions(StreamableHTTPSessionManager):
    """The sessions of all callers. No caller may use all of them, or all of their memory.

    The SDK keeps the last request of each session until the next one, or until the session ends.
    """

    def __init__(self, server: Any, *, max_request_body_size: int) -> None:
        super().__init__(
            server,
            session_idle_timeout=SESSION_SECONDS,
            max_sessions=MAX_SESSIONS,
            max_request_body_size=max_request_body_size,
        )
        self._shares = Shares(MAX_BYTES, MAX_BYTES_OF_CALLER)
        # By session: whose share its last large request uses, and its bytes.
        self._last: dict[str, tuple[str, int]] = {}

    def count(self, headers: Mapping[str, str], body: bytes, holder: str) -> None:
        """Count a request that a session is going to keep.

        Args:
            headers: Of the request.
            body: Its body.
            holder: Its sender.

        Raises:
            Refusal: The sessions keep too much already, or it is a large request that begins one.
        """
        session = headers.get(MCP_SESSION_ID_HEADER)
        if session is None:
            if len(body) >= LARGE_BYTES and _begins_session(body):
                raise Refusal(
                    f"The request that begins a session may have less than {LARGE_BYTES:,} bytes. Send a smaller one.",
                    413,
                )
            return
        for ended in self._last.keys() - self._server_instances.keys():
            self._shares.give_back(*self._last.pop(ended))
        owner = self._session_owners.get(session)
        if session not in self._server_instances or ((owner and owner["subject"]) or "") != holder:
            return  # the SDK refuses it
        kept = self._last.pop(session, None)
        if kept:
            self._shares.give_back(*kept)
        if len(body) < LARGE_BYTES:
            return
        if not self._shares.take(holder, len(body)):
            if kept:
                self._shares.take(*kept)
                self._last[session] = kept
            raise Refusal("Open sessions keep too many large requests. End some, or try again later.", 503)
        self._last[session] = holder, len(body)

    def _admit_session(self, requestor: AuthorizationContext | None) -> StreamableHTTPServerTransport | None:
        # Where the service needs no credentials, all callers are one.
        if requestor is not None and requestor["subject"]:
            # One credential is one caller, whatever projects its sessions belong to.
            own = sum(owner["subject"] == requestor["subject"] for owner in self._session_owners.values())
            if own >= MAX_SESSIONS_OF_CALLER:
                return None
        return super()._admit_session(requestor)


def _begins_session(body: bytes) -> bool:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return False
    messages = document if isinstance(document, list) else [document]
    return any(isinstance(each, dict) and each.get("method") == "initialize" for each in messages)
