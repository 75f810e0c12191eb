"""One connection to Redis, over which many callers ask at the same time."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from dataclasses import dataclass, field
from itertools import takewhile
from typing import TYPE_CHECKING, Any, TypeAlias

from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# A timeout is over after so many ticks of a timer. A turn of the event loop is one tick at most, however long it takes:
# so when it is this process that is slow, an answer still has some turns to come.
TICKS = 10
# Connecting takes several exchanges. So many timeouts may it take, while what is asked meanwhile waits for one.
CONNECT_TIMEOUTS = 4
# The server isn't the primary, or not yet. MOVED is a kind of AskError.
WRONG_SERVER = (ReadOnlyError, MasterDownError, BusyLoadingError, AskError, ClusterDownError, TryAgainError)
# Older servers wrap the error of a command in a script, and the library has no class for some of these.
WRONG_SERVER_TEXT = re.compile(
    r"(^|\s-?)(READONLY|MASTERDOWN|LOADING|MOVED|ASK|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|NOMASTERLINK) "
)

Answers: TypeAlias = list[Any]


@dataclass(slots=True, eq=False)
class Question:
    """The commands that one caller asks in one piece.

    Attributes:
        packed: The commands, as they are sent.
        count: How many they are.
        answered: Gets the answers, errors of single commands among them, or what kept them from coming; that is
            ``TimeoutError`` if they are only overdue. It is done earlier if the caller leaves.
        until: The tick at which they are overdue.
        answers: Those that have come.
    """

    packed: list[bytes]
    count: int
    answered: asyncio.Future[Answers | Exception]
    until: int = 0
    answers: Answers = field(default_factory=list)

    def settle(self, answers: Answers | Exception) -> None:
        """Tell the caller, if it still waits."""
        if not self.answered.done():
            self.answered.set_result(answers)


class Link:
    """One connection, which sends questions without waiting for the answers to earlier ones; these come in order.

    So the answers to a question whose caller has left, or whose time is over, are only dropped.

    Args:
        connection: The library's connection. It is connected at once, in a task.
        timeout: Seconds that the answers to a question may take, connecting included.
        on_failure: Called with this link when nothing more should be asked over it, and with whether its server isn't
            the primary.
    """

    def __init__(self, connection: Any, timeout: float, on_failure: Callable[[Link, bool], None]) -> None:
        self._connection = connection
        self._timeout = timeout
        self._on_failure = on_failure
        self._questions: deque[Question] = deque()
        self._tick = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_retired = False
        self.is_connected = False
        self.task = asyncio.create_task(self._run())

    @property
    def load(self) -> int:
        """How many questions haven't got their answers."""
        return len(self._questions)

    async def ask(self, questions: list[Question]) -> None:
        """Send questions, or have them sent as soon as it is connected."""
        for question in questions:
            question.until = self._tick + TICKS
        self._questions += questions
        self._watch()
        if self.is_connected:
            await self._send(questions)

    def retire(self) -> None:
        """Disconnect as soon as no answers are awaited any more. Nothing more may be asked."""
        self._is_retired = True
        if self._is_over() and asyncio.current_task() is not self.task:
            self.task.cancel()

    def _is_over(self) -> bool:
        return self._is_retired and all(question.answered.done() for question in self._questions)

    async def _run(self) -> None:
        why: Exception = EOFError()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUTS * self._timeout):
                await self._connection.connect()
            await self._send_first()
            # Asked each time, because the library loses a cancellation that comes while it connects.
            while not self._is_over():
                self._take(await self._receive())
        except (RedisError, OSError, EOFError) as error:
            why = error
        finally:
            self._end(why)
            await self._connection.disconnect(nowait=True)

    async def _send_first(self) -> None:
        """Send what has been asked while it connected, and still matters."""
        self._questions = deque(question for question in self._questions if not question.answered.done())
        self.is_connected = True
        await self._send(list(self._questions))

    async def _send(self, questions: list[Question]) -> None:
        packed = [piece for question in questions for piece in question.packed]
        try:
            await self._connection.send_packed_command(packed, check_health=False)
        except (RedisError, OSError):
            # The library has closed the connection. The task will see it, too.
            self._on_failure(self, False)

    async def _receive(self) -> Any:
        try:
            return await self._connection.read_response(disconnect_on_error=False)
        except (ResponseError, BusyLoadingError) as error:
            return error

    def _take(self, answer: Any) -> None:
        if not self._questions:
            raise InvalidResponse("Nothing was asked.")
        question = self._questions[0]
        question.answers.append(answer)
        if len(question.answers) == question.count:
            self._questions.popleft().settle(question.answers)
        if _is_of_wrong_server(answer):
            self._on_failure(self, True)

    def _end(self, why: Exception) -> None:
        self.is_connected = False
        if self._timer:
            self._timer.cancel()
        while self._questions:
            self._questions.popleft().settle(why)
        self._on_failure(self, _is_of_wrong_server(why))

    def _watch(self) -> None:
        """Let the time go on if any answers are waited for; one timer does for all of them."""
        if not self._timer and any(not question.answered.done() for question in self._questions):
            self._timer = asyncio.get_running_loop().call_later(self._timeout / TICKS, self._on_tick)

    def _on_tick(self) -> None:
        self._timer = None
        self._tick += 1
        overdue = list(takewhile(lambda question: question.until <= self._tick, self._questions))
        for question in overdue:
            question.settle(TimeoutError())
        if overdue and self.is_connected:
            self._on_failure(self, False)
        if self._is_retired:
            self.retire()
        self._watch()


def _is_of_wrong_server(answer: object) -> bool:
    is_error = isinstance(answer, RedisError)
    return isinstance(answer, WRONG_SERVER) or (is_error and bool(WRONG_SERVER_TEXT.search(str(answer))))
