"""Writes log lines: a stalled reader loses lines, but never blocks the service."""

from __future__ import annotations

import os
import select
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_WAITING_BYTES = 1 << 20
"""What may wait for the reader. Lines beyond it are dropped."""

_PATIENCE_MS = 1000


class LogStream:
    """Writes lines to a file descriptor: at once while it takes them, and otherwise by a thread, in their order.

    A write to a full pipe or socket blocks, and would hold the event loop and with it all calls. Whether there is room
    is asked first; setting the descriptor to non-blocking would do so for all who share it, a terminal's shell too. Two
    processes that write to one pipe may both take its last room, and one of them then waits for the reader.

    Threads may share it.

    Args:
        descriptor: Where the lines go, usually 2. It stays open.
        left_out: Makes the line that says how many lines were dropped, without the end of the line.
        max_bytes: What may wait for the reader.
    """

    def __init__(self, descriptor: int, left_out: Callable[[int], str], *, max_bytes: int = MAX_WAITING_BYTES) -> None:
        self._descriptor = descriptor
        self._left_out = left_out
        self._max_bytes = max_bytes
        self._poll = _writable(descriptor)
        self._lock = threading.Lock()
        self._waiting: deque[_Line] = deque()
        self._waiting_bytes = 0
        self._dropped = 0
        self._writer: threading.Thread | None = None

    def write(self, text: str) -> None:
        """Write one or more whole lines. Never waits for a reader; a regular file waits for its disk."""
        data = text.encode(errors="backslashreplace")
        with self._lock:
            if not self._write_at_once(data):
                self._enqueue(_Line(data))

    def flush(self) -> None:
        """Do nothing: what can be written has been. See :meth:`drain`."""

    def drain(self, seconds: float) -> None:
        """Wait until all lines are written, but no longer than ``seconds``."""
        writer = self._writer
        if writer:
            writer.join(seconds)

    def _write_at_once(self, data: bytes) -> bool:
        # A pipe that has room takes this many bytes without blocking.
        if self._writer or self._dropped or len(data) > select.PIPE_BUF or not self._poll.poll(0):
            return False
        try:
            return os.write(self._descriptor, data) == len(data)
        except OSError:
            return False

    def _enqueue(self, line: _Line) -> None:
        if self._waiting_bytes + len(line.data) > self._max_bytes:
            self._dropped += line.lines
            return
        if self._dropped:
            self._append(self._note())
        self._append(line)
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_waiting, name="log", daemon=True)
            self._writer.start()

    def _append(self, line: _Line) -> None:
        self._waiting.append(line)
        self._waiting_bytes += len(line.data)

    def _note(self) -> _Line:
        dropped, self._dropped = self._dropped, 0
        return _Line(f"{self._left_out(dropped)}\n".encode(), dropped)

    def _write_waiting(self) -> None:
        """Write the waiting lines until there are none. Runs in the thread."""
        poll = _writable(self._descriptor)
        while line := self._next():
            is_written = _write_all(self._descriptor, poll, line.data)
            with self._lock:
                self._waiting.popleft()
                self._waiting_bytes -= len(line.data)
                if not is_written:
                    self._dropped += line.lines
                elif self._dropped and not self._waiting:
                    self._append(self._note())

    def _next(self) -> _Line | None:
        with self._lock:
            if self._waiting:
                return self._waiting[0]
            self._writer = None
            return None


class _Line(NamedTuple):
    """A line that waits, and for how many lines it stands."""

    data: bytes
    lines: int = 1


def _writable(descriptor: int) -> select.poll:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return poll


def _write_all(descriptor: int, poll: select.poll, data: bytes) -> bool:
    """Write the data in pieces that the reader has room for, and return whether that succeeded."""
    rest = memoryview(data)
    while rest:
        try:
            if poll.poll(_PATIENCE_MS):
                rest = rest[os.write(descriptor, rest[: select.PIPE_BUF]) :]
        except BlockingIOError:
            # Another process has filled it.
            time.sleep(_PATIENCE_MS / 1000)
        except OSError:
            # The reader is gone, or the disk is full.
            return False
    return True
