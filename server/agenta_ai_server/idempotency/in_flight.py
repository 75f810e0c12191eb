"""The runs of this process, and the callers that wait for them."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from copy import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from agenta_ai_server.domain.callers import Callers, Waiter
from agenta_ai_server.domain.errors import DeadlinePassed, Reason, Refused, forget_frames
from agenta_ai_server.domain.outcome import ToolFailure, ToolOutcome
from agenta_ai_server.idempotency.encoding import decode, encode
from agenta_ai_server.idempotency.ledger import Finished, Following, Lost
from agenta_ai_server.idempotency.result_budget import ResultBudget
from agenta_ai_server.idempotency.store import LeaseLost

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator
    from types import TracebackType

    from agenta_ai_server.domain.pace import Pace
    from agenta_ai_server.idempotency.store import Leading, Lease, Store

# Seconds between polls of a run elsewhere: short at first, because most callers join late in a run.
FIRST_LOOK, LAST_LOOK, SLOWER = 0.05, 0.25, 1.5
# How many callers may wait for one run, and for all runs of one principal. They pass neither the rate limit nor the
# concurrency limit, and each holds a call of the transport.
MAX_CALLERS = 100
MAX_JOINED_PER_PRINCIPAL = 500
# Stored results above this size may take more than a few milliseconds to read and to send. Few are so large.
LARGE_BYTES = 1 << 13

OUTCOME_UNKNOWN = ToolOutcome(
    "An earlier call with this request_id may have been billed, and its result is lost. To run it again, send a new "
    "request_id, or set rerun_if_outcome_unknown. It may then be billed twice.",
    failure=ToolFailure(Reason.OUTCOME_UNKNOWN),
)

Result = TypeVar("Result")
_OutcomeOrError: TypeAlias = ToolOutcome | Refused | DeadlinePassed
Work: TypeAlias = "Callable[[Callers, Callable[[], Awaitable[None]]], Awaitable[ToolOutcome]]"

log = logging.getLogger(__name__)


class RunId(NamedTuple):
    """Names a run.

    Attributes:
        key: Names the caller's id: its principal and request_id, hashed.
        fingerprint: A hash of the request; a different one for the same key is refused. It is part of the name because
            only the store knows to which of two fingerprints a key belongs.
        principal: Names the principal, to bound how many of its callers wait, and what is stored for it.
        rerun: Whether to run the id again if its outcome is lost. It is part of the name because callers with and
            without it may get different outcomes.
    """

    key: str
    fingerprint: bytes
    principal: str = ""
    rerun: bool = False


class InFlightCalls:
    """The calls in flight: each id is run once, and its callers share the outcome.

    A run belongs to its id and not to a caller: it continues when a caller leaves, ends by its own deadline, and is
    cancelled when nobody has waited for it for a while, or at once if nothing can have been billed. It belongs to one
    event loop.

    Args:
        store: Decides who runs an id.
        linger: For how many seconds a run that may have been billed continues after its last caller has left. A repeat
            in that time joins it; a later one finds its outcome lost.
        max_joined: How many callers may wait for runs that others have begun here.
        max_joined_per_principal: How many of them may belong to one principal.
        result_seconds: How long results are stored.
        pace: Paces reading and serializing large stored results, which no rate limit counts; ``None``: not paced.
    """

    def __init__(
        self,
        store: Store,
        linger: float = 10.0,
        max_joined: int = 6000,
        max_joined_per_principal: int = MAX_JOINED_PER_PRINCIPAL,
        result_seconds: float = 600.0,
        pace: Pace | None = None,
    ) -> None:
        self._pace = pace
        self._store = store
        self._linger_seconds = linger
        self._max_joined = max_joined
        self._max_joined_per_principal = max_joined_per_principal
        self._budget = ResultBudget(result_seconds)
        self._joined = 0
        self._joined_by_principal: Counter[str] = Counter()
        self._runs: dict[RunId, _Run] = {}
        self._tasks: dict[asyncio.Task[Any], _Run] = {}

    def __len__(self) -> int:
        """Count the ids that are running here, or are waited for here while they run elsewhere."""
        return len(self._runs)

    async def run(self, run_id: RunId, work: Work, waiter: Waiter) -> ToolOutcome:
        """Return the outcome of the id; run the work for it unless that is under way or done.

        A caller that is cancelled leaves, and the run continues for as long as others wait, or for a while.

        Args:
            run_id: Names the run.
            work: Runs the tool, in a task of its own with the context of its first caller, and ends by itself. Takes
                its callers, and a function to await before it may be billed, whose ``Refused`` must not be caught. It
                is cancelled as soon as all callers have left, unless it has marked them as begun. It raises
                ``Refused`` only if nothing was billed.
            waiter: The caller. It gets the progress of the run from now on; a run in another process reports none.

        Returns:
            The outcome; a failure with OUTCOME_UNKNOWN if an earlier run may have been billed and left none.

        Raises:
            Refused: REQUEST_ID_REUSED, REPLAY_STORE_UNAVAILABLE, OVERLOADED if too many wait already, or what the work
                raised. Callers in other processes then run the id themselves.

        Everything that the work raises is raised for all callers that joined it here.
        """
        run = self._runs.get(run_id)
        if run is None or run.task.done():
            return await self._wait(self._start(_Run(run_id, work)), waiter)
        principal = run_id.principal
        if (
            len(run.callers.waiters) >= MAX_CALLERS
            or self._joined >= self._max_joined
            or self._joined_by_principal[principal] >= self._max_joined_per_principal
        ):
            raise _too_many()
        waiter.on_join()
        self._joined += 1
        self._joined_by_principal[principal] += 1
        try:
            return await self._wait(run, waiter)
        finally:
            self._joined -= 1
            self._joined_by_principal[principal] -= 1
            if not self._joined_by_principal[principal]:
                del self._joined_by_principal[principal]

    async def _wait(self, run: _Run, waiter: Waiter) -> ToolOutcome:
        self._join(run, waiter)
        ended = asyncio.get_running_loop().create_future()
        run.waiting.append(ended)
        try:
            # Unlike a shield, it leaves no unretrieved error behind.
            await ended
        finally:
            run.waiting.remove(ended)
            self._leave(run, waiter)
        return run.result()

    async def idle(self) -> None:
        """Wait until nothing runs."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def aclose(self) -> None:
        """Cancel what runs, and wait until it has ended. Nothing may be run afterwards."""
        for task, run in self._tasks.items():
            if not run.recording:
                task.cancel()
        await self.idle()

    def _start(self, run: _Run) -> _Run:
        run.task = self._spawn(run, self._outcome_or_error(run))
        run.task.add_done_callback(lambda _: self._on_done(run))
        self._runs[run.id] = run
        return run

    def _spawn(self, run: _Run, coroutine: Coroutine[Any, Any, Result]) -> asyncio.Task[Result]:
        task = asyncio.create_task(coroutine)
        self._tasks[task] = run
        task.add_done_callback(self._tasks.pop)
        return task

    def _on_done(self, run: _Run) -> None:
        self._forget(run)
        if run.lingering:
            run.lingering.cancel()
        # Retrieved here, because every caller may have left.
        if not run.task.cancelled() and (error := run.task.exception()):
            run.traceback = error.__traceback__
        for ended in run.waiting:
            # A caller that has just been cancelled may not have left yet.
            if not ended.done():
                ended.set_result(None)

    def _forget(self, run: _Run) -> None:
        if self._runs.get(run.id) is run:
            del self._runs[run.id]

    def _join(self, run: _Run, waiter: Waiter) -> None:
        run.callers.join(waiter)
        if run.lingering:
            run.lingering.cancel()
            run.lingering = None

    def _leave(self, run: _Run, waiter: Waiter) -> None:
        run.callers.leave(waiter)
        if run.callers.waiters or run.task.done():
            return
        if run.callers.begun:
            run.lingering = self._spawn(run, self._linger(run))
        else:
            self._abandon(run)

    async def _linger(self, run: _Run) -> None:
        """Abandon the run when no one has waited for it for a while, here or elsewhere."""
        seconds = self._linger_seconds
        while seconds:
            await asyncio.sleep(seconds)
            seconds = await run.lease.followed() if run.lease else 0
        self._abandon(run)

    def _abandon(self, run: _Run) -> None:
        # From now on a repeat doesn't join it, and waits for its end in the store.
        self._forget(run)
        if not run.recording:
            run.task.cancel()

    async def _outcome_or_error(self, run: _Run) -> _OutcomeOrError:
        """Return the outcome of the run, or the error that its callers are to get.

        The error is returned and not raised: a task keeps the error that ends it, the error its frames, and these the
        task. Only a garbage collection would free that cycle.
        """
        try:
            return await self._outcome(run)
        except (Refused, DeadlinePassed) as error:
            forget_frames(error)
            return error

    async def _outcome(self, run: _Run) -> ToolOutcome:
        """Return the stored outcome of the id, or run its work."""
        while True:
            claim, waited = await self._claim(run)
            if isinstance(claim, Lost):
                return _unknown()
            if isinstance(claim, Finished):
                return await self._replay(run, claim.data, replayed=not waited)
            try:
                return await self._lead(run, claim.lease)
            except LeaseLost:
                # Nothing was sent. The process that has claimed the id meanwhile runs it.
                run.recording = False

    async def _replay(self, run: _Run, data: bytes, *, replayed: bool) -> ToolOutcome:
        if not self._pace or len(data) <= LARGE_BYTES:
            return _stored(data, replayed=replayed)
        return await self._pace.run(run.id.principal, _replaying(run.callers, data, replayed=replayed))

    async def _claim(self, run: _Run) -> tuple[Leading | Finished | Lost, str]:
        """Claim the id, and return how that ended and the token of the last run that was waited for."""
        waited = ""
        pause = FIRST_LOOK
        while True:
            claim = await self._store.claim(run.id.key, run.id.fingerprint, waited=waited, rerun=run.id.rerun)
            if not isinstance(claim, Following):
                return claim, waited
            waited = claim.token
            await asyncio.sleep(pause * random.uniform(0.7, 1))  # noqa: S311  # spread, not secret
            pause = min(pause * SLOWER, LAST_LOOK)

    async def _lead(self, run: _Run, lease: Lease) -> ToolOutcome:
        """Run the work of a claimed id, and record its outcome.

        Raises:
            LeaseLost: Another process has claimed the id, and nothing was sent.
        """
        run.lease = lease
        try:
            outcome = await run.work(run.callers, lease.begin)
        except LeaseLost:
            await self._record(run, lease.release())
            raise
        except Refused:
            # A caller that comes while this is being recorded begins a run of its own.
            self._forget(run)
            await self._record(run, lease.release())
            raise
        except BaseException:
            self._forget(run)
            await self._record(run, lease.abandon())
            raise
        data = encode(outcome)
        size = len(data)
        may_store = self._budget.charge(run.id.principal, size)
        if not may_store:
            log.error("a result of %d bytes isn't stored for repeats: it or its caller's results are too large", size)
        # Retryable means that nothing was billed: the same id may be sent again, and is then run again.
        keep = not (outcome.failure and outcome.failure.retryable)
        await self._record(run, lease.complete(data if may_store else None, keep=keep))
        return outcome

    async def _record(self, run: _Run, end: Coroutine[None, None, None]) -> None:
        # A billed result must not be lost because its last caller leaves at this moment.
        run.recording = True
        run.lease = None
        await end


