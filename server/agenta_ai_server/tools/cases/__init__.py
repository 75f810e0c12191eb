"""``tools.agenta.api.refine_prompt_with_cases``: refines a prompt until it passes its test cases."""

from agenta_ai_server.tools.cases.tool import provide

__all__ = ["provide"]
