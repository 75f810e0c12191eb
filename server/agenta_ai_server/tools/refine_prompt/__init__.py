"""``tools.agenta.api.refine_prompt``: refines the texts of a prompt template and leaves everything else as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agenta_ai_server.domain.tool import ToolSpec
    from agenta_ai_server.tools.catalog import Dependencies

NAME = "tools.agenta.api.refine_prompt"


def provide(dependencies: Dependencies) -> ToolSpec:
    """Make the tool."""
    # Loaded only now: the worker that renders templates is in this package, and must stay small.
    from agenta_ai_server.tools.refine_prompt import tool

    return tool.provide(dependencies)
