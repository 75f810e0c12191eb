"""All ledgers follow the same rules: each step of a history gets the same answer from each of them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from idempotency.conftest import RedisBacking

from agenta_ai_server.idempotency.ledger import (
    ClaimAnswer,
    Claimed,
    Ending,
    EndKind,
    Finished,
    Following,
    Hold,
    Lost,
    Reused,
    Run,
)
from agenta_ai_server.idempotency.memory import MemoryLedger
from agenta_ai_server.idempotency.sqlite import SqliteLedger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis_server import RedisServer

    from agenta_ai_server.idempotency.ledger import Ledger

# Far apart, because Redis also counts what the test itself takes.
TTL, LEASE = 60_000.0, 1000.0
A, B, C = (Run("id", b"f", token) for token in "abc")
OTHER = Run("id", b"g", "o")
KEPT, PASSED_ON = Ending(EndKind.KEPT, b"result"), Ending(EndKind.PASSED_ON, b"failure")
RELEASED, ABANDONED = Ending(EndKind.RELEASED), Ending(EndKind.ABANDONED)


class World(Protocol):
    """A ledger, and its time."""

    ledger: Ledger
    # Whether a run can outlive its lease here.
    has_leases: bool

    async def pass_seconds(self, seconds: float) -> None: ...


class ByClock:
    """Memory or a file, with a clock that stands still until it is moved."""

    def __init__(self, ttl: float, path: Path | None) -> None:
        self.now = 1_000_000.0
        self.has_leases = path is not None
        clock = lambda: self.now  # noqa: E731
        self.ledger: Ledger = (
            SqliteLedger(path, ttl, lease=LEASE, clock=clock) if path else MemoryLedger(ttl, clock=clock)
        )

    async def pass_seconds(self, seconds: float) -> None:
        self.now += seconds


class ByRedis:
    """Redis, whose keys are made to expire earlier instead."""

    has_leases = True

    def __init__(self, ledger: Ledger, server: RedisServer) -> None:
        self.ledger = ledger
        self._server = server

    async def pass_seconds(self, seconds: float) -> None:
        for key in self._server.do("KEYS", "*"):
            left = self._server.do("PTTL", key)
            self._server.do("PEXPIRE", key, left - round(seconds * 1000))


class Worlds(Protocol):
    async def __call__(self, ttl: float = TTL) -> World: ...


@pytest.fixture(params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.needs("redis-server"))])
async def worlds(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Worlds]:
    server: Any = request.getfixturevalue("redis") if request.param == "redis" else None
    async with AsyncExitStack() as stack:

        async def make(ttl: float = TTL) -> World:
            if server:
                ledger = await stack.enter_async_context(RedisBacking(server).ledger(ttl, LEASE))
                return ByRedis(ledger, server)
            world = ByClock(ttl, tmp_path / "ids.db" if request.param == "sqlite" else None)
            await world.ledger.open()
            stack.push_async_callback(world.ledger.aclose)
            return world

        yield make


@pytest.fixture
async def world(worlds: Worlds) -> World:
    return await worlds()


async def begin(ledger: Ledger, run: Run) -> bool:
    [is_held] = await ledger.hold([Hold(run, begun=True)])
    return is_held


async def renew(ledger: Ledger, run: Run) -> bool:
    [is_held] = await ledger.hold([Hold(run, begun=False)])
    return is_held


async def test_an_id_is_claimed_once_and_then_followed(world: World) -> None:
    assert await world.ledger.claim(A) == Claimed()
    assert await world.ledger.claim(A) == Claimed()
    assert await world.ledger.followed("id") == 0
    assert await world.ledger.claim(B) == Following("a")
    assert 0 < await world.ledger.followed("id") <= 2
    assert await world.ledger.claim(Run("another", b"f", "b")) == Claimed()


async def test_an_outcome_is_kept_for_its_time(world: World) -> None:
    await world.ledger.claim(A)
    assert await begin(world.ledger, A)
    await world.ledger.end(A, KEPT)
    assert await world.ledger.claim(B) == Finished(b"result")
    assert await world.ledger.claim(B, waited="a") == Finished(b"result")
    assert await world.ledger.claim(B, rerun=True) == Finished(b"result")
    await world.pass_seconds(TTL - 100)
    assert await world.ledger.claim(B) == Finished(b"result")
    await world.pass_seconds(100.1)
    assert await world.ledger.claim(B) == Claimed()


async def test_outcomes_of_any_bytes(world: World) -> None:
    data = bytes(range(256)) * 4000
    await world.ledger.claim(A)
    await world.ledger.end(A, Ending(EndKind.KEPT, data))
    assert await world.ledger.claim(B) == Finished(data)


@pytest.mark.parametrize("state", ["claimed", "begun", "finished", "lost"])
async def test_an_id_stands_for_one_thing(state: str, world: World) -> None:
    await world.ledger.claim(A)
    if state != "claimed":
        assert await begin(world.ledger, A)
    if state in ("finished", "lost"):
        await world.ledger.end(A, KEPT if state == "finished" else ABANDONED)
    assert await world.ledger.claim(OTHER) == Reused()
    assert await world.ledger.claim(OTHER, rerun=True) == Reused()


async def test_a_run_that_dies_before_it_began_leaves_the_id_free(world: World) -> None:
    if not world.has_leases:
        return
    await world.ledger.claim(A)
    await world.pass_seconds(LEASE - 100)
    assert await world.ledger.claim(B) == Following("a")
    await world.pass_seconds(100.1)
    # Also for something else: nothing is known of it any more.
    assert await world.ledger.claim(OTHER) == Claimed()
    assert not await begin(world.ledger, A)
    assert await begin(world.ledger, OTHER)


async def test_a_run_that_dies_after_it_began_is_lost(world: World) -> None:
    if not world.has_leases:
        return
    await world.ledger.claim(A)
    assert await begin(world.ledger, A)
    assert await world.ledger.claim(B) == Following("a")
    await world.pass_seconds(LEASE + 0.1)
    assert await world.ledger.claim(B) == Lost()
    assert await world.ledger.claim(B) == Lost()
    await world.pass_seconds(TTL - 100)
    assert await world.ledger.claim(B) == Lost()
    await world.pass_seconds(100)
    assert await world.ledger.claim(B) == Claimed()


@pytest.mark.parametrize("began", [False, True], ids=["claimed", "begun"])
async def test_a_clock_that_is_set_back_prolongs_no_lease_of_a_dead_run(began: bool, world: World) -> None:
    if not world.has_leases:
        return
    await world.ledger.claim(A)
    if began:
        assert await begin(world.ledger, A)
    await world.pass_seconds(-3600)
    assert await world.ledger.claim(B) == Following("a")
    await world.pass_seconds(LEASE - 1)
    assert await world.ledger.claim(B) == Following("a")
    await world.pass_seconds(1.1)
    assert await world.ledger.claim(B) == (Lost() if began else Claimed())


async def test_a_lease_is_renewed_before_and_after_the_run_began(world: World) -> None:
    await world.ledger.claim(A)
    for step in (renew, begin, renew, begin):
        await world.pass_seconds(LEASE - 100)
        assert await step(world.ledger, A)
        assert await world.ledger.claim(B) == Following("a")
    await world.ledger.end(A, KEPT)
    assert await world.ledger.claim(B) == Finished(b"result")


async def test_a_frozen_run_that_comes_back_still_counts(world: World) -> None:
    if not world.has_leases:
        return
    await world.ledger.claim(A)
    assert await begin(world.ledger, A)
    await world.pass_seconds(LEASE + 0.1)
    assert await world.ledger.claim(B) == Lost()
    assert await renew(world.ledger, A)
    assert await world.ledger.claim(B) == Following("a")
    await world.pass_seconds(LEASE + 0.1)
    await world.ledger.end(A, KEPT)
    assert await world.ledger.claim(B) == Finished(b"result")


async def test_a_run_whose_lease_ran_out_goes_on_if_nobody_claimed_the_id(world: World) -> None:
    await world.ledger.claim(A)
    await world.pass_seconds(LEASE + 0.1)
    assert await begin(world.ledger, A)
    assert await world.ledger.claim(B) == Following("a")


async def test_what_was_only_claimed_is_released_or_abandoned_alike(world: World) -> None:
    for ending in (RELEASED, ABANDONED):
        assert await world.ledger.claim(A) == Claimed()
        await world.ledger.end(A, ending)
    assert await world.ledger.claim(B) == Claimed()


async def test_what_has_begun_is_released_if_nothing_was_billed_and_lost_if_abandoned(world: World) -> None:
    await world.ledger.claim(A)
    assert await begin(world.ledger, A)
    await world.ledger.end(A, RELEASED)
    assert await world.ledger.claim(B) == Claimed()
    assert await begin(world.ledger, B)
    await world.ledger.end(B, ABANDONED)
    assert await world.ledger.claim(C) == Lost()


async def test_an_outcome_that_isnt_kept_reaches_only_those_who_waited(world: World) -> None:
    await world.ledger.claim(A)
    assert await world.ledger.claim(B) == Following("a")
    await begin(world.ledger, A)
    await world.ledger.end(A, PASSED_ON)
    assert await world.ledger.claim(C) == Claimed()
    assert await world.ledger.claim(B, waited="a") == Finished(b"failure")
    await world.ledger.end(C, RELEASED)
    assert await world.ledger.claim(B, waited="a") == Finished(b"failure")
    await world.pass_seconds(10.1)
    assert await world.ledger.claim(B, waited="a") == Claimed()


async def test_an_outcome_that_isnt_stored_makes_a_repeat_lost(world: World) -> None:
    await world.ledger.claim(A)
    await begin(world.ledger, A)
    await world.ledger.end(A, Ending(EndKind.KEPT))
    assert await world.ledger.claim(B) == Lost()
    # It is stored later, for example when there is room again, and then it stays.
    await world.ledger.end(A, KEPT)
    await world.ledger.end(A, Ending(EndKind.KEPT))
    await world.ledger.end(A, Ending(EndKind.KEPT, b"another"))
    assert await world.ledger.claim(B) == Finished(b"result")


async def test_a_lost_id_runs_again_only_for_who_asks_for_it(world: World) -> None:
    await world.ledger.claim(A)
    await begin(world.ledger, A)
    await world.ledger.end(A, ABANDONED)
    assert await world.ledger.claim(B) == Lost()
    assert await world.ledger.claim(B, rerun=True) == Claimed()
    assert await world.ledger.claim(C) == Following("b")
    assert await world.ledger.claim(C, rerun=True) == Following("b")
    assert await begin(world.ledger, B)
    await world.ledger.end(B, KEPT)
    assert await world.ledger.claim(C) == Finished(b"result")


@pytest.mark.parametrize("ending", [RELEASED, ABANDONED, PASSED_ON, None], ids=str)
async def test_an_id_that_was_to_run_again_is_still_lost_if_that_came_to_nothing(
    ending: Ending | None, world: World
) -> None:
    if ending is None and not world.has_leases:
        return
    await world.ledger.claim(A)
    await begin(world.ledger, A)
    await world.ledger.end(A, ABANDONED)
    assert await world.ledger.claim(B, rerun=True) == Claimed()
    if ending:
        await world.ledger.end(B, ending)
    else:
        await world.pass_seconds(LEASE + 0.1)
    assert await world.ledger.claim(C) == Lost()


async def test_the_outcome_of_a_frozen_run_spares_the_second_one(world: World) -> None:
    if not world.has_leases:
        return
    await world.ledger.claim(A)
    await begin(world.ledger, A)
    await world.pass_seconds(LEASE + 0.1)
    assert await world.ledger.claim(B, rerun=True) == Claimed()
    await world.ledger.end(A, KEPT)
    assert not await begin(world.ledger, B)
    assert await world.ledger.claim(B, rerun=True) == Finished(b"result")


async def test_what_comes_after_the_end_changes_nothing(world: World) -> None:
    await world.ledger.claim(A)
    await begin(world.ledger, A)
    await world.ledger.end(A, KEPT)
    assert not await renew(world.ledger, A)
    assert not await begin(world.ledger, A)
    await world.ledger.end(A, RELEASED)
    await world.ledger.end(B, ABANDONED)
    await world.ledger.end(OTHER, Ending(EndKind.KEPT, b"other"))
    assert await world.ledger.claim(B) == Finished(b"result")


async def test_an_end_that_the_ledger_has_no_beginning_of_is_recorded(world: World) -> None:
    """After Redis has lost its data, for example."""
    await world.ledger.end(A, KEPT)
    assert await world.ledger.claim(B) == Finished(b"result")


async def test_nothing_is_remembered_by_choice(worlds: Worlds) -> None:
    world = await worlds(ttl=0)
    for number, kind in enumerate((EndKind.RELEASED, EndKind.ABANDONED, EndKind.KEPT)):
        run = Run("id", b"f", str(number))
        assert await world.ledger.claim(run) == Claimed()
        assert await begin(world.ledger, run)
        assert await world.ledger.claim(A) == Following(run.token)
        await world.ledger.end(run, Ending(kind, b"result" if kind is EndKind.KEPT else None))
    assert await world.ledger.claim(B) == Claimed()
    assert await world.ledger.claim(C, waited="2") == Finished(b"result")


async def test_many_leases_at_once(world: World) -> None:
    runs = [Run(str(number), b"f", str(number)) for number in range(1000)]
    answers: list[ClaimAnswer] = [await world.ledger.claim(run) for run in runs]
    assert answers == [Claimed()] * 1000
    await world.ledger.end(runs[7], KEPT)
    held = await world.ledger.hold([Hold(run, begun=False) for run in runs])
    assert held == [number != 7 for number in range(1000)]
