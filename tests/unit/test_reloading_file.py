from __future__ import annotations

import errno
import os
import re
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from agenta_ai_server.files.reloading import NotYet
from agenta_ai_server.files.reloading import ReloadingFile as Impatient
from agenta_ai_server.files.reloading import ReloadingFiles as ImpatientFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOGGER = "agenta_ai_server.files.reloading"


# A busy machine may take long to look at a file.
ReloadingFile = partial(Impatient, patience=30)
ReloadingFiles = partial(ImpatientFiles, patience=30)


def out_of_files(path: object, *_: object) -> int:
    raise OSError(errno.EMFILE, "Too many open files", str(path))


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("one")
    return path


def parse(content: bytes) -> str:
    if content == b"broken":
        raise ValueError("it is broken")
    return content.decode()


def replace(path: Path, text: str) -> None:
    new = path.with_name("new")
    new.write_text(text)
    new.replace(path)


def relink(path: Path, text: str) -> None:
    target = path.with_name("target of " + text)
    target.write_text(text)
    link = path.with_name("link")
    link.symlink_to(target)
    link.replace(path)


def keep_size(path: Path, text: str) -> None:
    path.write_text(text)
    os.utime(path, (1, 1))


def keep_size_and_time(path: Path, text: str) -> None:
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    # Change times come in steps of milliseconds.
    while path.stat().st_ctime_ns == before.st_ctime_ns:
        path.chmod(0o600)


@pytest.mark.parametrize(
    "change",
    [
        replace,
        relink,
        keep_size,
        keep_size_and_time,
    ],
)
def test_change_is_seen_at_the_next_look(path: Path, clock: Clock, change: Callable[[Path, str], None]) -> None:
    file = ReloadingFile(path, parse, every=5, clock=clock)
    change(path, "two")
    clock.now += 4.9
    assert file.content == "one"
    clock.now += 0.1
    assert file.content == "two"
    replace(path, "three")
    clock.now += 4.9
    assert file.content == "two"


def test_unchanged_is_read_once(path: Path, clock: Clock) -> None:
    readings = iter(["first", "second"])
    file = ReloadingFile(path, lambda _: next(readings), clock=clock)
    for _ in range(3):
        clock.now += 10
        assert file.content == "first"


@pytest.mark.parametrize(("fault", "times"), [(ValueError("broken"), 1), (NotYet("not yet"), 4)])
def test_what_is_unusable_is_parsed_again_only_if_time_may_mend_it(
    path: Path, clock: Clock, fault: ValueError, times: int
) -> None:
    parsed: list[bytes] = []

    def parse(content: bytes) -> str:
        parsed.append(content)
        if content == b"two":
            raise fault
        return content.decode()

    file = ReloadingFile(path, parse, clock=clock)
    replace(path, "two")
    for _ in range(4):
        clock.now += 10
        assert file.content == "one"
    assert parsed == [b"one"] + times * [b"two"]


def test_change_while_it_is_read(path: Path, clock: Clock) -> None:
    def parse_slowly(content: bytes) -> str:
        if content == b"one":
            path.write_text("three")
        return parse(content)

    file = ReloadingFile(path, parse_slowly, clock=clock)
    assert file.content == "one"
    clock.now += 1
    assert file.content == "three"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda path: path.write_text("broken"), "file: it is broken; the last valid version stays in effect"),
        (lambda path: path.unlink(), "can't read .*file: No such file or directory; the last valid version"),
        (lambda path: (path.unlink(), path.mkdir()), "file is a folder, not a regular file; the last valid version"),
    ],
    ids=["broken", "gone", "folder"],
)
def test_broken_never_replaces_good(
    path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], object], why: str
) -> None:
    caplog.set_level("INFO", LOGGER)
    file = ReloadingFile(path, parse, clock=clock)
    spoil(path)
    for _ in range(3):
        clock.now += 1
        assert file.content == "one"
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert re.search(why, record.getMessage())

    if path.is_dir():
        path.rmdir()
    path.write_text("good")
    clock.now += 1
    assert file.content == "good"
    assert caplog.messages[1:] == [f"read {path} again, because it has changed"]


def test_what_cannot_be_used_is_parsed_once(path: Path, clock: Clock) -> None:
    parsed: list[bytes] = []

    def count(content: bytes) -> str:
        parsed.append(content)
        return parse(content)

    file = ReloadingFile(path, count, clock=clock)
    path.write_text("broken")
    for _ in range(3):
        clock.now += 1
        assert (file.content, file.is_broken) == ("one", True)
    assert parsed == [b"one", b"broken"]
    path.write_text("two")
    clock.now += 1
    assert (file.content, file.is_broken) == ("two", False)


