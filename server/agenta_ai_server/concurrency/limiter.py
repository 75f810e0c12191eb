"""Caps how many calls run at once, and queues the others fairly by organization."""

from __future__ import annotations

import asyncio
import math
import random
from collections import OrderedDict
from typing import TYPE_CHECKING, TypeAlias

from agenta_ai_server.domain.errors import Reason, Refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from agenta_ai_server.domain.callers import HasDeadline

# How much one call's duration moves the mean of all: about the last 60 calls count.
WEIGHT = 1 / 32
# Bounds of the retry delay of a refused call, in seconds, before the jitter.
MIN_DELAY, MAX_DELAY = 1.0, 30.0
# How often the position of a queued call is reported, if it has changed.
POSITION_SECONDS = 1.0

_Queue: TypeAlias = "OrderedDict[_Slot, None]"


class ConcurrencyLimiter:
    """A fixed number of slots for calls, and one queue of waiting calls for each organization.

    While a slot is free, the next call gets it: one organization alone may use all of them. When none is free, calls
    wait in the queue of their organization, and a freed slot goes to the next queue in turn whose organization holds
    less than its share, or if there is none, to the next queue in turn: no slot stays empty while a call waits. So an
    organization that has flooded the service shrinks to its share as its calls end, and none starves.

    A queue may hold at most as many calls as there are free places in all queues together. So one organization fills
    at most half of them, and there is always room for another.

    Every operation takes constant time. A limiter belongs to one event loop.

    Args:
        max_in_flight: Slots, at least 1.
        max_queued: How many calls may wait, in all queues together; 0 refuses every call that finds no free slot.
        share: The part of the slots that an organization may hold while others wait, above 0 and at most 1.
        min_seconds: Seconds that a call must have left when it gets its slot.
        typical_seconds: How long a call is assumed to hold its slot before the first ones have shown it.
    """

    def __init__(
        self,
        max_in_flight: int = 4000,
        max_queued: int = 2000,
        share: float = 0.25,
        *,
        min_seconds: float = 1.0,
        typical_seconds: float = 5.0,
    ) -> None:
        self._max_in_flight = max_in_flight
        self._max_queued = max_queued
        self._share = max(1, int(max_in_flight * share))
        self._min_seconds = min_seconds
        self._in_flight = 0
        self._queued = 0
        # Slots that queued calls have got so far.
        self._dequeued = 0
        self._held: dict[str, int] = {}
        # Queues in their turn: those of organizations below their share, and of the others.
        self._below: OrderedDict[str, _Queue] = OrderedDict()
        self._above: OrderedDict[str, _Queue] = OrderedDict()
        self._mean_seconds = typical_seconds
        # When a slot was last freed, or the last free one was taken.
        self._last_change = 0.0

    @property
    def is_full(self) -> bool:
        """Whether the next call would have to wait."""
        return self._in_flight >= self._max_in_flight

    @property
    def in_flight(self) -> int:
        """Calls that hold a slot."""
        return self._in_flight

    @property
    def queued(self) -> int:
        """Calls that wait for a slot."""
        return self._queued

    def slot(
        self,
        organization: str,
        waiting: HasDeadline | None = None,
        on_position: Callable[[int], None] | None = None,
    ) -> AbstractAsyncContextManager[None]:
        """Hold a slot for as long as the context lasts; entering it waits for one.

        Args:
            organization: Who shares a queue; callers without an organization share that of ``""``.
            waiting: Who waits for the call, until a deadline that may change meanwhile; ``None``: forever.
            on_position: Called when the call is put into a queue, and every second if its position has changed. 1 is
                next; an estimate, since the queues take turns.

        Raises:
            Refused: OVERLOADED, on entering: at once if the queue is full or the deadline is expected to pass before
                the call's turn; later if less than ``min_seconds`` remain before the deadline.
        """
        return _Slot(self, organization, waiting, on_position)

    def _enter(self, slot: _Slot, now: float) -> bool:
        """Take a free slot, if there is one."""
        if self.is_full:
            return False
        self._change_held(slot.organization, 1)
        if self.is_full:
            self._last_change = now
        return True

    async def _wait(self, slot: _Slot, loop: asyncio.AbstractEventLoop) -> None:
        """Wait in the organization's queue for a slot."""
        self._enqueue(slot, loop)
        self._expire_in_time(slot, loop)
        self._report_position(slot, loop)
        try:
            entered = await slot.turn
        except asyncio.CancelledError:
            if not slot.turn.cancelled() and slot.turn.result():
                # The slot came together with the cancellation.
                self._change_held(slot.organization, -1)
                self._call_next()
            else:
                self._leave_queue(slot)
            raise
        finally:
            if slot.expiry_timer:
                slot.expiry_timer.cancel()
            if slot.position_timer:
                slot.position_timer.cancel()
        if not entered:
            raise _overloaded(self._expected_wait(self._queued + 1, loop.time()))

    def _enqueue(self, slot: _Slot, loop: asyncio.AbstractEventLoop) -> None:
        """Put the call at the end of its organization's queue, or refuse it."""
        queues = self._queues_of(slot.organization)
        queue = queues.get(slot.organization)
        length = len(queue) if queue else 0
        # An upper bound: before this call's turn each other queue gets at most as many turns as this one, and all of
        # them get no more turns than there are queued calls.
        others = len(self._below) + len(self._above) - (length > 0)
        turns = min(self._queued, length + others * (length + 1)) + 1
        now = loop.time()
        wait = self._expected_wait(turns, now)
        too_late = now + wait + self._min_seconds > slot.deadline
        if too_late or length >= self._max_queued - self._queued:
            raise _overloaded(wait)
        if queue is None:
            queue = queues[slot.organization] = OrderedDict()
        queue[slot] = None
        self._queued += 1
        slot.last_turn = self._dequeued + turns
        slot.turn = loop.create_future()

    def _exit(self, slot: _Slot, now: float) -> None:
        """Give the slot back, to the next in turn if a call waits."""
        self._mean_seconds += (now - slot.since - self._mean_seconds) * WEIGHT
        self._last_change = now
        self._change_held(slot.organization, -1)
        if self._queued:
            self._call_next()

    def _call_next(self) -> None:
        while queues := self._below or self._above:
            organization, queue = next(iter(queues.items()))
            slot = next(iter(queue))
            self._leave_queue(slot)
            # A call that was cancelled or refused just now may not have left its queue yet.
            if not slot.turn.done():
                if queue:
                    queues.move_to_end(organization)
                self._change_held(organization, 1)
                self._dequeued += 1
                slot.turn.set_result(True)
                return

    def _expire_in_time(self, slot: _Slot, loop: asyncio.AbstractEventLoop) -> None:
        """Refuse the call when its time is up, unless the deadline is later by then: others may have joined it."""
        last = slot.deadline - self._min_seconds
        if loop.time() < last < math.inf:
            slot.expiry_timer = loop.call_at(last, self._expire_in_time, slot, loop)
        elif last < math.inf and not slot.turn.done():
            self._leave_queue(slot)
            slot.turn.set_result(False)

    def _report_position(self, slot: _Slot, loop: asyncio.AbstractEventLoop, reported: int = 0) -> None:
        """Report the call's position, now and whenever it has changed."""
        if slot.on_position:
            position = max(1, min(slot.last_turn - self._dequeued, self._queued))
            if position != reported:
                slot.on_position(position)
            slot.position_timer = loop.call_later(POSITION_SECONDS, self._report_position, slot, loop, position)

    def _leave_queue(self, slot: _Slot) -> None:
        queues = self._queues_of(slot.organization)
        queue = queues.get(slot.organization)
        if queue is None or slot not in queue:
            return
        del queue[slot]
        self._queued -= 1
        if not queue:
            del queues[slot.organization]

    def _change_held(self, organization: str, change: int) -> None:
        """Change how many slots the organization holds, and move its queue accordingly."""
        self._in_flight += change
        held = self._held.get(organization, 0) + change
        if held:
            self._held[organization] = held
        else:
            del self._held[organization]
        if self._queued:
            before, after = (self._below, self._above) if held >= self._share else (self._above, self._below)
            if queue := before.pop(organization, None):
                after[organization] = queue

    def _queues_of(self, organization: str) -> OrderedDict[str, _Queue]:
        return self._below if self._held.get(organization, 0) < self._share else self._above

    def _expected_wait(self, turns: int, now: float) -> float:
        """Return the seconds until ``turns`` slots will have been freed, by how long calls hold theirs on average."""
        # If no slot has been freed for longer than the average, the running calls are slower than those before them.
        return turns * max(self._mean_seconds, now - self._last_change) / self._max_in_flight


