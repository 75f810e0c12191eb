"""Puts the tools of a changed tools file into the catalog while the service runs."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenta_ai_server.domain.tool import ToolSet, ToolSpec
    from agenta_ai_server.files.reloading import ReloadingDocument
    from agenta_ai_server.tools.catalog import Catalog

# Between looks at the file.
LOOK_SECONDS = 1.0

log = logging.getLogger(__name__)


class ToolsFileFollower:
    """Looks at the tools file every second, so that no call waits for it.

    Args:
        file: Its content is all tools that there are.
        catalog: Has the tools of ``known``, and gets those of each change.
        known: What the file's content was when the catalog was filled.
        make_set: Returns the tools that callers see, of all that there are.
    """

    def __init__(
        self,
        file: ReloadingDocument[list[ToolSpec]],
        catalog: Catalog,
        known: list[ToolSpec],
        make_set: Callable[[list[ToolSpec]], ToolSet],
    ) -> None:
        self._file = file
        self._catalog = catalog
        self._known = known
        self._make_set = make_set
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look at the file."""
        self._task = asyncio.create_task(self._follow(), name="follow-tools-file")

    async def aclose(self) -> None:
        """Stop looking at it."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            available = await asyncio.to_thread(lambda: self._file.content)
            if available is not self._known:
                self._known = available
                await self._change(available)

    async def _change(self, available: list[ToolSpec]) -> None:
        try:
            tools = self._make_set(available)
            await asyncio.to_thread(self._catalog.prepare, tools)
            self._catalog.current = tools
        except Exception as error:
            # Without this, the task would end unseen, and no later change would take effect.
            log.error("the changed tools aren't used because of a bug: %s", type(error).__name__)
        else:
            log.info("there are %d tools now", len(tools.tools))
