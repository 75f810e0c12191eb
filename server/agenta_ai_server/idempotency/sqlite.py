"""A ledger in an SQLite file, which several processes on one machine share."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import queue
import sqlite3
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, cast

from agenta_ai_server.idempotency.ledger import Ending, LedgerFailed
from agenta_ai_server.idempotency.rules import Entry, Rules, State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agenta_ai_server.idempotency.ledger import ClaimAnswer, Hold, Run

TIMEOUT_SECONDS = 2.0
"""How long one step may take, waiting for the disk and for other processes included."""

OPEN_SECONDS = 30.0
"""How long opening may take. After a crash, what the last process wrote may have to be read first."""

MAX_FILE_BYTES = 1 << 30
# Space beyond the size at which outcomes are dropped, so that there is always room to record that a run has begun.
SPARE_PAGES = 2048
# Steps that are committed together.
BATCH = 256
# Batches from one sweep to the next.
SWEEP_EVERY = 16
# Few, because to overwrite what is deleted takes time. While there are more, the next sweep follows at once.
SWEEP_ROWS = 500

TIDY_SECONDS = 60.0
"""From one time that the file is tidied to the next, whether or not there are calls."""

# "AAI" and a version of the tables, which an older or newer service would misread.
APPLICATION_ID = 0x41414901
SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
CREATE TABLE IF NOT EXISTS ids (
  key TEXT PRIMARY KEY,
  fingerprint BLOB NOT NULL,
  token TEXT NOT NULL,
  state INTEGER NOT NULL,
  spent INTEGER NOT NULL,
  leased_until REAL NOT NULL,
  expires REAL NOT NULL,
  followed_until REAL NOT NULL,
  data BLOB
);
CREATE INDEX IF NOT EXISTS ids_by_expiry ON ids (expires);
CREATE INDEX IF NOT EXISTS outcomes_by_expiry ON ids (expires) WHERE data IS NOT NULL;
CREATE TABLE IF NOT EXISTS endings (token TEXT PRIMARY KEY, data BLOB NOT NULL, expires REAL NOT NULL);
"""

GET = "SELECT fingerprint, token, state, spent, leased_until, expires, followed_until, data FROM ids WHERE key = ?"
PUT = """
INSERT INTO ids VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET
  fingerprint = excluded.fingerprint, token = excluded.token, state = excluded.state, spent = excluded.spent,
  leased_until = excluded.leased_until, expires = excluded.expires, followed_until = excluded.followed_until,
  data = excluded.data
"""
DELETE = "DELETE FROM ids WHERE key = ?"
GET_ENDING = "SELECT data FROM endings WHERE token = ? AND expires > ?"
PUT_ENDING = "INSERT OR REPLACE INTO endings VALUES (?, ?, ?)"
EXPIRE = "DELETE FROM ids WHERE rowid IN (SELECT rowid FROM ids WHERE expires <= ? ORDER BY expires LIMIT ?)"
EXPIRE_ENDINGS = "DELETE FROM endings WHERE expires <= ?"
DROP_OUTCOMES = """
UPDATE ids SET data = NULL WHERE rowid IN
  (SELECT rowid FROM ids WHERE data IS NOT NULL ORDER BY expires LIMIT ?)
"""

Result = TypeVar("Result")
# What names a file, whatever its path: its device and its inode.
_Identity: TypeAlias = tuple[int, int]

log = logging.getLogger(__name__)


