"""Connections to one Redis or Valkey, for everything in this process that uses it."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from agenta_ai_server.redis.link import Link, Question
from agenta_ai_server.redis.url import FORM, check_redis_url

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT_SECONDS = 0.5
"""How long Redis may take to answer, connecting included."""

MAX_CONNECTIONS = 8

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

    What is asked in one turn of the event loop is sent at its end, in one piece. No call waits for a connection that
    others use, so that many calls of one caller don't keep those of others waiting.

    An error which says that the server isn't the primary closes all connections, so that the next command resolves the
    address again. That is how a failover is followed when the address leads to the new primary.

    Args:
        url: A URL that passes :func:`~agenta_ai_server.redis.url.check_redis_url`. It is kept out of errors and logs.
        timeout: Seconds that the answer may take, more than 0. What this process takes isn't counted.

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
        self._timeout = timeout
        self._asked: list[Question] = []
        self._links: list[Link] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Close all connections, after the answers to what was sent. A later command opens a new one."""
        self._leave(self._links)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._timeout)

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
        if not commands:
            return []
        # Packed here, because what can't be packed is an error of this caller alone.
        packed = self._packer.pack_commands(commands)
        question = Question(packed, len(commands), asyncio.get_running_loop().create_future())
        if not self._asked:
            # It begins at the end of this turn.
            self._keep(asyncio.create_task(self._send()))
        self._asked.append(question)
        answers = await question.answered
        if isinstance(answers, Exception):
            raise RedisFailed(_name(answers), timed_out=isinstance(answers, TimeoutError))
        return answers

    async def _send(self) -> None:
        asked, self._asked = self._asked, []
        # If the caller has left, it doesn't rely on it.
        if waiting := [question for question in asked if not question.answered.done()]:
            await self._link().ask(waiting)

    def _link(self) -> Link:
        """Return the link with the fewest questions, and open another one for later if it has any."""
        connected = [link for link in self._links if link.is_connected]
        link = min(connected or self._links, key=lambda link: link.load, default=None)
        if link and not (link.load and len(connected) == len(self._links) < MAX_CONNECTIONS):
            return link
        opened = Link(self._maker.make_connection(), self._timeout, self._on_failure)
        self._links.append(opened)
        self._keep(opened.task)
        return link or opened

    def _on_failure(self, link: Link, is_wrong_server: bool) -> None:
        if link in self._links:
            self._leave(self._links if is_wrong_server else [link])

    def _leave(self, links: list[Link]) -> None:
        for link in list(links):
            self._links.remove(link)
            link.retire()

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


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
