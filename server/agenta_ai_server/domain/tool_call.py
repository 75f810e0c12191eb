"""One call of a tool. It knows no transport."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agenta_ai_server.domain.deadline import too_little_time
from agenta_ai_server.domain.digest import digest
from agenta_ai_server.domain.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agenta_ai_server.domain.arguments import LazyArguments
    from agenta_ai_server.domain.call import AgentaCredential, Principal
    from agenta_ai_server.domain.callers import Callers, HasDeadline
    from agenta_ai_server.domain.outcome import Write
    from agenta_ai_server.domain.progress import Stage, Watch
    from agenta_ai_server.domain.tool import ToolSet
    from agenta_ai_server.domain.values import Json

UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)

_to_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode


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
        lazy_arguments: The arguments, which may not have been read yet.
        request_id: The caller's idempotency key, unchecked; empty if there is none.
        rerun_if_outcome_unknown: Whether to run an id again whose first run may have been billed and left no result.
        response_metadata: Metadata of the response: the list of the RPC itself, to which interceptors add.
        callers: Who waits for the outcome, if several may; ``None`` for this call's caller alone.
        watch: Receives the progress of the call; ``None`` if no one watches.
        write: Serializes the outcome for the caller; ``None`` if it takes the outcome as it is.
        on_billing: Runs before anything is billed; ``None`` if that isn't recorded.
        resends: How often the next request to the completion service was sent before.
    """

    name: str
    caller: Principal
    deadline: float
    max_seconds: float
    tools: ToolSet
    lazy_arguments: LazyArguments
    request_id: str = ""
    credential: AgentaCredential | None = None
    rerun_if_outcome_unknown: bool = False
    response_metadata: list[tuple[str, str]] = field(default_factory=list)
    callers: Callers | None = None
    watch: Watch | None = None
    write: Write | None = None
    on_billing: Callable[[], Awaitable[None]] | None = None
    resends: int = 0
    _fingerprint: bytes = b""

    @property
    def arguments(self) -> dict[str, Json]:
        """The arguments, read when they are first needed.

        Raises:
            Refused: ARGUMENTS_INVALID.
        """
        return self.lazy_arguments.load()

    def fingerprint(self) -> bytes:
        """Return a hash of the tool's name and the arguments, which is the same for every method.

        Raises:
            Refused: ARGUMENTS_INVALID.
        """
        if not self._fingerprint:
            self._fingerprint = digest(self.name, _to_json(self.arguments))
        return self._fingerprint

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


def is_request_id(text: str) -> bool:
    """Return whether the text is well-formed as a caller's idempotency key: a UUID, version 4."""
    return UUID4.fullmatch(text) is not None
