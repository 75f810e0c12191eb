"""Places for calls in flight, and the lines in which calls wait for one."""

from __future__ import annotations

import asyncio
import math
import random
from collections import OrderedDict
from typing import TYPE_CHECKING, TypeAlias

from agenta_ai_server.domain.errors import Reason, Refused

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from agenta_ai_server.domain.call import HasDeadline

# How much one call's duration moves the mean of all: about the last 60 calls count.
WEIGHT = 1 / 32
# Bounds of the delay that a refused call is told, in seconds, before the jitter.
MIN_DELAY, MAX_DELAY = 1.0, 30.0

_Line: TypeAlias = "OrderedDict[_Place, None]"


class ConcurrencyLimiter:
    """Lets so many calls in and no more; the others wait in turn.

    While there is a free place, whoever comes gets it: one organization alone may use all of them. When there is none,
    calls wait in the line of their organization, and a freed place goes to the next line in turn whose organization
    holds less than its share. If there is none such, it goes to the next line in turn, since a place never stays empty
    while a call waits. So an organization that has flooded the service shrinks to its share as its calls end, and none
    starves: either it holds its share or it gets its turn.

    A line may be as long as there is room left to wait. So a single organization fills at most half of the room, and
    however many flood the service, there is some left for another.

    Every operation takes constant time. An admission belongs to one event loop.

    Args:
        max_in_flight: Places, at least 1.
        max_waiting: How many calls may wait, in all lines together; 0 refuses every call that finds no place.
        share: The part of the places that an organization may hold while others wait, above 0 and at most 1.
        min_seconds: What a call must have left when it gets its place, to be worth its price.
        typical_seconds: How long a call is assumed to hold its place before the first ones have shown it.
    """

    def __init__(
        self,
        max_in_flight: int = 4000,
        max_waiting: int = 2000,
        share: float = 0.25,
        *,
        min_seconds: float = 1.0,
        typical_seconds: float = 5.0,
    ) -> None:
        self._places = max_in_flight
        self._room = max_waiting
        self._share = max(1, int(max_in_flight * share))
        self._min_seconds = min_seconds
        self._in_flight = 0
        self._waiting = 0
        self._held: dict[str, int] = {}
        # Lines in their turn: of organizations below their share, and of the others.
        self._below: OrderedDict[str, _Line] = OrderedDict()
        self._above: OrderedDict[str, _Line] = OrderedDict()
        self._mean_seconds = typical_seconds
        self._moved = 0.0

    @property
    def in_flight(self) -> int:
        """Calls that hold a place."""
        return self._in_flight

    @property
    def waiting(self) -> int:
        """Calls that wait for a place."""
        return self._waiting

    def place(self, organization: str, waiting: HasDeadline | None = None) -> AbstractAsyncContextManager[None]:
        """Hold a place for as long as the context lasts; entering it waits for one.

        Args:
            organization: Who shares a line; callers without an organization share that of ``""``.
            waiting: Who stops waiting at a deadline, which may change meanwhile; ``None`` for never.

        Raises:
            Refused: OVERLOADED, on entering: at once if there is no room to wait or the deadline would pass before the
                call's turn, as far as can be told; later if it does pass but for ``min_seconds``.
        """
        return _Place(self, organization, waiting)

    def _enter(self, place: _Place, now: float) -> bool:
        """Take a free place, if there is one."""
        if self._in_flight >= self._places:
            return False
        self._count(place.organization, 1)
        if self._in_flight == self._places:
            self._moved = now
        return True

    async def _wait(self, place: _Place, loop: asyncio.AbstractEventLoop) -> None:
        self._queue(place, loop)
        assert place.turn
        self._expire_in_time(place, loop)
        try:
            entered = await place.turn
        except asyncio.CancelledError:
            if not place.turn.cancelled() and place.turn.result():
                # The place came together with the cancellation.
                self._count(place.organization, -1)
                self._call_next()
            else:
                self._leave_line(place)
            raise
        finally:
            if place.expiry:
                place.expiry.cancel()
        if not entered:
            raise self._overloaded(self._expected_wait(self._waiting + 1, loop.time()))

    def _queue(self, place: _Place, loop: asyncio.AbstractEventLoop) -> None:
        """Put the call at the end of its organization's line, or refuse it."""
        ring = self._ring(place.organization)
        line = ring.get(place.organization)
        length = len(line) if line else 0
        # Each other line has at most as many turns before it as its own, and all have no more than there are calls.
        others = len(self._below) + len(self._above) - (length > 0)
        turns = min(self._waiting, length + others * (length + 1)) + 1
        now = loop.time()
        wait = self._expected_wait(turns, now)
        too_late = now + wait + self._min_seconds > place.deadline
        if too_late or length >= self._room - self._waiting:
            raise self._overloaded(wait)
        if line is None:
            line = ring[place.organization] = OrderedDict()
        line[place] = None
        self._waiting += 1
        place.turn = loop.create_future()

    def _exit(self, place: _Place, now: float) -> None:
        """Give the place back, to the next in turn if a call waits."""
        self._mean_seconds += (now - place.since - self._mean_seconds) * WEIGHT
        self._moved = now
        self._count(place.organization, -1)
        if self._waiting:
            self._call_next()

    def _call_next(self) -> None:
        while ring := self._below or self._above:
            organization, line = next(iter(ring.items()))
            place = next(iter(line))
            self._leave_line(place)
            assert place.turn
            # A call that was cancelled or refused just now may not have left its line yet.
            if not place.turn.done():
                if line:
                    ring.move_to_end(organization)
                self._count(organization, 1)
                place.turn.set_result(True)
                return

    def _expire_in_time(self, place: _Place, loop: asyncio.AbstractEventLoop) -> None:
        """Refuse the call when its time is up; looks again then, because others may have joined it."""
        assert place.turn
        last = place.deadline - self._min_seconds
        if loop.time() < last < math.inf:
            place.expiry = loop.call_at(last, self._expire_in_time, place, loop)
        elif last < math.inf and not place.turn.done():
            self._leave_line(place)
            place.turn.set_result(False)

    def _leave_line(self, place: _Place) -> None:
        ring = self._ring(place.organization)
        line = ring.get(place.organization)
        if line is None or place not in line:
            return
        del line[place]
        self._waiting -= 1
        if not line:
            del ring[place.organization]

    def _count(self, organization: str, change: int) -> None:
        """Note that the organization holds a place more or less, and put its line where it belongs then."""
        self._in_flight += change
        held = self._held.get(organization, 0) + change
        if held:
            self._held[organization] = held
        else:
            del self._held[organization]
        if self._waiting:
            before, after = (self._below, self._above) if held >= self._share else (self._above, self._below)
            if line := before.pop(organization, None):
                after[organization] = line

    def _ring(self, organization: str) -> OrderedDict[str, _Line]:
        return self._below if self._held.get(organization, 0) < self._share else self._above

    def _expected_wait(self, turns: int, now: float) -> float:
        """Seconds until so many places will have been freed, by the mean of how long calls hold theirs."""
        # If nothing has moved for longer than that, calls have become slower than those that have ended.
        return turns * max(self._mean_seconds, now - self._moved) / self._places

    def _overloaded(self, wait: float) -> Refused:
        delay = min(max(wait, MIN_DELAY), MAX_DELAY) * random.uniform(1, 2)  # noqa: S311  # jitter is no secret
        return Refused(
            Reason.OVERLOADED,
            f"The service has no place for the call in time: try again in {delay:.1f} seconds.",
            retry_delay=delay,
        )


class _Place:
    """One call's place, in a line or in flight.

    Attributes:
        since: When it got its place, on the event loop's clock.
        turn: Done when its waiting is over: with ``True`` if it has got its place.
        expiry: What will end its waiting.
    """

    __slots__ = ("_admission", "_waiting", "expiry", "organization", "since", "turn")

    def __init__(self, admission: ConcurrencyLimiter, organization: str, waiting: HasDeadline | None) -> None:
        self._admission = admission
        self._waiting = waiting
        self.organization = organization
        self.since = 0.0
        self.turn: asyncio.Future[bool] | None = None
        self.expiry: asyncio.TimerHandle | None = None

    @property
    def deadline(self) -> float:
        deadline = self._waiting.deadline if self._waiting else None
        return math.inf if deadline is None else deadline

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        self.since = loop.time()
        if not self._admission._enter(self, self.since):
            await self._admission._wait(self, loop)
            self.since = loop.time()

    async def __aexit__(self, *_: object) -> None:
        self._admission._exit(self, asyncio.get_running_loop().time())
