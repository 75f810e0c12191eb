"""Processes are killed and frozen at random moments: no id is billed twice, and each caller learns how it ended."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from conftest import SLOW
from redis_server import RedisServer
from replicas.callers import Load, by_program, by_python
from replicas.model import LEASE, SHORT_LEASES
from replicas.replica import Replicas, replicas

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from replicas.callers import Callers
    from replicas.model import Model
    from replicas.replica import Replica

pytestmark = [pytest.mark.timeout(1800 if SLOW else 180), pytest.mark.usefixtures("own_connections")]

# The clients are Python's alone where there is no time to build the others.
LANGUAGES = {"go": "go", "typescript": "npm", "java": "mvn", "rust": "cargo"} if SLOW else {}
# A program for each caller takes more of the machine than a client in this process.
PYTHON_IDS, PYTHON_CALLERS = (10_000, 64) if SLOW else (150, 24)
IDS, CALLERS = 1_000, 12

KINDS = ("kill", "kill", "freeze")
# Calls that end between two troubles, however slow the machine is.
ENDED_CALLS = 10
# Ends the growth of every file, as a full disk does.
SMALL_FILES = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))"


class Trouble:
    """Kills or freezes one of the processes after the other.

    Args:
        made: Makes new ones in place of those killed.
        all_replicas: Those that run.
        load: The calls meanwhile.
        kinds: What is done to them, in turn.

    Attributes:
        killed: How often.
        frozen: How often, each time for longer than a lease.
    """

    def __init__(self, made: Replicas, all_replicas: list[Replica], load: Load, kinds: Sequence[str] = KINDS) -> None:
        self.killed = 0
        self.frozen = 0
        self._made = made
        self._replicas = all_replicas
        self._load = load
        self._kinds = kinds

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        troubling = asyncio.create_task(self._make())
        yield
        troubling.cancel()
        with suppress(asyncio.CancelledError):
            await troubling

    async def _make(self) -> None:
        for kind in itertools.cycle(self._kinds):
            await self._pause()
            place = random.randrange(len(self._replicas))
            if kind == "kill":
                await self._kill(place)
            else:
                await self._freeze(self._replicas[place])

    async def _pause(self) -> None:
        enough = self._load.outcomes.total() + ENDED_CALLS
        await asyncio.sleep(random.uniform(0.2, 1.2))
        while self._load.outcomes.total() < enough:  # noqa: ASYNC110  # callers say nothing to each other
            await asyncio.sleep(0.05)

    async def _kill(self, place: int) -> None:
        victim = self._replicas[place]
        victim.signal(signal.SIGKILL)
        await victim.ended()
        self.killed += 1
        self._replicas[place] = await self._made.make(AGENTA_AI_GRPC_LISTEN=victim.address)

    async def _freeze(self, victim: Replica) -> None:
        victim.signal(signal.SIGSTOP)
        self.frozen += 1
        await asyncio.sleep(1.5 * LEASE)
        victim.signal(signal.SIGCONT)


@pytest.fixture(
    params=["python", *(pytest.param(each, marks=pytest.mark.needs(LANGUAGES[each])) for each in LANGUAGES)]
)
def language(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def callers(language: str, tmp_path_factory: pytest.TempPathFactory) -> Callers:
    # The parent is the same for all workers of one run.
    return by_python if language == "python" else by_program(language, tmp_path_factory.getbasetemp().parent)


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.needs("redis-server"))])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """The settings of what remembers."""
    if request.param == "sqlite":
        yield {"AGENTA_AI_GRPC_IDEMPOTENCY_FILE": str(tmp_path / "ids.db")}
        return
    server = RedisServer(tmp_path, "--appendonly", "yes")
    await asyncio.to_thread(server.start)
    yield {"AGENTA_AI_GRPC_REDIS_URL": server.url}
    server.kill()


async def test_no_id_is_billed_twice_while_processes_die_and_freeze(
    model: Model, store: dict[str, str], language: str, callers: Callers
) -> None:
    ids, at_once = (PYTHON_IDS, PYTHON_CALLERS) if language == "python" else (IDS, CALLERS)
    async with replicas(model.standin, prelude=SHORT_LEASES, **store) as made:
        both = [await made.make() for _ in range(2)]
        load = Load(callers, [each.address for each in both], ids)
        trouble = Trouble(made, both, load)
        async with trouble.going_on():
            await load.run(at_once)
    print(told(model, load, trouble))  # noqa: T201  # for who runs it: pytest -rP shows it
    assert_billed_once(model, load, ids)
    # Most succeeded, and processes died and froze, or nothing would have been shown.
    assert load.outcomes["result"] > ids / 2
    assert trouble.killed
    assert trouble.frozen or not SLOW


async def test_no_id_is_billed_twice_by_a_process_that_freezes_and_only_remembers(
    model: Model, language: str, callers: Callers
) -> None:
    async with replicas(model.standin) as made:
        only = [await made.make()]
        load = Load(callers, [only[0].address], 100, timeout=1.5 * LEASE - 0.25)
        trouble = Trouble(made, only, load, kinds=["freeze"])
        async with trouble.going_on():
            await load.run(CALLERS)
    assert_billed_once(model, load, 100)
    assert load.outcomes["result"] > 90


async def test_no_id_is_billed_twice_while_the_disk_is_full(model: Model, callers: Callers, tmp_path: Path) -> None:
    file = {"AGENTA_AI_GRPC_IDEMPOTENCY_FILE": str(tmp_path / "ids.db")}
    async with replicas(model.standin, prelude=SMALL_FILES, **file) as made:
        both = await made.each_on_its_port(2)
        load = Load(callers, [each.address for each in both], 100, timeout=3, patience=0)
        await load.run(CALLERS)
    assert max(model.billed.values()) == 1
    assert set(load.outcomes) <= {"result", "OUTCOME_UNKNOWN", "unfinished"}, load.outcomes
    assert load.outcomes["result"] > 0
    assert load.outcomes["unfinished"] > 0


def assert_billed_once(model: Model, load: Load, ids: int) -> None:
    assert max(model.billed.values()) == 1
    assert load.outcomes.total() == ids
    # A connection to Agenta may break as its process freezes. The caller is told that the call may have been billed.
    assert set(load.outcomes) <= {"result", "OUTCOME_UNKNOWN", "UPSTREAM_BROKEN"}, load.outcomes
    assert load.outcomes["UPSTREAM_BROKEN"] <= ids / 20


def told(model: Model, load: Load, trouble: Trouble) -> str:
    """Say what happened."""
    return (
        f"{load.outcomes.total()} ids, {load.repeats} repeats, billed {len(model.billed)} once, "
        f"{sum(count > 1 for count in model.billed.values())} more than once; {dict(load.outcomes)}; "
        f"{trouble.killed} kills, {trouble.frozen} freezes"
    )
