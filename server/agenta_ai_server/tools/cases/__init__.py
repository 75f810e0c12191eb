"""``tools.agenta.api.refine_prompt_with_cases``: refines a prompt until it passes its test cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agenta_ai_server.domain.tool import ToolSpec
    from agenta_ai_server.tools.catalog import Dependencies

NAME = "tools.agenta.api.refine_prompt_with_cases"


def provide(dependencies: Dependencies) -> ToolSpec:
    """Make the tool."""
    # Loaded only now: most services don't offer it.
    from agenta_ai_server.tools.cases import tool

    return tool.provide(dependencies)
