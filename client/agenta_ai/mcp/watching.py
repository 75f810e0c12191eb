"""Notices that the tools of a caller have changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from agenta_ai.errors import AgentaError, CallFailed
from agenta_ai.requests import check_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agenta_ai.client import Client
    from agenta_ai.meta import Metadata
    from agenta_ai.results import Tool

# Seconds between two looks, if the service doesn't say; and the fewest.
DEFAULT_SECONDS = 60.0
MIN_SECONDS = 1.0


async def watch_tools(
    client: Client,
    metadata: Metadata,
    changed: Callable[[], Awaitable[None]],
    *,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> None:
    """Call ``changed`` each time that the tools of a caller have changed, until cancelled or refused.

    It requests the list again when its time to live has passed. A failure counts as no change.

    Args:
        client: Of the service.
        metadata: The caller's credentials.
        changed: Called after a change.
        sleep: Waits for some seconds.
    """
    known: list[Tool] | None = None
    while True:
        seconds = DEFAULT_SECONDS
        try:
            found, seconds = await _all_tools(client, metadata)
        except CallFailed as failure:
            if failure.code.name in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
                return
        except AgentaError:
            pass
        else:
            if known is not None and found != known:
                await changed()
            known = found
        await sleep(max(seconds, MIN_SECONDS))


async def _all_tools(client: Client, metadata: Metadata) -> tuple[list[Tool], float]:
    """Return all tools, and the seconds for which the list may be cached."""
    page = await client.list_tools_page(metadata=metadata)
    tools = [*page.tools]
    seen: set[str] = set()
    while page.next_page_token:
        check_token(page.next_page_token, seen)
        page = await client.list_tools_page(page.next_page_token, metadata=metadata)
        tools += page.tools
    return tools, page.ttl or DEFAULT_SECONDS
