"""The bridge over standard input and output."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import anyio
from mcp.server.stdio import stdio_server

from agenta_ai.errors import InvalidInput
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

    Raises:
        InvalidInput: Standard input can't be read, or standard output can't be written.
    """
    # What the SDK can't write fails once more when its buffer is finalized.
    sys.unraisablehook = _without_errors_of_files
    failure: BaseException | None = None
    server = Bridge(client, names, lambda _: (), remote=False, timeout=timeout).server()
    try:
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, initialization(server))
    except* (BrokenPipeError, ConnectionResetError, anyio.BrokenResourceError):
        pass  # the client is gone
    except* OSError as group:
        failure = group
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    if isinstance(failure, OSError):
        raise InvalidInput(f"Cannot use standard input and output: {failure.strerror}.")


def _without_errors_of_files(unraisable: sys.UnraisableHookArgs) -> None:
    if not isinstance(unraisable.exc_value, OSError):
        sys.__unraisablehook__(unraisable)