def test_reads_again_what_could_not_be_read_for_a_moment(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ReloadingFile(path, parse, clock=clock)
    path.write_text("three")
    with monkeypatch.context() as patch:
        patch.setattr("os.open", out_of_files)
        clock.now += 1
        assert file.content == "one"
    clock.now += 1
    assert file.content == "three"


@pytest.mark.parametrize(
    ("text", "why"), [(None, "can't read .*file: No such file or directory$"), ("broken", "file: it is broken$")]
)
def test_must_be_good_at_the_start(path: Path, text: str | None, why: str) -> None:
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(ValueError, match=why) as error:
        ReloadingFile(path, parse)
    assert error.value.__suppress_context__


def test_several_files_are_one_content(path: Path, clock: Clock) -> None:
    other = path.with_name("other")
    other.write_text("two")
    files = ReloadingFiles([path, other], lambda *contents: [parse(content) for content in contents], clock=clock)
    assert files.content == ["one", "two"]
    for changed, text, expected in [(path, "three", ["three", "two"]), (other, "four", ["three", "four"])]:
        changed.write_text(text)
        clock.now += 1
        assert files.content == expected
    other.unlink()
    path.write_text("alone")
    clock.now += 1
    assert files.content == ["three", "four"], "all of them or none"


def test_what_no_file_can_be_opened_for_is_unknown(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = ReloadingFile(path, parse, clock=clock)
    with monkeypatch.context() as patch:
        patch.setattr("os.open", out_of_files)
        clock.now += 1
        assert (file.content, file.unknown_seconds) == ("one", 0), "it hasn't changed"
        path.write_text("three")
        for _ in range(3):
            clock.now += 10
            assert file.content == "one"
        assert file.unknown_seconds == 20
        assert caplog.messages == [f"can't read {path}: Too many open files; the last valid version stays in effect"]
    clock.now += 1
    assert (file.content, file.unknown_seconds) == ("three", 0)


def test_what_is_broken_or_gone_is_known(path: Path, clock: Clock) -> None:
    file = ReloadingFile(path, parse, clock=clock)
    path.write_text("broken")
    clock.now += 100
    assert (file.content, file.unknown_seconds) == ("one", 0)
    path.unlink()
    clock.now += 100
    assert (file.content, file.unknown_seconds) == ("one", 0)


def test_a_disk_that_hangs_stops_nobody_and_is_unknown(path: Path, clock: Clock) -> None:
    released = threading.Event()

    def hang(content: bytes) -> str:
        if content == b"slow":
            released.wait(30)
        return parse(content)

    file = Impatient(path, hang, patience=0.01, clock=clock)
    path.write_text("slow")
    for _ in range(3):
        clock.now += 30
        assert file.content == "one"
    assert file.unknown_seconds == 60
    released.set()
    for _ in range(1000):
        if file.content == "slow":
            break
        threading.Event().wait(0.01)
    assert (file.content, file.unknown_seconds) == ("slow", 0)


def test_a_file_is_read_later_if_no_thread_can_start(path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    file = ReloadingFile(path, parse, clock=clock)
    path.write_text("two")

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("threading.Thread.start", fail)
        clock.now += 10
        assert file.content == "one"
        clock.now += 10
        assert (file.content, file.unknown_seconds) == ("one", 10)
    clock.now += 10
    assert (file.content, file.unknown_seconds) == ("two", 0)


def test_what_changes_while_a_file_is_read_is_seen_at_the_next_look(path: Path, clock: Clock) -> None:
    known, is_read, may_go_on = {"one"}, threading.Event(), threading.Event()

    def parse_by_what_is_known(content: bytes) -> str:
        if content.decode() not in set(known):
            is_read.set()
            may_go_on.wait(30)
            raise ValueError("it isn't known")
        return content.decode()

    file = Impatient(path, parse_by_what_is_known, patience=0.01, clock=clock)
    path.write_text("two")
    clock.now += 10
    assert file.content == "one"
    assert is_read.wait(30)
    known.add("two")
    file.retry()
    may_go_on.set()
    for _ in range(1000):
        clock.now += 10
        if file.content == "two":
            break
        threading.Event().wait(0.01)
    assert file.content == "two"


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_only_regular_files(path: Path, kind: str) -> None:
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=rf"file is a (named )?{kind}, not a regular file$"):
        ReloadingFile(path, parse)


def test_a_byte_order_mark_is_left_out(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbfone")
    assert ReloadingFile(path, parse).content == "one"


def test_not_endless(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(16 * 1024 * 1024 + 1)
    with pytest.raises(ValueError, match="has more than 16 MiB"):
        ReloadingFile(path, parse)
