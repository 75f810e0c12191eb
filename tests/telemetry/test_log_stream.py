"""A reader of the log that stands still, goes away or has no room: the service goes on, and lines are counted."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from agenta_ai_server.telemetry.log_stream import LogStream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Of a pipe. Linux counts in pages, and one that has a page free has room.
ROOM = 4 * 4096
LINE = "x" * 99 + "\n"


class Reader:
    """The end of a pipe that a log is written to, which reads when it is told to."""

    def __init__(self) -> None:
        self.descriptor, self.written_to = os.pipe()
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            fcntl.fcntl(self.written_to, fcntl.F_SETPIPE_SZ, ROOM)

    def read_until(self, last: str) -> list[str]:
        """Read until this line has come."""
        text = ""
        while not text.endswith(f"{last}\n"):
            text += os.read(self.descriptor, 1 << 16).decode()
        return text.splitlines()

    def close(self) -> None:
        os.close(self.descriptor)
        os.close(self.written_to)


@pytest.fixture
def reader() -> Iterator[Reader]:
    reader = Reader()
    yield reader
    reader.close()


def left_out(lines: int) -> str:
    return f"{lines} left out"


def test_lines_are_written_at_once_while_there_is_room(reader: Reader) -> None:
    stream = LogStream(reader.written_to, left_out)
    before = threading.active_count()
    for number in range(10):
        stream.write(f"{number}\n")
        assert os.read(reader.descriptor, 100) == f"{number}\n".encode()
    assert threading.active_count() <= before


def test_lines_wait_in_order_for_a_reader_that_stands_still(reader: Reader) -> None:
    stream = LogStream(reader.written_to, left_out)
    # Longer ones than fit into the pipe at once are among them.
    lines = [f"{number} " + "x" * (2 * ROOM if number % 500 == 7 else 50) for number in range(2000)]
    for line in lines:
        stream.write(f"{line}\n")
    assert reader.read_until(lines[-1]) == lines
    stream.drain(10)
    stream.write("and on\n")
    assert os.read(reader.descriptor, 100) == b"and on\n"


def test_lines_that_there_is_no_room_for_are_counted_where_they_are_missing(reader: Reader) -> None:
    stream = LogStream(reader.written_to, left_out, max_bytes=500)
    read: list[str] = []
    reading = threading.Thread(target=lambda: read.extend(reader.read_until("last")))
    for number in range(10_000):
        stream.write(f"{number}\n")
        if number == 5_000:
            reading.start()
    # By now it reads, and lines find room again.
    stream.drain(30)
    stream.write("last\n")
    reading.join()
    expected = 0
    for line in read[:-1]:
        if line.endswith("left out"):
            expected += int(line.split()[0])
        else:
            assert line == str(expected)
            expected += 1
    assert expected == 10_000
    assert any(line.endswith("left out") for line in read)


def test_a_reader_that_is_gone_holds_up_nothing(reader: Reader) -> None:
    stream = LogStream(reader.written_to, left_out)
    os.close(reader.descriptor)
    for _ in range(1000):
        stream.write(LINE)
    stream.drain(10)
    reader.descriptor = os.open(os.devnull, os.O_RDONLY)


def test_after_a_full_disk_the_log_goes_on(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    stream = LogStream(full, left_out)
    for _ in range(3):
        stream.write(LINE)
        stream.drain(10)
    path = tmp_path / "log"
    with path.open("wb") as file:
        os.dup2(file.fileno(), full)
        stream.write("again\n")
        stream.drain(10)
    os.close(full)
    assert path.read_text() == "3 left out\nagain\n"


def test_what_waits_is_waited_for_at_the_end_and_not_for_ever(reader: Reader) -> None:
    stream = LogStream(reader.written_to, left_out)
    for _ in range(1000):
        stream.write(LINE)
    stream.write("last\n")
    began = time.monotonic()
    stream.drain(0.2)
    assert 0.2 <= time.monotonic() - began < 10
    read: list[str] = []
    reading = threading.Thread(target=lambda: read.extend(reader.read_until("last")))
    reading.start()
    stream.drain(30)
    reading.join()
    assert len(read) == 1001
