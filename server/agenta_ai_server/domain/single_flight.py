"""Runs work once for several callers that need it at the same time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

Key = TypeVar("Key")
Value = TypeVar("Value")


class SingleFlight(Generic[Key, Value]):
    """Runs the work of each key once at a time. Callers that come meanwhile share its result or error.

    The work runs in a task of its own, with the context of its first caller, and continues when callers are cancelled.
    """

    def __init__(self) -> None:
        self._tasks: dict[Key, asyncio.Task[Value]] = {}

    def __contains__(self, key: Key) -> bool:
        """Return whether the work of the key is running."""
        return key in self._tasks

    def start(self, key: Key, work: Callable[[], Coroutine[Any, Any, Value]]) -> asyncio.Task[Value]:
        """Start the work of the key unless it is running, and return its task, which only this object may cancel."""
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.create_task(work())
            task.add_done_callback(lambda done: self._end(key, done))
        return task

    async def run(self, key: Key, work: Callable[[], Coroutine[Any, Any, Value]]) -> Value:
        """Start or join the work of the key, and return its result."""
        return await asyncio.shield(self.start(key, work))

    async def aclose(self) -> None:
        """Cancel all work, and wait until it has ended."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _end(self, key: Key, task: asyncio.Task[Value]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            # All callers may have left, and an unretrieved error would be logged.
            task.exception()
