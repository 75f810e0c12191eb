"""Connections to one Redis or Valkey, for everything in this process that uses it."""

from __future__ import annotations

import asyncio
import hashlib
import re
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
"""How long one exchange with Redis may take, waiting for a connection and connecting included."""

MAX_CONNECTIONS = 50

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

    An error which says that the server isn't the primary closes all connections, so that the next command resolves the
    address again. That is how a failover is followed when the address leads to the new primary.

    Args:
        url: A URL that passes :func:`~agenta_ai_server.redis.url.check_redis_url`. It is kept out of errors and logs.
        timeout: Seconds that one exchange may take, more than 0.
        max_connections: Exchanges at the same time; further ones wait, within their ``timeout``.

    Raises:
        ValueError: The URL is wrong. The sentence doesn't repeat it.
    """

    def __init__(self, url: str, *, timeout: float = TIMEOUT_SECONDS, max_connections: int = MAX_CONNECTIONS) -> None:
        check_redis_url(url)
        try:
            self._maker = _connection_maker(url)
            self._idle = [self._maker.make_connection()]
        except (ValueError, TypeError, RedisError):
            raise ValueError(FORM) from None
        self._slots = asyncio.Semaphore(max_connections)
        self._timeout = timeout
        self._generation = 0

    async def aclose(self) -> None:
        """Close all connections. A later command opens a new one."""
        self._generation += 1
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait=True)

    async def command(self, *command: Argument) -> Any:
        """Run a command, and return its answer; strings are bytes.

        Raises:
            RedisFailed: There is no answer, or it is an error.
        """
        [answer] = await self._bounded([command])
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
        answers = await self._bounded([_by_digest(call) for call in calls])
        unknown = [number for number, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            again = await self._bounded([_by_text(calls[number]) for number in unknown])
            for number, answer in zip(unknown, again, strict=True):
                answers[number] = answer
        return [_value(answer) for answer in answers]

    async def _bounded(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Return the answers, errors of single commands among them."""
        try:
            async with asyncio.timeout(self._timeout), self._slots:
                cancelled_before = _cancellations()
                answers = await self._exchange(commands)
                if _cancellations() > cancelled_before:
                    # The library loses a cancellation that comes while it connects.
                    raise asyncio.CancelledError
        except TimeoutError as error:
            raise RedisFailed(type(error).__name__, timed_out=True) from None
        except (RedisError, OSError, EOFError) as error:
            await self._resolve_again_if_needed(error)
            raise RedisFailed(_name(error)) from None
        for answer in answers:
            await self._resolve_again_if_needed(answer)
        return answers

    async def _exchange(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        connection = self._idle.pop() if self._idle else self._maker.make_connection()
        generation = self._generation
        is_in_step = False
        try:
            await self._maker.ensure_connection(connection)
            await connection.send_packed_command(connection.pack_commands(commands))
            answers = [await _answer(connection) for _ in commands]
            is_in_step = True
            return answers
        finally:
            # It connects again when it is needed.
            if not is_in_step or generation != self._generation:
                await connection.disconnect(nowait=True)
            self._idle.append(connection)

    async def _resolve_again_if_needed(self, answer: object) -> None:
        is_error = isinstance(answer, RedisError)
        if isinstance(answer, WRONG_SERVER) or (is_error and WRONG_SERVER_TEXT.search(str(answer))):
            await self.aclose()


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


async def _answer(connection: Any) -> Any:
    try:
        return await connection.read_response()
    except (ResponseError, BusyLoadingError) as error:
        return error


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


def _cancellations() -> int:
    """Return how often the current task has been cancelled, by its time-out or by others."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0
