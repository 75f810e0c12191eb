"""The tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.agenta.completion import Unconfigured
from agenta_ai_server.domain.tool import ToolSet
from agenta_ai_server.tools.catalog import Catalog, Dependencies, discover, tool_set

if TYPE_CHECKING:
    from agenta_ai_server.agenta.completion import CompletionService
    from agenta_ai_server.assembly.resources import Resources
    from agenta_ai_server.domain.tool import ToolSpec
    from agenta_ai_server.settings import Settings


def build_tools(settings: Settings, resources: Resources, completions: CompletionService) -> Catalog:
    """Build the catalog of tools."""
    apps = {"refine_prompt": settings.refine_prompt_key or ""}
    available = discover(Dependencies(completions, apps, repairs=settings.repairs, on_close=resources.on_close))
    with resources.faults_of("AGENTA_AI_GRPC_DISABLED_TOOLS"):
        return Catalog(tool_set(available, settings.missing, settings.disabled_tools))
    return Catalog(ToolSet())


def described_tools() -> list[ToolSpec]:
    """Return the built-in tools to look at, and not to run."""
    return discover(Dependencies(Unconfigured(), {"refine_prompt": ""}))
