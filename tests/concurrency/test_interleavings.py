"""Whatever comes, ends and is cancelled in whatever order, places are neither lost nor given twice."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from concurrency.virtual_time import VirtualTimeLoop
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agenta_ai_server.concurrency.limiter import ConcurrencyLimiter
from agenta_ai_server.domain.errors import Refused
from agenta_ai_server.domain.tool import Waiters

PLACES, ROOM = 8, 8


class Client:
    def __init__(self, limiter: ConcurrencyLimiter, organization: str, waiting: Waiters | None) -> None:
        self.organization = organization
        self.holds = False
        self.end = asyncio.Event()
        self.task = asyncio.create_task(self._call(limiter, waiting))

    async def _call(self, limiter: ConcurrencyLimiter, waiting: Waiters | None) -> None:
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
        self.limiter = ConcurrencyLimiter(PLACES, ROOM, min_seconds=1, typical_seconds=0.1)
        self.clients: list[Client] = []

    def teardown(self) -> None:
        for client in self.clients:
            client.task.cancel()
        self.settle()
        assert (self.limiter.in_flight, self.limiter.queued) == (0, 0)
        assert self.limiter._held == self.limiter._below == self.limiter._above == {}
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
            waiting = None if within is None else Waiters([self.loop.time() + within])
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
        held = {client.organization: 0 for client in holding}
        for client in holding:
            held[client.organization] += 1
        assert self.limiter._held == held

    @invariant()
    def bounds(self) -> None:
        lines: list[Any] = [*self.limiter._below.values(), *self.limiter._above.values()]
        assert 0 <= self.limiter.in_flight <= PLACES
        assert self.limiter.queued == sum(map(len, lines)) <= ROOM
        assert all(lines)
        assert sum(client.holds for client in self.clients) <= PLACES
        # A call waits only if every place is taken.
        assert not self.limiter.queued or self.limiter.in_flight == PLACES
        share = self.limiter._share
        assert all(self.limiter._held.get(name, 0) < share for name in self.limiter._below)
        assert all(self.limiter._held.get(name, 0) >= share for name in self.limiter._above)


TestInterleavings = Interleavings.TestCase
