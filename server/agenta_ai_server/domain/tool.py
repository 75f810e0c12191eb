"""A tool, the set of tools that callers see, and one call of a tool. None of it knows a transport."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from agenta_ai_server.domain.deadline import too_little_time
from agenta_ai_server.domain.digest import digest
from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.domain.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

    from agenta_ai_server.domain.call import AgentaCredential, Principal
    from agenta_ai_server.domain.callers import Callers, HasDeadline
    from agenta_ai_server.domain.outcome import ToolOutcome
    from agenta_ai_server.domain.progress import Stage, Watch
    from agenta_ai_server.domain.values import Json

JSON_SCHEMA = "https://json-schema.org/draft/2020-12/schema"
NAME = re.compile(r"tools\.[a-z0-9_]+\.[a-z0-9_]+\.[a-z0-9_]+")

RunTool: TypeAlias = "Callable[[ToolCall], Awaitable[ToolOutcome]]"
# Nested like their names, as in Agenta, which dispatches by provider, group and tool.
_Namespaces: TypeAlias = "dict[str, dict[str, dict[str, dict[str, ToolSpec]]]]"
_SEGMENTS = 4


_to_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


class ReadArguments(Protocol):
    """Reads the arguments of a call from its request."""

    def __call__(self, *, max_values: int = ...) -> dict[str, Json]:
        """Return them. Raises ``Refused`` with ARGUMENTS_INVALID, also if there are more values than that."""


@dataclass(frozen=True, slots=True)
class Hints:
    """How a tool behaves; ``None`` leaves the default of the Model Context Protocol."""

    read_only: bool | None = None
    destructive: bool | None = None
    idempotent: bool | None = None
    open_world: bool | None = None


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """One tool.

    Attributes:
        name: ``tools.<provider>.<group>.<tool>``, of lowercase letters, digits and underscores.
        title: Name for people.
        description: What it does and when to use it.
        permission: What a caller needs to see and call it.
        input_schema: JSON Schema 2020-12 of the arguments, of type object.
        output_schema: JSON Schema 2020-12 of the structured result.
        run: Does the work. Raises ``Refused`` before it has any effect, ``ToolFailed`` after.
        hints: How it behaves.
        needs: Names of the settings without which it is disabled.
        max_seconds: What one call may take at most; ``None`` for the service's own maximum.
        field_numbers: Its part of the lock file, from which its typed method is made; ``None`` if it has none.
        admits: Returns whether a caller who has the permission may see and call it.
    """

    name: str
    title: str
    description: str
    permission: str
    input_schema: Mapping[str, Json]
    output_schema: Mapping[str, Json]
    run: RunTool
    hints: Hints = field(default_factory=Hints)
    needs: tuple[str, ...] = ()
    max_seconds: float | None = None
    field_numbers: Mapping[str, Json] | None = None
    admits: Callable[[Principal], bool] = lambda _: True


class ToolSet:
    """The tools at one moment, found by their names, one namespace after the other. Never changes.

    Args:
        tools: All tools.
        missing_settings: Names of the settings that are missing: the tools that need one of them are disabled.

    Attributes:
        tools: The tools that can be called, sorted by name.
        everything: These and the tools that lack a setting, sorted by name.
        missing_settings: Names of the settings that those lack, sorted.

    Raises:
        ValueError: A name is malformed or given twice.
    """

    def __init__(self, tools: Iterable[ToolSpec] = (), missing_settings: Collection[str] = ()) -> None:
        missing = frozenset(missing_settings)
        self.everything = tuple(sorted(tools, key=lambda tool: tool.name))
        self.tools = tuple(tool for tool in self.everything if missing.isdisjoint(tool.needs))
        lacking = {name for tool in self.everything for name in tool.needs}
        self.missing_settings = tuple(sorted(missing & lacking))
        self._enabled = frozenset(tool.name for tool in self.tools)
        self._root: _Namespaces = {}
        for tool in self.everything:
            self._add(tool)

    @property
    def is_disabled(self) -> bool:
        """Whether the whole service lacks settings."""
        return bool(self.missing_settings) and not self.tools

    def __contains__(self, name: str) -> bool:
        """Return whether a tool of this name can be called."""
        return name in self._enabled

    def find(self, name: str) -> ToolSpec | None:
        """Return the tool of this name, also one that lacks a setting; ``None`` if there is none."""
        segments = name.split(".", _SEGMENTS)
        if len(segments) != _SEGMENTS:
            return None
        root, provider, group, tool = segments
        return self._root.get(root, {}).get(provider, {}).get(group, {}).get(tool)

    def get(self, name: str) -> ToolSpec:
        """Return the tool of this name.

        Raises:
            Refused: TOOL_NOT_FOUND, or SERVICE_DISABLED if it lacks a setting.
        """
        tool = self.find(name)
        if tool is None:
            message = f"There is no tool {name[:100]!r}. ListTools lists the tools."
            raise Refused(Reason.TOOL_NOT_FOUND, message, resource=name)
        if name not in self:
            raise service_disabled()
        return tool

    def _add(self, tool: ToolSpec) -> None:
        if not NAME.fullmatch(tool.name):
            raise ValueError(f"{tool.name} isn't a name of the form tools.<provider>.<group>.<tool>")
        root, provider, group, last = tool.name.split(".")
        tools = self._root.setdefault(root, {}).setdefault(provider, {}).setdefault(group, {})
        if last in tools:
            raise ValueError(f"two tools are named {tool.name}")
        tools[last] = tool


@dataclass(slots=True, eq=False)
class ToolCall:
    """One call of a tool.

    Attributes:
        name: Name of the tool, as the caller gave it.
        caller: The caller.
        credential: The caller's own credential in Agenta; ``None`` if it was authenticated by another.
        deadline: When the call ends at the latest, in seconds on the event loop's clock.
        max_seconds: How long a run of the tool may take at most.
        tools: The tools as they were when the call began.
        read_arguments: Reads the arguments from the request, of ``max_values`` values at the most; raises ``Refused``
            with ARGUMENTS_INVALID.
        request_id: The caller's idempotency key, unchecked; empty if there is none.
        rerun_if_outcome_unknown: Whether to run an id again whose first run may have been billed and left no result.
        response_metadata: Metadata of the response, which interceptors add to.
        callers: Who waits for the outcome, if several may; ``None`` for this call's caller alone.
        watch: Receives the progress of the call; ``None`` if no one watches.
        on_billing: Runs before anything is billed; ``None`` if that isn't recorded.
        resends: How often the next request to the completion service was sent before.
    """

    name: str
    caller: Principal
    deadline: float
    max_seconds: float
    tools: ToolSet
    read_arguments: ReadArguments
    request_id: str = ""
    credential: AgentaCredential | None = None
    rerun_if_outcome_unknown: bool = False
    response_metadata: list[tuple[str, str]] = field(default_factory=list)
    callers: Callers | None = None
    watch: Watch | None = None
    on_billing: Callable[[], Awaitable[None]] | None = None
    resends: int = 0
    _fingerprint: bytes = b""
    _arguments: dict[str, Json] | None = None

    @property
    def arguments(self) -> dict[str, Json]:
        """The arguments, read when they are first needed.

        Raises:
            Refused: ARGUMENTS_INVALID.
        """
        return self.load_arguments()

    def load_arguments(self) -> dict[str, Json]:
        """Read the arguments and release the request, which may be far larger than what is read from it.

        Raises:
            Refused: ARGUMENTS_INVALID.
        """
        if self._arguments is None:
            self._arguments = self.read_arguments()
            self.read_arguments = _nothing
        return self._arguments

    def load_few_arguments(self, max_values: int) -> bool:
        """Read the arguments like :meth:`load_arguments`, unless they are invalid or have more values than that.

        Returns:
            Whether they have been read.
        """
        if self._arguments is None:
            try:
                self._arguments = self.read_arguments(max_values=max_values)
            except Refused:
                return False
            self.read_arguments = _nothing
        return True

    def fingerprint(self) -> bytes:
        """Return a hash of the tool's name and the arguments, which is the same for every method.

        Raises:
            Refused: ARGUMENTS_INVALID.
        """
        if not self._fingerprint:
            self._fingerprint = digest(self.name, _to_json(self.arguments))
        return self._fingerprint

    def forget_arguments(self) -> None:
        """Release the arguments: this call only waits for the outcome of another one."""
        self._arguments = {}
        self.read_arguments = _nothing

    @property
    def waiting(self) -> HasDeadline:
        """Who waits for the outcome: the callers that share its run, or else its own caller."""
        return self.callers or self

    def remaining(self) -> float:
        """Return the seconds that are left of the call's deadline; negative if it has passed."""
        return self.deadline - asyncio.get_running_loop().time()

    def remaining_for_callers(self) -> float:
        """Return the seconds until the call ends, or the last caller stops waiting for it."""
        return min(self.deadline, self.waiting.deadline) - asyncio.get_running_loop().time()

    def require_time(self, least: float) -> None:
        """Refuse the call if it ends, or its last caller stops waiting, in less than ``least`` seconds.

        Raises:
            Refused: DEADLINE_TOO_SHORT.
        """
        if self.remaining_for_callers() < least:
            raise too_little_time(least)

    async def begin_billing(self) -> None:
        """Record that the call is about to cost something. Must be awaited before each request that may be billed.

        Raises:
            Refused: It can't be recorded, and so nothing may be sent.
        """
        if self.callers:
            self.callers.begun = True
        if self.on_billing:
            await self.on_billing()

    def report(
        self,
        stage: Stage,
        text: str,
        done: int = 0,
        total: int = 0,
        *,
        queue_position: int = 0,
        retry_delay: float | None = None,
    ) -> None:
        """Report the call's progress to its watchers: see :class:`~agenta_ai_server.domain.progress.Progress`."""
        if self.watch:
            self.watch(Progress(stage, text, done, total, queue_position, retry_delay))


def already_read(arguments: dict[str, Json]) -> ReadArguments:
    """Return what reads arguments that no request holds, whatever their number."""

    def read(*, max_values: int = 0) -> dict[str, Json]:
        return arguments

    return read


def _nothing(*, max_values: int = 0) -> dict[str, Json]:
    return {}


def service_disabled() -> Refused:
    """Return the refusal of a tool that lacks a setting."""
    return Refused(
        Reason.SERVICE_DISABLED,
        "AI services are not configured on this server. Its Status names the settings that are missing.",
    )
