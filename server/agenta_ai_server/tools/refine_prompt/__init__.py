"""``tools.agenta.api.refine_prompt``: refines the texts of a prompt template and leaves everything else as it was."""

from agenta_ai_server.tools.refine_prompt.tool import provide

__all__ = ["provide"]
