"""The ledger in a file: damaged, full, taken, killed, and never in the way of the event loop."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import sqlite3
import stat
import sys
import threading
import time
from contextlib import asynccontextmanager, closing, contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import pytest
from idempotency.conftest import until

from agenta_ai_server.idempotency import sqlite
from agenta_ai_server.idempotency.ledger import (
    Claimed,
    Ending,
    EndKind,
    Finished,
    Hold,
    LedgerFailed,
    Lost,
    Run,
)
from agenta_ai_server.idempotency.sqlite import SqliteLedger, file_fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator
    from pathlib import Path

GONE = "the idempotency file was moved away, deleted or replaced, and its ids aren't known any more"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that others write to may be slow."""
    monkeypatch.setattr(sqlite, "TIMEOUT_SECONDS", 20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ids.db"


@asynccontextmanager
async def ledger_on(path: Path, **options: Any) -> AsyncIterator[SqliteLedger]:
    ledger = SqliteLedger(path, **options)
    try:
        await ledger.open()
        yield ledger
    finally:
        await ledger.aclose()


def a_run(key: str, token: str = "token") -> Run:  # a name of a run
    return Run(key, b"f", token)


async def finish(ledger: SqliteLedger, key: str, data: bytes | None) -> None:
    assert await ledger.claim(a_run(key)) == Claimed()
    assert await ledger.hold([Hold(a_run(key), begun=True)]) == [True]
    await ledger.end(a_run(key), Ending(EndKind.KEPT, data))


async def test_only_its_owner_can_read_it(path: Path) -> None:
    async with ledger_on(path) as ledger:
        await finish(ledger, "id", b"result")
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


async def test_it_outlives_the_process_and_any_number_of_processes_use_it(path: Path) -> None:
    async with ledger_on(path) as one, ledger_on(path) as two:
        await finish(one, "id", b"result")
        assert await two.claim(a_run("id", "other")) == Finished(b"result")
    async with ledger_on(path) as again:
        assert await again.claim(a_run("id", "third")) == Finished(b"result")


@pytest.mark.parametrize("durable", [False, True])
async def test_a_power_cut_is_survived_by_choice(durable: bool, path: Path) -> None:
    """As far as that shows without cutting the power: whether SQLite is told to wait for the disk."""
    statements: list[str] = []
    connect = sqlite3.connect

    def traced(*args: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*args, **options)
        connection.set_trace_callback(statements.append)
        return connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", traced)
        async with ledger_on(path, durable=durable):
            pass
    assert f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}" in statements


def not_sqlite(path: Path) -> Path:
    path.write_bytes(b"not a database " * 100)
    return path


def something_else(path: Path) -> Path:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE theirs (x)")
    return path


def a_folder(path: Path) -> Path:
    path.mkdir()
    return path


def no_folder(path: Path) -> Path:
    return path / "none" / "ids.db"


def content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


FAULTS: dict[Callable[[Path], Path], str] = {
    not_sqlite: "isn't an SQLite database",
    something_else: "is an SQLite database of another program",
    a_folder: "is a folder",
    no_folder: "is in a folder that doesn't exist",
}


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
async def test_a_file_that_cant_be_used_says_why_and_stays_as_it_is(plant: Callable[[Path], Path], path: Path) -> None:
    planted = plant(path)
    before = content(planted)
    with pytest.raises(LedgerFailed) as raised:
        async with ledger_on(planted):
            pass
    assert file_fault(raised.value.why).startswith(FAULTS[plant])
    assert content(planted) == before


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.EROFS, "is on a read-only file system"), (errno.ENOSPC, "can't be created: the disk is")],
)
async def test_a_file_that_the_system_refuses(
    number: int, said: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(LedgerFailed) as raised:
            async with ledger_on(path):
                pass
    assert file_fault(raised.value.why).startswith(said)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8192:] = os.urandom(len(content) - 8192)
    path.write_bytes(content)


