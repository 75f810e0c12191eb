"""The bridge over standard input and output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import anyio
from mcp.server.stdio import stdio_server

from agenta_ai.mcp.bridge import Bridge, initialization

if TYPE_CHECKING:
    from agenta_ai.client import Client
    from agenta_ai.mcp.names import Names


async def serve(client: Client, names: Names, timeout: float | None = None) -> None:
    """Serve the one client at the other end until it disconnects.

    Args:
        client: A client of the service, with the user's credentials.
        names: How tools are named.
        timeout: Seconds that a tool may take; the client's own if not given.
    """
    server = Bridge(client, names, lambda _: (), remote=False, timeout=timeout).server()
    try:
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, initialization(server))
    except* (BrokenPipeError, ConnectionResetError, anyio.BrokenResourceError):
        # The client is gone. What the SDK couldn't write to it fails once more when its buffer is finalized.
        sys.unraisablehook = _without_broken_pipes


def _without_broken_pipes(unraisable: sys.UnraisableHookArgs) -> None:
    if not isinstance(unraisable.exc_value, BrokenPipeError):
        sys.__unraisablehook__(unraisable)