class SqliteLedger:
    """A ledger in a file.

    A thread of its own does all work, in transactions of many steps, so that the event loop never waits for the disk.
    A process that is killed loses nothing. A power cut loses the last moments unless ``durable``; the file stays
    intact. The file must not be on a network file system, where several machines would damage it.

    Args:
        path: The file; it is created with permissions for its owner alone. ``-wal`` and ``-shm`` files lie beside it.
        ttl: Seconds for which an id is remembered after its run; 0 forgets it at once.
        lease: Seconds after which a run that isn't held again counts as dead.
        durable: Whether each transaction is on the disk before it counts, so that a power cut loses nothing.
        max_bytes: What the file may take. When it is full, the oldest outcomes are dropped, and their ids count as
            lost; when there are only ids, new ones are refused.
        clock: Seconds since the epoch; the same for all processes.
    """

    def __init__(
        self,
        path: Path,
        ttl: float = 600,
        *,
        lease: float = 10,
        durable: bool = False,
        max_bytes: int = MAX_FILE_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = _File(path, ttl, lease, durable=durable, max_bytes=max_bytes, clock=clock)
        # An ordered set: the steps that the thread hasn't got yet. It gets one batch at a time, so that those that
        # expire while the disk hangs can be dropped here.
        self._waiting: dict[_Step[Any], None] = {}
        self._is_busy = False
        self._batches: queue.SimpleQueue[list[_Step[Any]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def is_shared(self) -> bool:
        """Always true."""
        return True

    async def open(self) -> None:
        """Open the file, and create it if necessary.

        Raises:
            LedgerFailed: It can't be opened, or it isn't such a file.
        """
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, args=(loop,), name="idempotency-file", daemon=True)
        self._thread.start()
        # The first step opens the file.
        await self._do(_nothing, OPEN_SECONDS)

    async def aclose(self) -> None:
        """Finish the pending steps, and close the file. Give up after a few seconds if the disk hangs."""
        if self._thread:
            with suppress(LedgerFailed):
                # This step ends behind all others.
                await self._do(_nothing)
            self._batches.put(None)
            await asyncio.to_thread(self._thread.join, TIMEOUT_SECONDS)
            self._thread = None

    async def claim(self, run: Run, *, waited: str = "", rerun: bool = False) -> ClaimAnswer:
        """Claim an id; see :meth:`Ledger.claim`."""
        return await self._do(lambda rules: rules.claim(run, waited, rerun))

    async def hold(self, holds: Sequence[Hold]) -> list[bool]:
        """Renew leases; see :meth:`Ledger.hold`."""
        return await self._do(lambda rules: [rules.hold(hold) for hold in holds])

    async def end(self, run: Run, ending: Ending) -> None:
        """Record how a run ended; see :meth:`Ledger.end`."""
        try:
            await self._do(lambda rules: rules.end(run, ending))
        except LedgerFailed:
            if ending.data is not None:
                # That there was an outcome needs no room.
                with suppress(LedgerFailed):
                    await self._do(lambda rules: rules.end(run, Ending(ending.kind)))
            raise

    async def followed(self, key: str) -> float:
        """Return for how many more seconds a claimant counts as waiting; see :meth:`Ledger.followed`."""
        return await self._do(lambda rules: rules.followed(key))

    async def _do(self, action: Callable[[Rules], Result], seconds: float | None = None) -> Result:
        loop = asyncio.get_running_loop()
        step: _Step[Result] = _Step(action, loop.create_future())
        if not self._waiting:
            loop.call_soon(self._hand_over)
        self._waiting[step] = None
        timer = loop.call_later(seconds or TIMEOUT_SECONDS, step.expire)
        try:
            return await step.future
        finally:
            timer.cancel()
            # If the caller has left, it doesn't rely on it.
            self._waiting.pop(step, None)
            # It leads to the error, whose frames lead here.
            del step

    def _hand_over(self) -> None:
        """Give the thread the steps that wait, unless it is busy.

        This runs in the turn after the first of them was asked for. So the thread wakes once for all steps of a turn,
        and not while the event loop still computes, since both need the GIL.
        """
        if self._waiting and not self._is_busy:
            batch = list(islice(self._waiting, BATCH))
            for step in batch:
                del self._waiting[step]
            self._is_busy = True
            self._batches.put(batch)

    def _settle(self, batch: list[_Step[Any]]) -> None:
        for step in batch:
            step.settle()
        self._is_busy = False
        # In the next turn, behind those that have just got their results: their next steps join this batch.
        asyncio.get_running_loop().call_soon(self._hand_over)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run steps until the end, and tidy the file. Runs in the thread."""
        while (batch := self._next_batch()) is not None:
            if batch:
                self._file.commit(batch)
                with suppress(RuntimeError):  # the event loop has been closed
                    loop.call_soon_threadsafe(self._settle, batch)
            self._file.tidy()
        self._file.close()

    def _next_batch(self) -> list[_Step[Any]] | None:
        """Wait for the next batch, and return an empty one if it is time to tidy the file."""
        try:
            return self._batches.get(timeout=self._file.seconds_to_tidy)
        except queue.Empty:
            return []


def _nothing(_rules: Rules) -> None:
    pass


@dataclass(slots=True, eq=False)
class _Step(Generic[Result]):
    """One step for the thread, and its result."""

    action: Callable[[Rules], Result]
    future: asyncio.Future[Result]
    result: Result | None = None
    error: LedgerFailed | None = None

    def run(self, rules: Rules) -> None:
        self.error = None
        try:
            self.result = self.action(rules)
        except LedgerFailed as failure:
            self.error = failure

    def expire(self) -> None:
        if not self.future.done():
            self.future.set_exception(LedgerFailed("TimeoutError"))

    def settle(self) -> None:
        if self.future.done():
            return
        if self.error:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(cast("Result", self.result))


class _File:
    """The file, for one thread; it is opened when it is needed, and again after an error."""

    def __init__(
        self, path: Path, ttl: float, lease: float, *, durable: bool, max_bytes: int, clock: Callable[[], float]
    ) -> None:
        self._path = path
        self._durable = durable
        self._max_bytes = max_bytes
        self._max_pages = 0
        self._clock = clock
        self._connection: sqlite3.Connection | None = None
        self._opened: _Identity | None = None
        self._opened_log: _Identity | None = None
        self._table = _SqlTable(clock)
        self._rules = Rules(self._table, ttl, lease, clock)
        self._batches = 0
        # On the monotonic clock. The first time, what expired while no process was running is deleted.
        self._tidy_at = 0.0

    @property
    def seconds_to_tidy(self) -> float:
        """How long it is until :meth:`tidy` does something."""
        return max(self._tidy_at - time.monotonic(), 0.0)

    def tidy(self) -> None:
        """If it is time to, delete what has expired, also from the ``-wal`` file, and from its place on the disk."""
        if not self.seconds_to_tidy:
            self._tidy_at = time.monotonic() + TIDY_SECONDS
            self.commit([])

    def commit(self, batch: list[_Step[Any]]) -> None:
        """Do the steps in one transaction; if not all of them can be done, each in one of its own.

        Without steps, only tidy the file.
        """
        try:
            self._transact(batch)
        except Exception as error:
            # Of any kind: one that isn't caught ends the thread, and with it all later steps.
            failure = LedgerFailed(_why(error))
            is_expected = isinstance(error, sqlite3.Error | OSError | LedgerFailed)
            if len(batch) > 1 and (failure.why == "SQLITE_FULL" or not is_expected):
                for step in batch:
                    self.commit([step])
                return
            if not is_expected:
                log.error("a step on the idempotency file failed: %s", failure.why)
            for step in batch:
                step.error = failure

    def close(self) -> None:
        if self._connection:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _transact(self, batch: list[_Step[Any]]) -> None:
        connection = self._current()
        try:
            connection.execute("BEGIN IMMEDIATE")
            for step in batch:
                step.run(self._rules)
            self._batches += 1
            has_more = (not batch or self._batches % SWEEP_EVERY == 0) and self._sweep(connection)
            connection.execute("COMMIT")
            if has_more:
                # In between, others can use the file.
                self._tidy_at = 0.0
            elif not batch:
                _truncate_log(connection)
        except BaseException as error:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            if not isinstance(error, sqlite3.OperationalError | OSError | LedgerFailed):
                # Damaged. Close it, so that replacing the file needs no restart.
                self.close()
            raise

    def _current(self) -> sqlite3.Connection:
        """Return the connection to the file that is at the path now."""
        if self._opened and _identity(self._path) != self._opened:
            log.warning("the idempotency file was moved away, deleted or replaced, and its ids aren't known any more")
            self.close()
            self._opened = None
            _remove_leftovers(self._path, self._opened_log)
        return self._connection or self._open()

    def _open(self) -> sqlite3.Connection:
        _remove_leftovers(self._path, None)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
        self._opened = _identity(self._path)
        connection = sqlite3.connect(self._path, timeout=TIMEOUT_SECONDS, isolation_level=None)
        try:
            [found] = connection.execute("PRAGMA application_id").fetchone()
            [tables] = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if found != APPLICATION_ID and tables:
                raise LedgerFailed("NotALedger")
            connection.execute("PRAGMA journal_mode = WAL")
            # Overwrite what is deleted.
            connection.execute("PRAGMA secure_delete = ON")
            connection.execute(f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}")
            connection.executescript(SCHEMA)
            self._opened_log = _identity(_logs(self._path)[0])
            [page_bytes] = connection.execute("PRAGMA page_size").fetchone()
            self._max_pages = self._max_bytes // page_bytes
            connection.execute(f"PRAGMA max_page_count = {self._max_pages + SPARE_PAGES}")
        except BaseException:
            connection.close()
            raise
        self._connection = self._table.connection = connection
        return connection

    def _sweep(self, connection: sqlite3.Connection) -> bool:
        """Delete expired entries and make room, and return whether there may be more to delete."""
        now = self._clock()
        expired = connection.execute(EXPIRE, (now, SWEEP_ROWS)).rowcount
        connection.execute(EXPIRE_ENDINGS, (now,))
        [pages] = connection.execute("PRAGMA page_count").fetchone()
        [free] = connection.execute("PRAGMA freelist_count").fetchone()
        is_full = pages - free > self._max_pages
        dropped = connection.execute(DROP_OUTCOMES, (SWEEP_ROWS,)).rowcount if is_full else 0
        self._table.takes_new = not is_full or dropped > 0
        return SWEEP_ROWS in (expired, dropped)


def _identity(path: Path) -> _Identity | None:
    """Return what names the file at the path, whatever its name; ``None`` if there is none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _logs(path: Path) -> tuple[Path, Path]:
    """Return where SQLite keeps the ``-wal`` and ``-shm`` files of a database."""
    database = Path(os.path.realpath(path))
    return database.with_name(f"{database.name}-wal"), database.with_name(f"{database.name}-shm")


def _remove_leftovers(path: Path, old_log: _Identity | None) -> None:
    """Delete the ``-wal`` and ``-shm`` files of a database that is no longer at the path.

    Processes that haven't noticed may still use them, and must not share them with those that use the next database.

    Args:
        path: Where the database was.
        old_log: Its ``-wal`` file; ``None`` if that isn't known.
    """
    logs = _logs(path)
    if not any(each.exists() for each in logs):
        return
    folder = os.open(logs[0].parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # One process at a time: these would soon be the files of the database that another one has created.
        fcntl.flock(folder, fcntl.LOCK_EX)
        is_gone = not path.exists()
        if is_gone or (old_log and _identity(logs[0]) == old_log):
            for each in logs:
                each.unlink(missing_ok=True)
        if is_gone:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    finally:
        os.close(folder)


def _truncate_log(connection: sqlite3.Connection) -> None:
    """Empty the ``-wal`` file, unless others use it."""
    # To wait for a reader, such as a backup, would keep all processes from writing.
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {TIMEOUT_SECONDS * 1000:.0f}")


class _SqlTable:
    """The tables of the file, within a transaction."""

    connection: sqlite3.Connection

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.takes_new = True

    def get(self, key: str) -> Entry | None:
        row = self.connection.execute(GET, (key,)).fetchone()
        if row is None:
            if not self.takes_new:
                raise LedgerFailed("TooManyIds")
            return None
        fingerprint, token, state, spent, leased_until, expires, followed_until, data = row
        return Entry(fingerprint, State(state), token, bool(spent), leased_until, expires, followed_until, data)

    def put(self, key: str, entry: Entry) -> None:
        times = (entry.leased_until, entry.expires, entry.followed_until)
        row = (key, entry.fingerprint, entry.token, int(entry.state), int(entry.spent), *times, entry.data)
        self.connection.execute(PUT, row)

    def delete(self, key: str) -> None:
        self.connection.execute(DELETE, (key,))

    def get_ending(self, token: str) -> bytes | None:
        row = self.connection.execute(GET_ENDING, (token, self._clock())).fetchone()
        return row[0] if row else None

    def put_ending(self, token: str, data: bytes, expires: float) -> None:
        self.connection.execute(PUT_ENDING, (token, data, expires))


def _why(error: Exception) -> str:
    """Return the kind of an error: SQLite's name for it, as SQLITE_FULL, the system's, or that of its class."""
    if isinstance(error, LedgerFailed):
        return error.why
    if type(error) is OSError and error.errno:
        return errno.errorcode[error.errno]
    return getattr(error, "sqlite_errorname", None) or type(error).__name__


FAULTS = {
    "NotALedger": "is an SQLite database of another program. Set another path.",
    "SQLITE_NOTADB": "isn't an SQLite database. Set another path, or move this file away.",
    "SQLITE_CORRUPT": "is damaged. Move it away with its -wal and -shm files; earlier calls may then be billed twice.",
    "SQLITE_FULL": "can't grow: the disk is full. Free some space.",
    "ENOSPC": "can't be created: the disk is full. Free some space.",
    "EROFS": "is on a read-only file system. Name a file that can be written.",
    "SQLITE_READONLY": "can't be written. Make it and its folder writable for this user.",
    "SQLITE_CANTOPEN": "can't be opened. Make it and its folder writable for this user.",
    "SQLITE_BUSY": "is locked by another program. Stop that program.",
    "FileNotFoundError": "is in a folder that doesn't exist. Create the folder.",
    "IsADirectoryError": "is a folder. Name a file in it.",
    "PermissionError": "can't be written. Make it and its folder writable for this user.",
}


def file_fault(why: str) -> str:
    """Return what is wrong with the file, and what to do, from the kind of a :class:`LedgerFailed`."""
    return FAULTS.get(why, f"can't be used ({why}). Check the disk that it is on.")
