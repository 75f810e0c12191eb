"""Connections to one Redis or Valkey, for everything in this process that uses it."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from agenta_ai_server.redis.url import FORM, check_redis_url

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT_SECONDS = 0.5
"""How long Redis may take to answer, connecting included."""
# A timeout is counted in so many ticks: see ``_tick``.
TICKS = 10

MAX_CONNECTIONS = 16
# In one exchange: no answer should wait for very many others.
MAX_COMMANDS = 32

# The server isn't the primary, or not yet. MOVED is a kind of AskError.
WRONG_SERVER = (ReadOnlyError, MasterDownError, BusyLoadingError, AskError, ClusterDownError, TryAgainError)
# Older servers wrap the error of a command in a script, and the library has no class for some of these.
WRONG_SERVER_TEXT = re.compile(
    r"(^|\s-?)(READONLY|MASTERDOWN|LOADING|MOVED|ASK|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|NOMASTERLINK) "
)

Argument: TypeAlias = str | bytes | int


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script, sent by its digest.

    Attributes:
        text: Its source.
        digest: SHA-1 of the source, which is the name that Redis gives it.
    """

    text: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True)
class ScriptCall:
    """One call of a script."""

    script: Script
    keys: Sequence[str]
    arguments: Sequence[Argument]


class RedisFailed(Exception):
    """Redis gave no response, or an unusable one.

    Args:
        why: The name of the error's class, never its text, which may hold an address.
        timed_out: Whether the answer only didn't come in time. Redis may have run the command, or still run it.
    """

    def __init__(self, why: str, *, timed_out: bool = False) -> None:
        super().__init__(why)
        self.why = why
        self.timed_out = timed_out


def unexpected_answer() -> RedisFailed:
    """Return the error for a response that this service's scripts never give."""
    return RedisFailed("UnexpectedAnswer")


