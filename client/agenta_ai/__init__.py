__version__ = "0.1.0"

# The public names are looked up when they are first used: `agenta-ai --help` must not wait for grpc, and a server that
# shares this package must not load the client.
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agenta_ai.calls import REFINE_PROMPT
    from agenta_ai.client import Client
    from agenta_ai.diff import MessageChange, diff_messages
    from agenta_ai.errors import AgentaError, CallFailed, FieldViolation, InvalidInput, ToolFailed
    from agenta_ai.results import (
        Attempt,
        AudioContent,
        CallMeta,
        Content,
        Icon,
        ImageContent,
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
        ToolResult,
        ToolStatus,
    )
    from agenta_ai.service_config import SERVICE_CONFIG
    from agenta_ai.sync import SyncClient

__all__ = [
    "REFINE_PROMPT",
    "SERVICE_CONFIG",
    "AgentaError",
    "Attempt",
    "AudioContent",
    "CallFailed",
    "CallMeta",
    "Client",
    "Content",
    "FieldViolation",
    "Icon",
    "ImageContent",
    "InvalidInput",
    "MessageChange",
    "RateLimit",
    "RateLimiterState",
    "RefinedPrompt",
    "ResourceLink",
    "ServiceState",
    "ServiceStatus",
    "SyncClient",
    "TextContent",
    "Tool",
    "ToolAnnotations",
    "ToolError",
    "ToolFailed",
    "ToolResult",
    "ToolStatus",
    "__version__",
    "diff_messages",
]

_ELSEWHERE = {
    "REFINE_PROMPT": "calls",
    "SERVICE_CONFIG": "service_config",
    "Client": "client",
    "SyncClient": "sync",
    "MessageChange": "diff",
    "diff_messages": "diff",
    "AgentaError": "errors",
    "CallFailed": "errors",
    "FieldViolation": "errors",
    "InvalidInput": "errors",
    "ToolFailed": "errors",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_ELSEWHERE.get(name, 'results')}"), name)
    globals()[name] = found
    return found
