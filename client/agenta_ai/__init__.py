"""Calls Agenta AI services over gRPC: small AI tools behind a protobuf contract.

``SyncClient`` calls them from ordinary code, ``Client`` from asyncio; both have the same methods, results and errors::

    from agenta_ai import SyncClient

    with SyncClient("127.0.0.1:50051", api_key="aai_…") as client:
        refined = client.refine_prompt({"messages": [{"role": "user", "content": "Please translate {{text}}"}]})
        print(refined.template)

Three errors tell three things apart: ``InvalidInput`` (nothing was sent), ``CallFailed`` (the call ended with a status)
and ``ToolFailed`` (the tool ran and failed). ``agenta_ai.testing`` has clients for tests. ``agenta_ai.v1`` is the
generated contract. The command ``agenta-ai`` does the same in a terminal.
"""

# The public names are looked up when they are first used: `agenta-ai --help` must not wait for grpc, and a server that
# shares this package must not load the client.
from importlib import import_module
from typing import TYPE_CHECKING, Any

from agenta_ai.version import __version__

if TYPE_CHECKING:
    from agenta_ai.cases import (
        CaseReport,
        CaseResult,
        CaseRun,
        CopiedText,
        Expected,
        PromptCase,
        RefinedWithCases,
        RefinementRound,
        Verdict,
    )
    from agenta_ai.client import Client
    from agenta_ai.diff import MessageChange, diff_messages
    from agenta_ai.errors import AgentaError, CallFailed, InvalidInput, ToolFailed
    from agenta_ai.meta import Attempt, CallMeta, FieldViolation
    from agenta_ai.requests import REFINE_PROMPT, REFINE_PROMPT_WITH_CASES
    from agenta_ai.results import (
        AudioContent,
        Content,
        Icon,
        ImageContent,
        Progress,
        ProgressStage,
        RateLimit,
        RateLimiterState,
        RefinedPrompt,
        ResourceLink,
        ServiceState,
        ServiceStatus,
        TextContent,
        Tool,
        ToolAnnotations,
        ToolError,
        ToolPage,
        ToolResult,
        ToolStatus,
    )
    from agenta_ai.service_config import SERVICE_CONFIG
    from agenta_ai.sync import SyncClient

__all__ = [
    "REFINE_PROMPT",
    "REFINE_PROMPT_WITH_CASES",
    "SERVICE_CONFIG",
    "AgentaError",
    "Attempt",
    "AudioContent",
    "CallFailed",
    "CallMeta",
    "CaseReport",
    "CaseResult",
    "CaseRun",
    "Client",
    "Content",
    "CopiedText",
    "Expected",
    "FieldViolation",
    "Icon",
    "ImageContent",
    "InvalidInput",
    "MessageChange",
    "Progress",
    "ProgressStage",
    "PromptCase",
    "RateLimit",
    "RateLimiterState",
    "RefinedPrompt",
    "RefinedWithCases",
    "RefinementRound",
    "ResourceLink",
    "ServiceState",
    "ServiceStatus",
    "SyncClient",
    "TextContent",
    "Tool",
    "ToolAnnotations",
    "ToolError",
    "ToolFailed",
    "ToolPage",
    "ToolResult",
    "ToolStatus",
    "Verdict",
    "__version__",
    "diff_messages",
]

_ELSEWHERE = {
    "REFINE_PROMPT": "requests",
    "REFINE_PROMPT_WITH_CASES": "requests",
    "SERVICE_CONFIG": "service_config",
    "Client": "client",
    "SyncClient": "sync",
    "MessageChange": "diff",
    "diff_messages": "diff",
    "AgentaError": "errors",
    "CallFailed": "errors",
    "InvalidInput": "errors",
    "ToolFailed": "errors",
    "Attempt": "meta",
    "CallMeta": "meta",
    "FieldViolation": "meta",
    "CaseReport": "cases",
    "CaseResult": "cases",
    "CaseRun": "cases",
    "CopiedText": "cases",
    "Expected": "cases",
    "PromptCase": "cases",
    "RefinedWithCases": "cases",
    "RefinementRound": "cases",
    "Verdict": "cases",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_ELSEWHERE.get(name, 'results')}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