def remove(path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()


async def claim_all(ledger: SqliteLedger, keys: Iterable[str]) -> None:
    for key in keys:
        await ledger.claim(a_run(key, "other"))


async def test_a_damaged_file_fails_and_one_in_its_place_is_used_at_once(path: Path) -> None:
    async with ledger_on(path) as ledger:
        for number in range(200):
            await finish(ledger, str(number), bytes(500))
    damage(path)
    async with ledger_on(path) as ledger:
        with pytest.raises(LedgerFailed) as raised:
            await claim_all(ledger, map(str, range(200)))
        assert "is damaged" in file_fault(raised.value.why)
        remove(path)
        assert await ledger.claim(a_run("new")) == Claimed()


async def test_an_entry_that_cant_be_read_fails_alone_until_the_file_is_replaced(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with ledger_on(path) as ledger:
        await finish(ledger, "spoilt", b"result")
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("UPDATE ids SET state = 9")
        claims = [ledger.claim(a_run(key, "other")) for key in ("one", "spoilt", "two")]
        answers = await asyncio.gather(*claims, return_exceptions=True)
        assert [repr(answer) for answer in answers] == ["Claimed()", "LedgerFailed('ValueError')", "Claimed()"]
        with pytest.raises(LedgerFailed):
            await ledger.claim(a_run("spoilt", "other"))
        assert caplog.messages == ["a step on the idempotency file failed: ValueError"] * 2
        remove(path)
        assert await ledger.claim(a_run("spoilt", "other")) == Claimed()


@pytest.mark.parametrize("moved", [["ids.db"], ["ids.db", "ids.db-wal", "ids.db-shm"]], ids=len)
@pytest.mark.parametrize("keeps", [False, True], ids=["deleted", "kept"])
async def test_processes_leave_a_file_that_is_moved_away(
    moved: list[str], keeps: bool, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    away = path.parent / "away"
    away.mkdir()
    async with ledger_on(path) as one, ledger_on(path) as two:
        await finish(one, "old", b"result")
        await finish(two, "other", b"result")
        for name in moved:
            (path.parent / name).rename(away / name)
            if not keeps:
                (away / name).unlink()
        await finish(one, "new", b"result")
        assert await two.claim(a_run("new", "other")) == Finished(b"result")
        await finish(two, "newer", b"result")
        assert await one.claim(a_run("newer", "other")) == Finished(b"result")
        # Each process says so once.
        assert caplog.messages == [GONE] * 2
    async with ledger_on(path) as again:
        assert await again.claim(a_run("newer", "other")) == Finished(b"result")
        assert await again.claim(a_run("old", "other")) == Claimed()
    if keeps and len(moved) > 1:
        async with ledger_on(away / path.name) as old:
            assert await old.claim(a_run("old", "other")) == Finished(b"result")


async def test_a_file_that_takes_its_place_is_not_mixed_with_it(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As when a backup is put back."""
    backup = path.parent / "backup"
    async with ledger_on(path) as ledger:
        await finish(ledger, "old", b"result")
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as copy:
            source.backup(copy)
        for number in range(30):
            await finish(ledger, f"later {number}", b"x" * 1000)
        backup.replace(path)
        await finish(ledger, "new", b"result")
        for name in ("old", "new"):
            assert await ledger.claim(a_run(name, "other")) == Finished(b"result")
        assert await ledger.claim(a_run("later 0", "other")) == Claimed()
    assert caplog.messages == [GONE]


HOLDING = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1])
print(held.execute("SELECT count(*) FROM ids").fetchone(), flush=True)
sys.stdin.read()
"""


def remove_database(path: Path) -> None:
    path.unlink()


async def test_what_is_left_of_a_file_that_another_process_still_uses_does_no_harm(path: Path) -> None:
    async with ledger_on(path) as ledger:
        for number in range(30):
            await finish(ledger, f"old {number}", bytes(3000))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", HOLDING, str(path)), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout
        assert await process.stdout.readline() == b"(30,)\n"
        remove_database(path)
        await finish(ledger, "new", b"result")
        await process.communicate(b"")
    async with ledger_on(path) as again:
        assert await again.claim(a_run("new", "other")) == Finished(b"result")


async def test_a_full_disk_keeps_what_was_begun_and_goes_on_when_there_is_room(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a bound on the pages, which SQLite reports as it does a full disk."""
    async with ledger_on(path) as ledger:
        before = a_run("before")
        await ledger.claim(before)
        await ledger.hold([Hold(before, begun=True)])
    with closing(sqlite3.connect(path)) as other:
        [pages] = other.execute("PRAGMA page_count").fetchone()
    with monkeypatch.context() as patch:
        patch.setattr(sqlite, "SPARE_PAGES", pages)
        async with ledger_on(path, max_bytes=0, lease=1000) as full:
            # The end is recorded, although there is no room for the outcome.
            with pytest.raises(LedgerFailed) as raised:
                await full.end(before, Ending(EndKind.KEPT, bytes(100_000)))
            assert raised.value.why == "SQLITE_FULL"
            assert await full.claim(a_run("before", "other")) == Lost()
            with pytest.raises(LedgerFailed) as raised:
                await claim_all(full, (f"new {number}" for number in range(1000)))
            assert raised.value.why in ("SQLITE_FULL", "TooManyIds")
    async with ledger_on(path) as ledger:
        await ledger.end(before, Ending(EndKind.KEPT, bytes(100_000)))
        assert await ledger.claim(a_run("before", "other")) == Finished(bytes(100_000))


async def test_old_outcomes_make_room_and_their_ids_stay_known(path: Path) -> None:
    async with ledger_on(path, max_bytes=2 << 20) as ledger:
        for number in range(100):
            await finish(ledger, str(number), bytes(100_000))
        answers = [await ledger.claim(a_run(str(number), "other")) for number in range(100)]
    assert answers[0] == Lost()
    assert answers[-1] == Finished(bytes(100_000))
    assert len(content(path)) < 12 << 20


async def test_what_has_expired_leaves_the_file(path: Path) -> None:
    now = 1000.0
    async with ledger_on(path, clock=lambda: now, ttl=10) as ledger:
        for number in range(50):
            await finish(ledger, f"old {number}", b"result")
        now += 20
        for number in range(50):
            await finish(ledger, f"new {number}", b"result")
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT count(*) FROM ids WHERE key LIKE 'old%'").fetchone() == (0,)


def on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in path.parent.iterdir())


async def test_results_leave_the_disk_while_no_call_comes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "TIDY_SECONDS", 0.01)
    now = 1000.0

    async def is_gone() -> bool:
        return b"secret" not in on_disk(path)

    async with ledger_on(path, clock=lambda: now, ttl=10) as ledger:
        for number in range(20):
            await finish(ledger, str(number), b"secret" * 10 ** (number % 5))
        assert not await is_gone()
        now += 20
        await until(is_gone)


async def test_all_that_has_expired_leaves_the_disk_after_the_start(path: Path) -> None:
    async with ledger_on(path):
        pass
    with closing(sqlite3.connect(path)) as other, other:
        rows = [(str(number), b"f", "token", 2, 1, 0, 1, 0, b"result") for number in range(2 * sqlite.SWEEP_ROWS + 1)]
        other.executemany(sqlite.PUT, rows)

    async def is_empty() -> bool:
        with closing(sqlite3.connect(path)) as other:
            return bool(other.execute("SELECT count(*) FROM ids").fetchone() == (0,))

    async with ledger_on(path):
        await until(is_empty)


async def test_a_reader_delays_neither_calls_nor_the_tidying_after_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "TIDY_SECONDS", 0.0)
    monkeypatch.setattr(sqlite, "TIMEOUT_SECONDS", 3)

    async def is_emptied() -> bool:
        return not path.with_name("ids.db-wal").stat().st_size

    async with ledger_on(path) as ledger:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN")
            other.execute("SELECT count(*) FROM ids").fetchone()
            for number in range(20):
                await finish(ledger, str(number), b"result")
            assert not await is_emptied()
        await until(is_emptied)


async def test_the_event_loop_never_waits_for_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "TIMEOUT_SECONDS", 5)
    async with ledger_on(path) as ledger:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            claims = [asyncio.create_task(ledger.claim(a_run(str(number)))) for number in range(500)]
            slowest, ends = 0.0, time.monotonic() + 2
            while time.monotonic() < ends:
                began = time.monotonic()
                await asyncio.sleep(0)
                slowest = max(slowest, time.monotonic() - began)
            assert not any(claim.done() for claim in claims)
            other.execute("ROLLBACK")
        assert await asyncio.gather(*claims) == [Claimed()] * 500
    # The lock was held for 2 s.
    assert slowest < 1.5


async def test_a_claim_whose_caller_has_left_is_not_made(path: Path) -> None:
    async with ledger_on(path) as ledger:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            held = asyncio.create_task(ledger.claim(a_run("held")))
            await asyncio.sleep(0.1)
            left = asyncio.create_task(ledger.claim(a_run("left")))
            await asyncio.sleep(0.1)
            left.cancel()
            await asyncio.wait([left])
            other.execute("ROLLBACK")
        await held
        assert await ledger.claim(a_run("left", "other")) == Claimed()


class HangingDisk:
    """Holds every step in the thread while it hangs."""

    def __init__(self) -> None:
        self._works = threading.Event()
        self._works.set()

    def clock(self) -> float:
        self._works.wait()
        return time.time()

    @contextmanager
    def hangs(self) -> Iterator[None]:
        self._works.clear()
        try:
            yield
        finally:
            self._works.set()


class Key(str):
    """An id that can be watched."""


async def test_while_the_disk_hangs_only_calls_that_wait_are_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = HangingDisk()
    kept: WeakSet[Key] = WeakSet()

    async def claim_in_vain(ledger: SqliteLedger, key: Key) -> None:
        kept.add(key)
        with pytest.raises(LedgerFailed, match="TimeoutError"):
            await ledger.claim(a_run(key))

    async with ledger_on(path, clock=disk.clock) as ledger:
        with monkeypatch.context() as patch, disk.hangs():
            patch.setattr(sqlite, "TIMEOUT_SECONDS", 0.1)
            for turn in range(3):
                await asyncio.gather(*(claim_in_vain(ledger, Key(f"{turn} {each}")) for each in range(1000)))
            gc.collect()
            # Those that the thread has begun with.
            assert len(kept) <= sqlite.BATCH
        assert await ledger.claim(a_run("new")) == Claimed()


async def test_a_hanging_disk_doesnt_keep_the_process_from_ending(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "TIMEOUT_SECONDS", 0.1)
    disk = HangingDisk()
    ledger = SqliteLedger(path, clock=disk.clock)
    await ledger.open()
    with disk.hangs():
        with pytest.raises(LedgerFailed, match="TimeoutError"):
            await ledger.claim(a_run("held"))
        async with asyncio.timeout(10):
            await ledger.aclose()


KILLED = """
import asyncio, itertools, pathlib, sys
from agenta_ai_server.idempotency.ledger import Ending, EndKind, Hold, Run
from agenta_ai_server.idempotency.sqlite import SqliteLedger

async def main():
    ledger = SqliteLedger(pathlib.Path(sys.argv[1]))
    await ledger.open()
    async def work(worker):
        for number in itertools.count():
            run = Run(f"{worker} {number}", b"f", "token")
            await ledger.claim(run)
            await ledger.hold([Hold(run, begun=True)])
            print(run.key, flush=True)
            await ledger.end(run, Ending(EndKind.KEPT, b"x" * 3000))
            print(f"{run.key} ended", flush=True)
    await asyncio.gather(*(work(worker) for worker in range(8)))

asyncio.run(main())
"""


@pytest.mark.parametrize("seconds", [0.3, 0.7])
async def test_a_process_that_is_killed_loses_nothing_that_counted(seconds: float, path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KILLED, str(path)), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    said: list[str] = []
    while sum(line.endswith("ended") for line in said) <= 20:
        said.append((await process.stdout.readline()).decode().rstrip())
    await asyncio.sleep(seconds)
    process.kill()
    said += (await process.communicate())[0].decode().splitlines()
    begun = {line for line in said if not line.endswith("ended")}
    ended = {line.removesuffix(" ended") for line in said if line.endswith("ended")}
    # When the lease has run out.
    async with ledger_on(path, clock=lambda: time.time() + 11) as ledger:
        for key in ended:
            assert await ledger.claim(a_run(key, "x")) == Finished(b"x" * 3000)
        for key in begun - ended:
            assert await ledger.claim(a_run(key, "x")) in (Lost(), Finished(b"x" * 3000))
