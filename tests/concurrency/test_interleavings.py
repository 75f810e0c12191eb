"""Whatever comes, ends and is cancelled in whatever order, slots are neither lost nor given twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

from concurrency.virtual_time import VirtualTimeLoop
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agenta_ai_server.concurrency.limiter import ConcurrencyLimiter
from agenta_ai_server.domain.callers import Callers, Waiter
from agenta_ai_server.domain.errors import Refused

SLOTS, ROOM, SHARE = 8, 8, 0.25


class Client:
    def __init__(self, limiter: ConcurrencyLimiter, organization: str, waiting: Callers | None) -> None:
        self.organization = organization
        self.holds = False
        self.end = asyncio.Event()
        self.task = asyncio.create_task(self._call(limiter, waiting))

    async def _call(self, limiter: ConcurrencyLimiter, waiting: Callers | None) -> None:
        with suppress(Refused):
            async with limiter.slot(self.organization, waiting):
                self.holds = True
                try:
                    await self.end.wait()
                finally:
                    self.holds = False


class Interleavings(RuleBasedStateMachine):
    """Rules only ask for something; :meth:`tick` lets the loop do one round of it, so that they interleave."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=VirtualTimeLoop)
        self.loop = self.runner.get_loop()
        self.limiter = ConcurrencyLimiter(SLOTS, ROOM, SHARE, min_seconds=1, typical_seconds=0.1)
        self.clients: list[Client] = []

    def teardown(self) -> None:
        for client in self.clients:
            client.task.cancel()
        self.settle()
        assert (self.limiter.in_flight, self.limiter.queued) == (0, 0)
        self.runner.close()

    def settle(self, seconds: float = 0) -> None:
        async def rounds() -> None:
            await asyncio.sleep(seconds)
            for _ in range(10):
                await asyncio.sleep(0)

        self.loop.run_until_complete(rounds())
        self.clients = [client for client in self.clients if not client.task.done()]

    @rule(
        organization=st.sampled_from("abcd"),
        within=st.sampled_from([None, 0.0, 1.5, 3.0, 60.0]),
        count=st.integers(1, 4),
    )
    def come(self, organization: str, within: float | None, count: int) -> None:
        async def main() -> None:
            waiting = None if within is None else Callers([Waiter(self.loop.time() + within)])
            self.clients += [Client(self.limiter, organization, waiting) for _ in range(count)]

        self.loop.run_until_complete(main())

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.clients)).end.set()

    @precondition(lambda self: self.clients)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.clients)).task.cancel()

    @rule()
    def tick(self) -> None:
        self.loop.run_until_complete(asyncio.sleep(0))

    @rule(seconds=st.sampled_from([0.4, 2.0]))
    def later(self, seconds: float) -> None:
        self.settle(seconds)

    @rule()
    def quiet(self) -> None:
        self.settle()
        holding = [client for client in self.clients if client.holds]
        assert self.limiter.in_flight == len(holding)
        assert self.limiter.queued == len(self.clients) - len(holding)

    @invariant()
    def bounds(self) -> None:
        assert 0 <= self.limiter.in_flight <= SLOTS
        assert 0 <= self.limiter.queued <= ROOM
        assert sum(client.holds for client in self.clients) <= SLOTS
        # A call waits only if every slot is taken.
        assert not self.limiter.queued or self.limiter.is_full

    @rule()
    def share(self) -> None:
        """Give a freed slot to an organization below its share, if one waits."""
        self.settle()
        holding = Counter(client.organization for client in self.clients if client.holds)
        waiting = {client.organization for client in self.clients if not client.holds}
        below = {name for name in waiting if holding[name] < SLOTS * SHARE}
        ending = next((client for client in self.clients if client.holds), None)
        if ending is None or not below:
            return
        before = {client for client in self.clients if client.holds}
        ending.end.set()
        self.settle()
        came = [client for client in self.clients if client.holds and client not in before]
        # The organization of the call that ended may have come below its share by that.
        assert all(client.organization in below | {ending.organization} for client in came)


TestInterleavings = Interleavings.TestCase
