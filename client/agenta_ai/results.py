"""What calls answer with, in Python's own types. Durations are seconds; times are in UTC."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

from agenta_ai.diff import MessageChange, diff_messages
from agenta_ai.errors import FieldViolation, ToolFailed

if TYPE_CHECKING:
    from datetime import datetime


class ServiceState(StrEnum):
    """What the service is doing. One that this version doesn't know is read as ``SERVING``."""

    SERVING = "SERVING"
    DISABLED = "DISABLED"
    DEGRADED = "DEGRADED"
    DRAINING = "DRAINING"


class RateLimiterState(StrEnum):
    """Where the rate limit is being counted. One that this version doesn't know is read as ``UNSPECIFIED``."""

    UNSPECIFIED = "UNSPECIFIED"
    SHARED = "SHARED"
    LOCAL = "LOCAL"
    FALLBACK = "FALLBACK"
    OFF = "OFF"


@dataclass(frozen=True, slots=True)
class Icon:
    """A picture of a tool: an ``https:`` or ``data:`` URI, its media type and its sizes (``"48x48"``, ``"any"``)."""

    src: str
    mime_type: str
    sizes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ToolAnnotations:
    """Hints about how a tool behaves. What the server left open has the default of the Model Context Protocol."""

    read_only: bool = False
    destructive: bool = True
    idempotent: bool = False
    open_world: bool = True


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool, described well enough to call it. Both schemas are JSON Schema 2020-12."""

    name: str
    title: str
    description: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    annotations: ToolAnnotations
    icons: tuple[Icon, ...]


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
    next_call_delay: float


@dataclass(frozen=True, slots=True)
class ToolStatus:
    """A tool, and what this caller has left of its rate limit: ``None`` if there is none."""

    tool: Tool
    rate_limit: RateLimit | None


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The service as this caller sees it.

    Attributes:
        enabled: Whether tools can be called: every setting that the service needs is present.
        state: What the service is doing.
        missing_settings: Names of the settings that are missing.
        server_version: Version of the server, by semantic versioning.
        start_time: When the server process started; ``None`` if it didn't say.
        tools: The tools that this caller may call, sorted by name.
        rate_limiter_state: Where the rate limit is being counted.
    """

    enabled: bool
    state: ServiceState
    missing_settings: tuple[str, ...]
    server_version: str
    start_time: datetime | None
    tools: tuple[ToolStatus, ...]
    rate_limiter_state: RateLimiterState


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
class Attempt:
    """One request to the completion service: its trace in Agenta, empty if unknown, and the seconds it took."""

    trace_id: str
    duration: float


@dataclass(frozen=True, slots=True)
class CallMeta:
    """How a result came about.

    Attributes:
        trace_id: Trace in Agenta that holds the model's answer. Empty if none is known.
        attempts: The requests that were sent to the completion service, in their order.
        repaired: Whether the first answer broke a rule and the result comes from asking once more.
        replayed: Whether this is the stored result of an earlier call with the same request_id.
        warnings: Sentences about what a caller should know although the call succeeded.
    """

    trace_id: str = ""
    attempts: tuple[Attempt, ...] = ()
    repaired: bool = False
    replayed: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolError:
    """Why a tool failed: see :class:`agenta_ai.ToolFailed`, which has the same attributes."""

    reason: str
    retryable: bool
    retry_delay: float | None
    field_violations: tuple[FieldViolation, ...]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool answered.

    Attributes:
        content: The result for people. Kinds that this version doesn't know are left out.
        structured_content: The result for programs, a JSON value. ``None`` if ``is_error``.
        is_error: Whether the tool ran and failed.
        error: Why it failed; ``None`` unless ``is_error``.
        meta: How the result came about.
        request_id: What the call was sent with: it names the call.
    """

    content: tuple[Content, ...]
    structured_content: Any
    is_error: bool
    error: ToolError | None
    meta: CallMeta
    request_id: str

    @property
    def text(self) -> str:
        """The first text of the content, or nothing."""
        return next((block.text for block in self.content if block.kind == "text"), "")

    def raise_for_error(self) -> None:
        """Does nothing if the tool did its work.

        Raises:
            ToolFailed: If it failed.
        """
        if not self.is_error:
            return
        why = self.error or ToolError(reason="", retryable=False, retry_delay=None, field_violations=())
        raise ToolFailed(
            self.text,
            reason=why.reason,
            meta=self.meta,
            retryable=why.retryable,
            retry_delay=why.retry_delay,
            field_violations=why.field_violations,
        )


@dataclass(frozen=True, slots=True)
class RefinedPrompt:
    """A refined prompt template.

    Attributes:
        template: The whole template with the refined texts put back; everything else is as it was sent.
        template_json: The same as the server wrote it, in JSON.
        messages: The refined messages: same count, order and roles as before.
        summary: What was changed, in one line.
        meta: How the result came about.
        original: The template as it was sent.
    """

    template: dict[str, Any]
    template_json: str
    messages: list[dict[str, Any]]
    summary: str
    meta: CallMeta
    original: dict[str, Any]

    @property
    def trace_id(self) -> str:
        """Trace in Agenta that holds the model's answer. Empty if none is known."""
        return self.meta.trace_id

    def diff(self) -> list[MessageChange]:
        """The messages whose text was changed, in their order."""
        return diff_messages(self.original.get("messages"), self.template.get("messages"))
