"""The runs of this process, and the callers that wait for them."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.domain.tool import Waiters
from agenta_ai_server.idempotency.encoding import decode, encode
from agenta_ai_server.idempotency.store import Failed, Finished, Following, Lease, Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from types import TracebackType

    from agenta_ai_server.domain.outcome import ToolOutcome
    from agenta_ai_server.idempotency.store import Store

# Seconds between looks at a run elsewhere: soon at first, since most joins come late in a run.
FIRST_LOOK, LAST_LOOK, SLOWER = 0.05, 0.25, 1.5
# Far above any result there is; a larger one would push out too many others.
MAX_RESULT_BYTES = 4 << 20
# How many may wait for one run. They pass neither rate limit nor admission, and each keeps its request in memory.
MAX_CALLERS = 100

Result = TypeVar("Result")
Work: TypeAlias = "Callable[[float, Waiters], Awaitable[ToolOutcome]]"

log = logging.getLogger(__name__)


class RunFailed(Exception):
    """The run in another process ended by a bug, and may have had an effect."""


class InFlightCalls:
    """Runs each id once, whoever waits for it.

    A run belongs to its id and not to a caller: it goes on when a caller leaves, ends by its own deadline, and is
    cancelled when nobody has waited for it for a while, or at once if nothing can have been bought. It belongs to one
    event loop.

    Args:
        store: Decides who runs an id.
        max_seconds: How long a run may take.
        linger: For how many seconds a run goes on when its last caller has left; a repeat in that time joins it.
        max_joined: How many callers may wait for runs that others have begun here.
    """

    def __init__(self, store: Store, max_seconds: float, linger: float = 2.0, max_joined: int = 6000) -> None:
        self._store = store
        self._max_seconds = max_seconds
        self._linger = linger
        self._max_joined = max_joined
        self._joined = 0
        # By fingerprint too: only the store knows which of two fingerprints an id stands for.
        self._runs: dict[tuple[str, bytes], _Run] = {}
        self._tasks: dict[asyncio.Task[Any], _Run] = {}

    def __len__(self) -> int:
        """Count the ids that are running here, or are waited for here while they run elsewhere."""
        return len(self._runs)

    async def run(self, key: str, fingerprint: bytes, work: Work, deadline: float = math.inf) -> ToolOutcome:
        """Return the result of the id; run the work for it unless that is under way or done.

        A caller that is cancelled leaves, and the run goes on without it for as long as others wait, or a while.

        Args:
            key: Names the id: its principal and request_id, hashed.
            fingerprint: A hash of what is asked for; another one for the same key is refused.
            work: Does it, in a task of its own and with the context of its first caller. Gets its deadline, in seconds
                on the event loop's clock, which it must keep, and its callers; cancelled as soon as all have left
                unless it has told the callers that it has begun. It raises ``Refused`` only if it has had no effect.
            deadline: When the caller will leave, on the same clock.

        Raises:
            Refused: REQUEST_ID_REUSED, REPLAY_STORE_UNAVAILABLE, OVERLOADED if too many wait already, or what the work
                raised, for all that joined it here; those in other processes run the id then themselves.
            RunFailed: The work raised something else in another process.

        Whatever else the work raises, all that joined it here get.
        """
        run = self._runs.get((key, fingerprint))
        joined = run is not None and not run.task.done()
        if run is None or not joined:
            run = self._start(_Run(key, fingerprint, work))
        elif len(run.callers.deadlines) >= MAX_CALLERS or self._joined >= self._max_joined:
            raise _too_many()
        self._join(run, deadline)
        self._joined += joined
        try:
            # Unlike a shield, it leaves no error behind that nobody has asked for.
            await asyncio.wait({run.task})
        finally:
            self._joined -= joined
            self._leave(run, deadline)
        return run.result()

    async def idle(self) -> None:
        """Wait until nothing runs."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def aclose(self) -> None:
        """Cancel what runs, and wait until it has ended. Nothing may be run afterwards."""
        for task, run in self._tasks.items():
            if not run.ending:
                task.cancel()
        await self.idle()

    def _start(self, run: _Run) -> _Run:
        run.task = self._spawn(run, self._play(run))
        run.task.add_done_callback(lambda _: self._end(run))
        self._runs[run.id] = run
        return run

    def _spawn(self, run: _Run, coroutine: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.create_task(coroutine)
        self._tasks[task] = run
        task.add_done_callback(self._tasks.pop)
        return task

    def _end(self, run: _Run) -> None:
        self._forget(run)
        if run.closing:
            run.closing.cancel()
        # Asked for here, because every caller may have left.
        if not run.task.cancelled() and (error := run.task.exception()):
            run.traceback = error.__traceback__

    def _forget(self, run: _Run) -> None:
        if self._runs.get(run.id) is run:
            del self._runs[run.id]

    def _join(self, run: _Run, deadline: float) -> None:
        run.callers.deadlines.append(deadline)
        if run.closing:
            run.closing.cancel()
            run.closing = None

    def _leave(self, run: _Run, deadline: float) -> None:
        run.callers.deadlines.remove(deadline)
        if run.callers.deadlines or run.task.done():
            return
        if run.callers.begun:
            run.closing = self._spawn(run, self._close(run))
        else:
            self._abandon(run)

    async def _close(self, run: _Run) -> None:
        """Abandon the run when nobody has waited for it for a while, here or elsewhere."""
        seconds = self._linger
        while seconds:
            await asyncio.sleep(seconds)
            seconds = await run.lease.awaited() if run.lease else 0
        self._abandon(run)

    def _abandon(self, run: _Run) -> None:
        # From now on a repeat doesn't join it: it waits for its end in the store, and then runs anew.
        self._forget(run)
        if not run.ending:
            run.task.cancel()

    async def _play(self, run: _Run) -> ToolOutcome:
        waited = ""
        pause = FIRST_LOOK
        while isinstance(claim := await self._store.claim(run.key, run.fingerprint, waited), Following):
            waited = claim.token
            await asyncio.sleep(pause * random.uniform(0.7, 1))  # noqa: S311  # spread, not secret
            pause = min(pause * SLOWER, LAST_LOOK)
        if isinstance(claim, Failed):
            raise RunFailed
        if isinstance(claim, Finished):
            return replace(decode(claim.data), replayed=not waited)
        return await self._lead(run, claim.lease)

    async def _lead(self, run: _Run, lease: Lease) -> ToolOutcome:
        run.lease = lease
        deadline = asyncio.get_running_loop().time() + self._max_seconds
        try:
            outcome = await run.work(deadline, run.callers)
        except (Refused, asyncio.CancelledError):
            # Without effect, or wanted by nobody. Who comes while the store is told isn't refused with the others.
            self._forget(run)
            await self._finish(run, lease.release())
            raise
        except BaseException:
            await self._finish(run, lease.fail())
            raise
        data = encode(outcome)
        if len(data) > MAX_RESULT_BYTES:
            log.error("a result of %d bytes is too large to be kept for repeats", len(data))
            await self._finish(run, lease.fail())
        else:
            # Retryable means that nothing was bought: the same id may be sent again, and is then run again.
            keep = not (outcome.failure and outcome.failure.retryable)
            await self._finish(run, lease.complete(Outcome(data, keep)))
        return outcome

    async def _finish(self, run: _Run, end: Coroutine[None, None, None]) -> None:
        # What is bought must not be lost because its last caller leaves just now.
        run.ending = True
        run.lease = None
        await end


@dataclass(slots=True, eq=False)
class _Run:
    """One id that runs here, or is waited for here.

    Attributes:
        callers: Who waits for it here.
        ending: Whether its work is done and only the store remains to be told.
        closing: What will cancel it unless somebody comes.
        traceback: Where its error was raised.
    """

    key: str
    fingerprint: bytes
    work: Work
    task: asyncio.Task[ToolOutcome] = field(init=False)
    callers: Waiters = field(default_factory=Waiters)
    ending: bool = False
    lease: Lease | None = None
    closing: asyncio.Task[None] | None = None
    traceback: TracebackType | None = None

    @property
    def id(self) -> tuple[str, bytes]:
        return self.key, self.fingerprint

    def result(self) -> ToolOutcome:
        """Return what came of it, or raise it."""
        if self.task.cancelled():
            raise asyncio.CancelledError
        if error := self.task.exception():
            # Each caller would add itself to the traceback, were it not set back.
            raise error.with_traceback(self.traceback)
        return self.task.result()


def _too_many() -> Refused:
    delay = random.uniform(1, 2)  # noqa: S311  # spread, not secret
    return Refused(
        Reason.OVERLOADED,
        f"Too many calls wait for the result of this request_id: try again in {delay:.1f} seconds, with the same one.",
        retry_delay=delay,
    )