class RedisClient:
    """Runs commands and scripts on one server, each at most once.

    What is asked in one turn of the event loop is sent together at its end. While all connections are in use, what is
    asked waits in order.

    An error which says that the server isn't the primary closes all connections, so that the next command resolves the
    address again. That is how a failover is followed when the address leads to the new primary.

    Args:
        url: A URL that passes :func:`~agenta_ai_server.redis.url.check_redis_url`. It is kept out of errors and logs.
        timeout: Seconds that Redis may take to answer, connecting included, and that a connection may be waited for;
            more than 0. It is longer while this process is so busy that it reads answers late.

    Raises:
        ValueError: The URL is wrong. The sentence doesn't repeat it.
    """

    def __init__(self, url: str, *, timeout: float = TIMEOUT_SECONDS) -> None:
        check_redis_url(url)
        try:
            self._maker = _connection_maker(url)
            # Never connected.
            self._packer = self._maker.make_connection()
        except (ValueError, TypeError, RedisError):
            raise ValueError(FORM) from None
        self._tick_seconds = timeout / TICKS
        self._ticker: asyncio.TimerHandle | None = None
        self._ticks = 0
        self._waiting: deque[_Question] = deque()
        self._exchanges: set[_Exchange] = set()
        self._idle: list[Any] = []
        self._generation = 0

    async def aclose(self) -> None:
        """Close all connections, when what was asked has been answered. A later command opens a new one."""
        while self._exchanges:
            await asyncio.wait([exchange.task for exchange in self._exchanges])
        await self._disconnect()

    async def command(self, *command: Argument) -> Any:
        """Run a command, and return its answer; strings are bytes.

        Raises:
            RedisFailed: There is no answer, or it is an error.
        """
        [answer] = await self._ask([command])
        return _value(answer)

    async def run(self, script: Script, keys: Sequence[str], *arguments: Argument) -> Any:
        """Run a script, and return its answer; strings are bytes.

        Raises:
            RedisFailed: There is no answer, or it is an error.
        """
        [answer] = await self.run_all([ScriptCall(script, keys, arguments)])
        return answer

    async def run_all(self, calls: Sequence[ScriptCall]) -> list[Any]:
        """Run scripts in one round trip, one after the other and not as one transaction.

        Raises:
            RedisFailed: There is no answer, or one of them is an error. The other calls may have been run.
        """
        answers = await self._ask([_by_digest(call) for call in calls])
        unknown = [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            again = await self._ask([_by_text(calls[number]) for number in unknown])
            for number, answer in zip(unknown, again, strict=True):
                answers[number] = answer
        return [_value(answer) for answer in answers]

    async def _ask(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Return the answers, errors of single commands among them."""
        # Packed here, because what can't be packed is an error of this caller alone.
        packed = self._packer.pack_commands(commands)
        question = _Question(packed, len(commands), asyncio.get_running_loop().create_future(), self._ticks)
        if not self._waiting:
            self._begin_exchange()
        self._waiting.append(question)
        try:
            return await question.answers
        finally:
            # It leads to the error, whose traceback leads here.
            del question

    def _begin_exchange(self) -> None:
        """Begin an exchange at the end of this turn, unless all connections are in use."""
        if len(self._exchanges) < MAX_CONNECTIONS:
            exchange = _Exchange()
            exchange.task = asyncio.create_task(self._run(exchange))
            self._exchanges.add(exchange)
            if not self._ticker:
                self._ticker = asyncio.get_running_loop().call_later(self._tick_seconds, self._tick)

    async def _run(self, exchange: _Exchange) -> None:
        self._take_waiting(exchange)
        if self._waiting:
            self._begin_exchange()
        failure = RedisFailed("CancelledError")
        try:
            if exchange.questions:
                await self._exchange(exchange)
        except asyncio.CancelledError:
            if not exchange.is_overdue:
                raise
        except Exception as error:
            # Of any kind, because nobody waits for this task.
            failure = RedisFailed(_name(error))
            await self._resolve_again_if_needed(error)
        finally:
            exchange.fail(failure)
            self._exchanges.remove(exchange)
            if self._waiting:
                self._begin_exchange()

    def _take_waiting(self, exchange: _Exchange) -> None:
        """Let the exchange have what waits, as far as there is room, except for callers who have left."""
        count = 0
        while self._waiting and count < MAX_COMMANDS:
            question = self._waiting.popleft()
            if not question.answers.done():
                exchange.questions.append(question)
                count += question.count

    async def _exchange(self, exchange: _Exchange) -> None:
        connection = self._idle.pop() if self._idle else self._maker.make_connection()
        generation = self._generation
        is_in_step = False
        try:
            await self._maker.ensure_connection(connection)
            await connection.send_packed_command(
                [piece for question in exchange.questions for piece in question.packed]
            )
            for question in exchange.questions:
                question.settle([await self._answer(connection) for _ in range(question.count)])
            is_in_step = True
        finally:
            # It connects again when it is needed.
            if not is_in_step or generation != self._generation:
                await connection.disconnect(nowait=True)
            self._idle.append(connection)

    async def _answer(self, connection: Any) -> Any:
        try:
            return await connection.read_response()
        except (ResponseError, BusyLoadingError) as error:
            await self._resolve_again_if_needed(error)
            return error

    def _tick(self) -> None:
        """Count the time of all exchanges.

        In ticks, of which each turn of the event loop has one at most, however long it takes: so an answer that comes
        in time is read even if this process is slow.
        """
        self._ticks += 1
        for exchange in self._exchanges:
            exchange.ticks += 1
            if exchange.is_overdue:
                exchange.fail(RedisFailed(TimeoutError.__name__, timed_out=True))
                # Each time, because the library loses a cancellation that comes while it connects.
                exchange.task.cancel()
        while self._waiting and self._ticks - self._waiting[0].asked > TICKS:
            self._waiting.popleft().settle(RedisFailed(TimeoutError.__name__, timed_out=True))
        again = asyncio.get_running_loop().call_later
        self._ticker = again(self._tick_seconds, self._tick) if self._exchanges else None

    async def _resolve_again_if_needed(self, error: Exception) -> None:
        if isinstance(error, WRONG_SERVER) or WRONG_SERVER_TEXT.search(str(error)):
            await self._disconnect()

    async def _disconnect(self) -> None:
        """Close all connections; those in use, when their exchanges end."""
        self._generation += 1
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait=True)


@dataclass(slots=True, eq=False)
class _Question:
    """The commands of one caller, packed; their answers, cancelled if the caller leaves; and the tick they came at."""

    packed: Sequence[bytes]
    count: int
    answers: asyncio.Future[list[Any]]
    asked: int

    def settle(self, answers: list[Any] | RedisFailed) -> None:
        if self.answers.done():
            return
        if isinstance(answers, RedisFailed):
            self.answers.set_exception(answers)
        else:
            self.answers.set_result(answers)


@dataclass(slots=True, eq=False)
class _Exchange:
    """What is sent together over one connection, and the task that does so."""

    task: asyncio.Task[None] = field(init=False)
    questions: list[_Question] = field(default_factory=list)
    ticks: int = 0

    @property
    def is_overdue(self) -> bool:
        return self.ticks > TICKS

    def fail(self, failure: RedisFailed) -> None:
        """Fail what has no answer yet, each with an error of its own: a raised one keeps the frames of its caller."""
        for question in self.questions:
            question.settle(RedisFailed(failure.why, timed_out=failure.timed_out))


def _connection_maker(url: str) -> Any:
    """Return a pool that only makes connections: it loses one whose command is cancelled while it is put back."""
    # A retry could run a command twice. With protocol 3, connections that Redis has closed count as usable.
    return ConnectionPool.from_url(
        url, protocol=2, retry=Retry(NoBackoff(), 0), socket_timeout=None, socket_connect_timeout=None
    )


def _by_digest(call: ScriptCall) -> list[Argument]:
    return ["EVALSHA", call.script.digest, len(call.keys), *call.keys, *call.arguments]


def _by_text(call: ScriptCall) -> list[Argument]:
    return ["EVAL", call.script.text, len(call.keys), *call.keys, *call.arguments]


def _value(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise RedisFailed(_name(answer))
    return answer


def _name(error: BaseException) -> str:
    if "DB index" in str(error):
        # Alone of the answers, it has no class of its own.
        return "NoSuchDatabaseError"
    below = error.__context__
    # The library wraps errors of the connection.
    return type(below if isinstance(below, OSError) else error).__name__
