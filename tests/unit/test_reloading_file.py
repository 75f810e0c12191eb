from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from agenta_ai_server.domain.reloading_file import ReloadingFile, ReloadingFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOGGER = "agenta_ai_server.domain.reloading_file"


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
        (lambda path: path.write_text("broken"), "file: it is broken; what was read before stays in force"),
        (lambda path: path.unlink(), "can't read .*file: No such file or directory; what was read before"),
        (lambda path: (path.unlink(), path.mkdir()), "can't read .*file: Is a directory; what was read before"),
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


def test_reads_again_what_could_not_be_read_for_a_moment(
    path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ReloadingFile(path, parse, clock=clock)
    path.write_text("three")
    with monkeypatch.context() as patch:

        def fail(self: Path) -> bytes:
            raise OSError(24, "Too many open files", str(self))

        patch.setattr("pathlib.Path.read_bytes", fail)
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
