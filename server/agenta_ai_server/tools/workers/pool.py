"""Manages the worker processes."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from agenta_ai_server.concurrency.turns import Turns

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import Hashable, Mapping

_COMMAND: Final = (sys.executable, "-I", "-m", "agenta_ai_server.tools.workers.worker")
_LENGTH_BYTES: Final = 4
_MAX_ANSWER_BYTES: Final = 2**20
# A worker ends itself when it has taken too much CPU time. This is for one that is stopped, or isn't given any.
_SECONDS: Final = 6.0
_STARTING_SECONDS: Final = 10.0
_ENDING_SECONDS: Final = 1.0
_PROCESSES: Final = 2
# Why there is no answer, a sentence's end.
FAILED: Final = "the process that does it could not be started, or did not respond in time"
# What a process dies of that takes too much CPU time, or too much memory outside of Python.
_EXCEEDED: Final = (-signal.SIGPROF, -signal.SIGABRT)


class LimitExceeded(Exception):
    """A task took too much CPU time or memory, or found more than can be returned.

    Args:
        why: Which of these, a sentence's end.
    """

    def __init__(self, why: str = "it takes too much CPU time or memory") -> None:
        super().__init__(why)


class WorkerFailed(Exception):
    """No worker could answer, for a reason that has nothing to do with the task."""


class Workers:
    """Does tasks in up to two processes, started with the first request.

    It belongs to the event loop that makes its first request.
    """

    def __init__(self) -> None:
        self._turns = Turns(_PROCESSES)
        self._idle: list[Process] = []
        self._running: set[asyncio.Task[dict[str, Any]]] = set()
        self._closed = False

    async def ask(self, request: Mapping[str, Any], key: Hashable) -> list[Any]:
        """Let a worker do a task, and return what it found, as JSON.

        Args:
            request: The ``task``, one of the worker's, and its arguments by their names, as JSON.
            key: Who it is for: one request at a time for each key, so that all keys get their turn.

        Raises:
            LimitExceeded: It took too much CPU time or memory, or its answer is longer than 1 MiB.
            WorkerFailed: No worker could be started, or two of them died or didn't answer.
        """
        begun = asyncio.Event()
        task = asyncio.ensure_future(self._in_turn(request, key, begun))
        self._running.add(task)
        task.add_done_callback(self._finished)
        try:
            answer = await asyncio.shield(task)
        except asyncio.CancelledError:
            # One that has begun continues: its answer would otherwise be mistaken for the next one's.
            if not begun.is_set():
                task.cancel()
            raise
        found: list[Any] = answer["found"]
        return found

    def _finished(self, task: asyncio.Task[dict[str, Any]]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # the caller gets it, if there still is one

    async def aclose(self) -> None:
        """End all processes."""
        self._closed = True
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for process in self._idle:
            await _end(process)
        self._idle.clear()

    async def _in_turn(self, request: Mapping[str, Any], key: Hashable, begun: asyncio.Event) -> dict[str, Any]:
        async with self._turns.turn(key):
            begun.set()
            # Not before, because hundreds may wait, and as ASCII a text may be several times as long.
            message = json.dumps(request).encode()
            try:
                return await self._answer(message)
            except WorkerFailed:
                # It was killed or stopped from outside.
                return await self._answer(message)

    async def _answer(self, request: bytes) -> dict[str, Any]:
        process = await self._process()
        try:
            async with asyncio.timeout(_SECONDS):
                answer = await _exchange(process, request)
        except TimeoutError:
            await _kill(process)
            raise WorkerFailed from None
        except (OSError, asyncio.IncompleteReadError, ValueError):
            await _end(process)
            if process.returncode in _EXCEEDED:
                raise LimitExceeded from None
            raise WorkerFailed from None
        except BaseException:
            await asyncio.shield(_kill(process))
            raise
        if "exceeded" in answer or self._closed:
            await _end(process)
        else:
            self._idle.append(process)
        if "exceeded" in answer:
            raise LimitExceeded
        if "too_long" in answer:
            raise LimitExceeded("the description of what is wrong with it is too long")
        return answer

    async def _process(self) -> Process:
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None:
                return process
        try:
            async with asyncio.timeout(_STARTING_SECONDS):
                return await asyncio.create_subprocess_exec(
                    *_COMMAND,
                    stdin=PIPE,
                    stdout=PIPE,
                    stderr=DEVNULL,
                    env={},
                    cwd="/",
                    start_new_session=True,
                )
        except (OSError, TimeoutError) as error:
            raise WorkerFailed from error


async def _exchange(process: Process, request: bytes) -> dict[str, Any]:
    """Send a request and return the answer, or raise a WorkerFailed, OSError, ValueError or IncompleteReadError."""
    if process.stdin is None or process.stdout is None:
        raise AssertionError("the process was started without pipes")
    if process.stdin.is_closing():
        # It died before it got the request. uvloop raises a RuntimeError if we write.
        raise WorkerFailed
    process.stdin.write(len(request).to_bytes(_LENGTH_BYTES, "big") + request)
    await process.stdin.drain()
    length = int.from_bytes(await process.stdout.readexactly(_LENGTH_BYTES), "big")
    if length > _MAX_ANSWER_BYTES:
        raise ValueError("the answer is too long")
    answer = json.loads(await process.stdout.readexactly(length))
    if not isinstance(answer, dict):
        raise ValueError("the answer isn't an object")
    return answer


async def _end(process: Process) -> None:
    """Let a process end that has ended its output or gets no more input."""
    if process.stdin:
        process.stdin.close()
    # Killing one that has just died would lose what it died of: Python reaps it before the event loop can.
    with suppress(TimeoutError):
        async with asyncio.timeout(_ENDING_SECONDS):
            await process.wait()
    await _kill(process)


async def _kill(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    if process.stdin:
        process.stdin.close()
    await process.wait()
