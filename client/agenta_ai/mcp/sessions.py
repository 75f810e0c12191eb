"""Sessions of earlier revisions of MCP, within limits on their number and memory."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import anyio
import mcp_types as types
from mcp.server.streamable_http import StreamableHTTPServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.message import SessionMessage

from agenta_ai.mcp.body import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mcp.server.auth.middleware.bearer_auth import AuthorizationContext

# Sessions at the same time, and the seconds after which an idle one ends.
MAX_SESSIONS = 1000
# Of these, sessions that begin with the same credentials.
MAX_SESSIONS_OF_CALLER = 100
SESSION_SECONDS = 600.0
# Bytes of the request that begins a session, which the SDK keeps for as long as the session: parsed, up to 25 times as
# many.
MAX_BEGINNING_BYTES = 16 << 10

# Messages that the SDK drops: the second one answers a request that nobody has sent.
_NO_REQUEST = Exception("There is no request.")
_NO_RESPONSE = SessionMessage(types.JSONRPCResponse(jsonrpc="2.0", id=uuid4().hex, result={}))


class Sessions(StreamableHTTPSessionManager):
    """The sessions of all callers. No caller may use all of them."""

    def __init__(self, server: Any, *, max_request_body_size: int) -> None:
        super().__init__(
            server,
            session_idle_timeout=SESSION_SECONDS,
            max_sessions=MAX_SESSIONS,
            max_request_body_size=max_request_body_size,
        )

    def _admit_session(self, requestor: AuthorizationContext | None) -> StreamableHTTPServerTransport | None:
        # Where the service needs no credentials, all callers are one.
        if requestor is not None and requestor["subject"]:
            # One credential is one caller, whatever projects its sessions belong to.
            own = sum(owner["subject"] == requestor["subject"] for owner in self._session_owners.values())
            if own >= MAX_SESSIONS_OF_CALLER:
                return None
        admitted = super()._admit_session(requestor)
        if admitted:
            admitted.__class__ = _Transport
        return admitted


def check_beginning(body: bytes) -> None:
    """Check the size of a request that begins a session, or begins it again.

    Raises:
        Refusal: It is too large.
    """
    if len(body) > MAX_BEGINNING_BYTES and _begins_session(body):
        raise Refusal(
            f"The request that begins a session has more than {MAX_BEGINNING_BYTES:,} bytes. Send a smaller one.", 413
        )


def _begins_session(body: bytes) -> bool:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("method") == "initialize"


class _Transport(StreamableHTTPServerTransport):
    """The transport of a session that keeps no requests or responses.

    The SDK's loops hold the last message that they have received until they receive the next one, which may take as
    long as the session. Each is therefore followed by a small one.
    """

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Any]:
        async with super().connect() as (incoming, outgoing):
            writer: Any = _Followed(self._read_stream_writer, _NO_REQUEST)
            self._read_stream_writer = writer
            yield incoming, _Followed(outgoing, _NO_RESPONSE)


class _Followed:
    """A stream that sends another message after each.

    Args:
        stream: The stream.
        follower: The other message.
    """

    def __init__(self, stream: Any, follower: object) -> None:
        self._stream = stream
        self._follower = follower

    async def send(self, message: object) -> None:
        await self._stream.send(message)
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._stream.send(self._follower)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