class _Slot:
    """One call's slot, in a queue or in flight.

    Attributes:
        since: When it got its slot, on the event loop's clock.
        turn: Set once it waits. Done when its waiting is over: with ``True`` if it has got its slot.
        last_turn: In the count of calls that have got a slot from a queue, the one that is expected to be its own at
            the latest.
        expiry_timer: Ends its waiting.
        position_timer: Reports its position.
    """

    __slots__ = (
        "_limiter", "_waiting", "expiry_timer", "last_turn", "on_position", "organization", "position_timer", "since",
        "turn",
    )  # fmt: skip

    def __init__(
        self,
        limiter: ConcurrencyLimiter,
        organization: str,
        waiting: HasDeadline | None,
        on_position: Callable[[int], None] | None,
    ) -> None:
        self._limiter = limiter
        self._waiting = waiting
        self.organization = organization
        self.on_position = on_position
        self.last_turn = 0
        self.since = 0.0
        self.turn: asyncio.Future[bool]
        self.expiry_timer: asyncio.TimerHandle | None = None
        self.position_timer: asyncio.TimerHandle | None = None

    @property
    def deadline(self) -> float:
        return self._waiting.deadline if self._waiting else math.inf

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        self.since = loop.time()
        if not self._limiter._enter(self, self.since):
            await self._limiter._wait(self, loop)
            self.since = loop.time()

    async def __aexit__(self, *_: object) -> None:
        self._limiter._exit(self, asyncio.get_running_loop().time())


def _overloaded(wait: float) -> Refused:
    delay = min(max(wait, MIN_DELAY), MAX_DELAY) * random.uniform(1, 2)  # noqa: S311  # jitter is no secret
    return Refused(
        Reason.OVERLOADED,
        f"The service is at capacity. Try again in {delay:.1f} seconds.",
        retry_delay=delay,
    )