@dataclass(slots=True, eq=False)
class _Run:
    """One id that runs here, or is waited for here.

    Attributes:
        callers: Who waits for it here.
        waiting: What each of them awaits.
        recording: Whether its work is done and only the store is still to record its outcome.
        lingering: The task that will cancel it unless a caller joins in time.
        traceback: Where the bug that ended it was raised.
    """

    id: RunId
    work: Work
    task: asyncio.Task[_OutcomeOrError] = field(init=False)
    callers: Callers = field(default_factory=Callers)
    waiting: list[asyncio.Future[None]] = field(default_factory=list)
    recording: bool = False
    lease: Lease | None = None
    lingering: asyncio.Task[None] | None = None
    traceback: TracebackType | None = None

    def result(self) -> ToolOutcome:
        """Return its outcome, or raise its error."""
        if self.task.cancelled():
            raise asyncio.CancelledError
        if error := self.task.exception():
            # Raising it again for each caller would make the traceback longer each time.
            raise error.with_traceback(self.traceback)
        ended = self.task.result()
        if isinstance(ended, ToolOutcome):
            return ended
        # A copy for each caller: a raised error keeps the frames that it passes, and these keep this run, which keeps
        # the original.
        raise copy(ended)


def _replaying(callers: Callers, data: bytes, *, replayed: bool) -> Generator[None, None, ToolOutcome]:
    """Read a large stored result and serialize it for its callers, in steps.

    Not before its turn, because it takes ten times the memory once it has been read.
    """
    outcome = _stored(data, replayed=replayed)
    for write in {waiter.write for waiter in callers.waiters if waiter.write}:
        yield
        outcome.written(write)
    return outcome


def _stored(data: bytes, *, replayed: bool) -> ToolOutcome:
    try:
        return replace(decode(data), replayed=replayed)
    except ValueError as error:
        # For example, a later version's result after a downgrade. It was billed anyway.
        log.error("an outcome can't be read: %s", error)  # the traceback says nothing more
        return _unknown()


def _unknown() -> ToolOutcome:
    # A copy, because what is written for its callers is kept with it.
    return replace(OUTCOME_UNKNOWN)


def _too_many() -> Refused:
    delay = random.uniform(1, 2)  # noqa: S311  # spread, not secret
    return Refused(
        Reason.OVERLOADED,
        f"Too many calls are waiting for the results of earlier calls. Retry in {delay:.1f} seconds with the same "
        f"request_id.",
        retry_delay=delay,
    )
