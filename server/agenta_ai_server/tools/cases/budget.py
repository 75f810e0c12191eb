"""The maximum number of model calls of a request, computed first so that too many are refused before any is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.domain.errors import Violation

if TYPE_CHECKING:
    from agenta_ai_server.tools.cases.arguments import RefineWithCasesArguments


def most_calls(arguments: RefineWithCasesArguments, repairs: int) -> int:
    """Return the maximum number of model calls of the request.

    Args:
        arguments: The request.
        repairs: How often a refinement is repaired at most.
    """
    runs = len(arguments.cases) * arguments.repeat
    return runs + arguments.max_rounds * (runs + 1 + repairs)


def excess(arguments: RefineWithCasesArguments, repairs: int) -> Violation | None:
    """Return why the request is refused; ``None`` if it stays within its own limit."""
    most = most_calls(arguments, repairs)
    if most <= arguments.max_model_calls:
        return None
    return Violation(
        "arguments.max_model_calls",
        f"The request may take up to {most} model calls, and {arguments.max_model_calls} are allowed. Raise "
        "arguments.max_model_calls, use fewer cases, or lower arguments.max_rounds or arguments.repeat.",
    )
