"""The results of calls, in Python's own types. Durations are seconds; times are in UTC.

Most fields have defaults, so a test can create a result in one line: ``ToolResult(structured_content={"n": 3})``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from agenta_ai.diff import MessageChange, diff_messages
from agenta_ai.errors import ToolFailed
from agenta_ai.meta import CallMeta

if TYPE_CHECKING:
    from datetime import datetime

    from agenta_ai.meta import FieldViolation, Metadata


class ServiceState(StrEnum):
    """What the service is doing. A value that this version doesn't know becomes ``SERVING``."""

    SERVING = "SERVING"
    DISABLED = "DISABLED"
    DEGRADED = "DEGRADED"
    DRAINING = "DRAINING"


class RateLimiterState(StrEnum):
    """Where rate limits are counted. A value that this version doesn't know becomes ``UNSPECIFIED``."""

    UNSPECIFIED = "UNSPECIFIED"
    SHARED = "SHARED"
    LOCAL = "LOCAL"
    FALLBACK = "FALLBACK"
    OFF = "OFF"


class ProgressStage(StrEnum):
    """What is happening to a call. A value that this version doesn't know becomes ``UNSPECIFIED``."""

    UNSPECIFIED = "UNSPECIFIED"
    QUEUED = "QUEUED"
    STARTED = "STARTED"
    ASKING = "ASKING"
    WAITING_FOR_RETRY = "WAITING_FOR_RETRY"
    CHECKING = "CHECKING"
    REPAIRING = "REPAIRING"
    RUNNING_CASES = "RUNNING_CASES"


@dataclass(frozen=True, slots=True)
class Progress:
    """What is happening to a call while it runs. For display: stages may be skipped or repeated.

    Attributes:
        stage: What is happening.
        text: The same in one sentence.
        done: Number of steps that are done, from 0 to ``total``.
        total: Total number of steps; 0 if steps aren't counted.
        queue_position: The call's estimated position in the queue: 1 is next; 0 if it isn't ``QUEUED``.
        retry_delay: Seconds until the next attempt; ``None`` if it isn't ``WAITING_FOR_RETRY``.
    """

    stage: ProgressStage = ProgressStage.UNSPECIFIED
    text: str = ""
    done: int = 0
    total: int = 0
    queue_position: int = 0
    retry_delay: float | None = None


@dataclass(frozen=True, slots=True)
class Icon:
    """A picture of a tool: an ``https:`` or ``data:`` URI, its media type and its sizes (``"48x48"``, ``"any"``)."""

    src: str
    mime_type: str = ""
    sizes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolAnnotations:
    """Hints about how a tool behaves. Unset hints have the default of the Model Context Protocol."""

    read_only: bool = False
    destructive: bool = True
    idempotent: bool = False
    open_world: bool = True


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool, described well enough to call it. Both schemas are JSON Schema 2020-12."""

    name: str
    title: str = ""
    description: str = ""
    input_schema: dict[str, Any] = field(default_factory=dict)
    output_schema: dict[str, Any] = field(default_factory=dict)
    annotations: ToolAnnotations = ToolAnnotations()
    icons: tuple[Icon, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolPage:
    """One page of the tools that a caller may call.

    Attributes:
        tools: The page's tools, sorted by name.
        next_page_token: The token of the next page. Empty on the last one.
        ttl: Seconds for which the page may be cached; 0 if the server didn't say.
        is_public: Whether the page is the same for every caller, so that all may share a cached one.
    """

    tools: tuple[Tool, ...] = ()
    next_page_token: str = ""
    ttl: float = 0.0
    is_public: bool = False


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One caller's limit for one tool.

    Attributes:
        burst: Calls that may be made at once after a long pause, at least 1.
        refill_per_minute: Calls that become possible again in each minute, at least 1.
        remaining: Calls that may be made at this moment, from 0 to ``burst``.
        next_call_delay: Seconds until the next call is possible. 0 if ``remaining`` is at least 1.
    """

    burst: int
    refill_per_minute: int
    remaining: int
    next_call_delay: float = 0.0


