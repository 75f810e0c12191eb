"""Files that are reloaded when they change."""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from agenta_ai_server.files.contents import Exhausted, read_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

Content = TypeVar("Content")

Version: TypeAlias = list[tuple[int, ...] | None]

log = logging.getLogger(__name__)


class NotYet(ValueError):
    """The content of the files can't be used yet, but may become usable without a change."""


class _Unusable(ValueError):
    """The content of this version of the files can't be used."""

    def __init__(self, sentence: str, version: Version) -> None:
        super().__init__(sentence)
        self.version = version


class ReloadingFiles(Generic[Content]):
    """The content of some files, at most ``every`` seconds old. A broken version never replaces a valid one.

    Files are checked and read in a thread, so that a hanging file system blocks no one.

    Args:
        paths: The files, which must be regular ones. A byte order mark is left out.
        parse: Makes the content from the bytes of each file, one argument for each; raises ``ValueError`` with a
            sentence that quotes no secret, or ``NotYet`` to be called again at the next check although nothing has
            changed. It is called in a thread.
        every: Seconds between checks for changes.
        patience: Seconds for which a caller whose access starts a check waits for it at most.
        clock: Monotonic clock, in seconds.

    Raises:
        ValueError: The files can't be read or parsed at the start.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        parse: Callable[..., Content],
        *,
        every: float = 1.0,
        patience: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths = tuple(paths)
        self._parse = parse
        self._every = every
        self._patience = patience
        self._clock = clock
        self._checked_at = clock()
        self._checking = threading.Lock()
        self._content, self._version = self._load()
        self._fault = ""
        # What can't be parsed can't be parsed later either, unless it changes.
        self._unusable: Version = []
        self._shall_retry = False
        # Since when the content of the files isn't known.
        self._unknown_since = math.inf

    @property
    def content(self) -> Content:
        """The current content; the last valid one while a file is broken or gone. Each fault is logged once."""
        now = self._clock()
        if now - self._checked_at >= self._every and self._checking.acquire(blocking=False):
            self._checked_at = now
            self._unknown_since = min(self._unknown_since, now)
            done = threading.Event()
            try:
                threading.Thread(target=self._check, args=(done,), name="read-files", daemon=True).start()
            except RuntimeError:
                # No thread can be started now; later one may.
                self._checking.release()
            else:
                done.wait(self._patience)
        return self._content

    @property
    def is_broken(self) -> bool:
        """Whether the files can't be read or used as they are, so that their last valid version is in effect."""
        return bool(self._fault)

    def retry(self) -> None:
        """Parse unusable files again at the next check although they haven't changed: what they depend on has."""
        self._shall_retry = True

    @property
    def unknown_seconds(self) -> float:
        """For how long the content of the files hasn't been known, because none can be opened or reading them hangs.

        A file that is broken or gone is known to be so.
        """
        return max(self._clock() - self._unknown_since, 0.0)

    def _check(self, done: threading.Event) -> None:
        try:
            version = self._stat()
            # Not by retry() itself: what they depend on may change while they are parsed.
            if self._shall_retry:
                self._shall_retry = False
                self._unusable = []
            if version != self._unusable and (version != self._version or self._fault):
                self._reload()
            else:
                self._unknown_since = math.inf
        except Exception as error:
            log.error("reading %s failed because of a bug: %s", self._path_list, type(error).__name__)
        finally:
            self._checking.release()
            done.set()

    def _reload(self) -> None:
        try:
            content, version = self._load()
        except ValueError as error:
            if not isinstance(error, Exhausted):
                self._unknown_since = math.inf
            # The version stays the old one: what can't be read now may be readable unchanged at the next check.
            self._unusable = error.version if isinstance(error, _Unusable) else []
            if self._fault != str(error):
                self._fault = str(error)
                log.error("%s; the last valid version stays in effect", error)
        else:
            self._content = content
            self._version = version
            self._fault = ""
            self._unusable = []
            self._unknown_since = math.inf
            log.info("read %s again, because it has changed", self._path_list)

    @property
    def _path_list(self) -> str:
        return ", ".join(str(path) for path in self._paths)

    def _stat(self) -> Version:
        return [_version(path) for path in self._paths]

    def _load(self) -> tuple[Content, Version]:
        # The version is taken before the content is read: a change in between is seen at the next check.
        version = self._stat()
        contents = [read_file(path) for path in self._paths]
        try:
            return self._parse(*contents), version
        except NotYet as error:
            raise NotYet(f"{self._path_list}: {error}") from None
        except ValueError as error:
            raise _Unusable(f"{self._path_list}: {error}", version) from None


class ReloadingFile(ReloadingFiles[Content]):
    """As :class:`ReloadingFiles`, for one file."""

    def __init__(
        self,
        path: Path,
        parse: Callable[[bytes], Content],
        *,
        every: float = 1.0,
        patience: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__([path], parse, every=every, patience=patience, clock=clock)


class ReloadingDocument(ReloadingFiles[Content]):
    """As :class:`ReloadingFiles`, for one file that names others, which count as part of it.

    Args:
        path: The file.
        parse: As there; also takes a function that reads another file, and raises ``ValueError`` if it can't.
        every: As there.
        patience: As there.
        clock: As there.
    """

    def __init__(
        self,
        path: Path,
        parse: Callable[[bytes, Callable[[Path], bytes]], Content],
        *,
        every: float = 1.0,
        patience: float = 0.25,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._others: dict[Path, tuple[int, ...] | None] = {}
        self._is_unread = False
        super().__init__(
            [path], lambda content: parse(content, self._read), every=every, patience=patience, clock=clock
        )

    def _stat(self) -> Version:
        return [*super()._stat(), *map(_version, self._others)]

    def _load(self) -> tuple[Content, Version]:
        self._others = {}
        self._is_unread = False
        (version, *_) = self._stat()
        try:
            content, _ = super()._load()
        except _Unusable as error:
            if self._is_unread:
                raise ValueError(str(error)) from None
            raise _Unusable(str(error), [version, *self._others.values()]) from None
        return content, [version, *self._others.values()]

    def _read(self, path: Path) -> bytes:
        self._others.setdefault(path, _version(path))
        try:
            return read_file(path)
        except ValueError:
            self._is_unread = True
            raise


def _version(path: Path) -> tuple[int, ...] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino
