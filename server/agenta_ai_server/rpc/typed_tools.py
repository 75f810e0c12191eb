"""Which typed methods the tools have now."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agenta_ai_server.typed.generation import Generation
from agenta_ai_server.typed.lock import lock_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenta_ai_server.domain.tool import ToolSet
    from agenta_ai_server.tools.catalog import Catalog

MAX_LOGGED = 20

log = logging.getLogger(__name__)


class TypedTools:
    """The typed methods of the tools as they are now.

    Those of hundreds of tools take half a second to make, so they are made before the tools change.

    Args:
        catalog: Knows the tools.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._made = self._prepared = _made(catalog.current)
        catalog.before_change(self._prepare)

    @property
    def current(self) -> Generation:
        """The methods of the current tools."""
        tools = self._catalog.current
        if self._made[0] is not tools:
            self._made = self._prepared if self._prepared[0] is tools else _made(tools)
        return self._made[1]

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call this whenever the methods have changed."""
        self._catalog.on_change(lambda _: listener())

    def _prepare(self, tools: ToolSet) -> None:
        self._prepared = _made(tools)


def _made(tools: ToolSet) -> tuple[ToolSet, Generation]:
    """Return the tools with their methods, and log why some have none."""
    generation = Generation(tools.everything, lock_of(tools.everything))
    for fault in generation.faults[:MAX_LOGGED]:
        log.warning("no typed method, only CallTool: %s", fault)
    if (more := len(generation.faults) - MAX_LOGGED) > 0:
        log.warning("%d more reasons why tools have no typed method: 'agenta-ai-server tools proto' prints them", more)
    return tools, generation