@dataclass(frozen=True, slots=True)
class ToolStatus:
    """A tool, and the state of this caller's rate limit: ``None`` if there is no limit."""

    tool: Tool
    rate_limit: RateLimit | None = None


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The service as this caller sees it.

    Attributes:
        enabled: Whether tools can be called, because all required settings are set.
        state: What the service is doing.
        missing_settings: Names of the settings that are missing.
        server_version: Version of the server, a semantic version.
        start_time: When the server process started; ``None`` if it didn't say.
        tools: The tools that this caller may call, sorted by name.
        rate_limiter_state: Where rate limits are counted.
    """

    enabled: bool = True
    state: ServiceState = ServiceState.SERVING
    missing_settings: tuple[str, ...] = ()
    server_version: str = ""
    start_time: datetime | None = None
    tools: tuple[ToolStatus, ...] = ()
    rate_limiter_state: RateLimiterState = RateLimiterState.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class TextContent:
    """Plain text."""

    text: str
    kind: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class ImageContent:
    """An encoded picture and its media type."""

    data: bytes
    mime_type: str
    kind: Literal["image"] = "image"


@dataclass(frozen=True, slots=True)
class AudioContent:
    """An encoded sound and its media type."""

    data: bytes
    mime_type: str
    kind: Literal["audio"] = "audio"


@dataclass(frozen=True, slots=True)
class ResourceLink:
    """Something that can be fetched. ``size`` is in bytes; ``None`` if unknown."""

    uri: str
    name: str
    title: str
    description: str
    mime_type: str
    size: int | None
    kind: Literal["resource_link"] = "resource_link"


Content = TextContent | ImageContent | AudioContent | ResourceLink


@dataclass(frozen=True, slots=True)
class ToolError:
    """Why a tool failed: see :class:`agenta_ai.ToolFailed`, which has the same attributes."""

    reason: str
    retryable: bool = False
    retry_delay: float | None = None
    field_violations: tuple[FieldViolation, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of a tool.

    Attributes:
        content: The result for people. Kinds that this version doesn't know are left out.
        structured_content: The result for programs, a JSON value. ``None`` if ``is_error``.
        is_error: Whether the tool ran and failed.
        error: Why it failed; ``None`` unless ``is_error``.
        meta: How the result was produced.
        request_id: The idempotency key of the call.
        call_id: The server's own id of the call, for its operator's logs. Empty if the server didn't send one.
        trailers: The metadata at the end of the call, such as the rest of a rate limit.
    """

    content: tuple[Content, ...] = ()
    structured_content: Any = None
    is_error: bool = False
    error: ToolError | None = None
    meta: CallMeta = field(default_factory=CallMeta)
    request_id: str = ""
    call_id: str = ""
    trailers: Metadata = field(default=(), repr=False)

    @property
    def text(self) -> str:
        """The first text of the content, or nothing."""
        return next((block.text for block in self.content if block.kind == "text"), "")

    def raise_for_error(self) -> None:
        """Do nothing if the tool succeeded.

        Raises:
            ToolFailed: The tool failed.
        """
        if not self.is_error:
            return
        why = self.error or ToolError(reason="")
        raise ToolFailed(
            self.text,
            reason=why.reason,
            meta=self.meta,
            retryable=why.retryable,
            retry_delay=why.retry_delay,
            field_violations=why.field_violations,
            request_id=self.request_id,
            call_id=self.call_id,
        )


@dataclass(frozen=True, slots=True)
class RefinedPrompt:
    """A refined prompt template.

    Attributes:
        template: The whole template with the refined texts; everything else is unchanged.
        summary: What was changed, in one line.
        original: The original template.
        template_json: The refined template in the server's own JSON.
        meta: How the result was produced.
        request_id: The idempotency key of the call.
        call_id: The server's own id of the call, for its operator's logs. Empty if the server didn't send one.
        trailers: The metadata at the end of the call, such as the rest of a rate limit.
    """

    template: dict[str, Any]
    summary: str = ""
    original: dict[str, Any] = field(default_factory=dict)
    template_json: str = ""
    meta: CallMeta = field(default_factory=CallMeta)
    request_id: str = ""
    call_id: str = ""
    trailers: Metadata = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not self.template_json:
            object.__setattr__(self, "template_json", json.dumps(self.template, ensure_ascii=False))

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The refined messages, with the same number, order and roles as before."""
        messages: list[dict[str, Any]] = self.template.get("messages", [])
        return messages

    @property
    def trace_id(self) -> str:
        """Id of the trace in Agenta that has the model's answer. Empty if unknown."""
        return self.meta.trace_id

    def diff(self) -> list[MessageChange]:
        """Return the messages whose text was changed, in order."""
        return diff_messages(self.original.get("messages"), self.template.get("messages"))
