"""Notices that the tools of a caller have changed."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import anyio
from mcp.server.subscriptions import InMemorySubscriptionBus, ToolsListChanged

from agenta_ai.errors import AgentaError, CallFailed
from agenta_ai.mcp.callers import digest
from agenta_ai.requests import check_token

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from agenta_ai.client import Client
    from agenta_ai.meta import Metadata

# Seconds between two looks, if the service doesn't say; and the fewest.
DEFAULT_SECONDS = 60.0
MIN_SECONDS = 1.0


@dataclass
class _Watched:
    bus: InMemorySubscriptionBus
    task: asyncio.Task[None]
    streams: int = 0


class ToolChanges:
    """Changes of the tools of callers. All streams of a caller share one watcher.

    Args:
        client: A client of the service.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        # By the digests of their credentials.
        self._watched: dict[str, _Watched] = {}

    @contextmanager
    def of(self, caller: Metadata) -> Iterator[InMemorySubscriptionBus]:
        """Return what publishes the changes of a caller's tools, from now until the end of the context."""
        key = digest(caller)
        watched = self._watched.get(key)
        if watched is None or watched.task.done():
            bus = InMemorySubscriptionBus()
            changed = partial(bus.publish, ToolsListChanged())
            watched = _Watched(bus, asyncio.create_task(watch_tools(self._client, caller, changed)))
            self._watched[key] = watched
        watched.streams += 1
        try:
            yield watched.bus
        finally:
            watched.streams -= 1
            if not watched.streams:
                watched.task.cancel()
                if self._watched.get(key) is watched:
                    del self._watched[key]


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
    known: bytes | None = None
    while True:
        seconds = DEFAULT_SECONDS
        try:
            found, seconds = await _digest_of_tools(client, metadata)
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


async def _digest_of_tools(client: Client, metadata: Metadata) -> tuple[bytes, float]:
    """Return a digest of all tools, and the seconds for which the list may be cached."""
    page = first = await client.list_tools_page(metadata=metadata)
    hashed = hashlib.sha256()
    seen: set[str] = set()
    while True:
        for tool in page.tools:
            hashed.update(repr(tool).encode())
        if not page.next_page_token:
            return hashed.digest(), first.ttl or DEFAULT_SECONDS
        check_token(page.next_page_token, seen)
        page = await client.list_tools_page(page.next_page_token, metadata=metadata)
