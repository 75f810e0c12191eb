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
    """What some files say together, no more than ``every`` seconds behind them. Broken ones never replace good ones.

    Files are checked and read in a thread, so that a hanging file system blocks no one.

    Args:
        paths: The files, which must be regular ones. A byte order mark is left out.
        parse: Makes the content from the bytes of each file, one argument for each; raises ``ValueError`` with a
            sentence that quotes no secret, ``NotYet`` if it is to be called again at the next look although nothing has
            changed. It is called in a thread.
        every: Seconds between checks for changes of a file.
        patience: Seconds that the one who causes such a look waits for it at most.
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
        self._looked = clock()
        self._looking = threading.Lock()
        self._content, self._version = self._load()
        self._fault = ""
        # What can't be parsed can't be parsed later either, unless it changes.
        self._unusable: Version = []
        # Since when it isn't known what the files say.
        self._unknown_since = math.inf

    @property
    def content(self) -> Content:
        """What they say; what they said last while one is broken or gone, which is logged once for each fault."""
        now = self._clock()
        if now - self._looked >= self._every and self._looking.acquire(blocking=False):
            self._looked = now
            self._unknown_since = min(self._unknown_since, now)
            done = threading.Event()
            try:
                threading.Thread(target=self._look, args=(done,), name="read-files", daemon=True).start()
            except RuntimeError:
                # No thread can be started now; later one may.
                self._looking.release()
            else:
                done.wait(self._patience)
        return self._content

    @property
    def is_broken(self) -> bool:
        """Whether they can't be read or used as they are now, so that what they said last is in effect."""
        return bool(self._fault)

    def retry(self) -> None:
        """Parse at the next look what couldn't be used, although it hasn't changed: what it is compared with has."""
        self._unusable = []

    @property
    def unknown_seconds(self) -> float:
        """For how long it hasn't been known what they say: no file can be opened, or reading them hangs.

        A file that is broken or gone is known to be so.
        """
        return max(self._clock() - self._unknown_since, 0.0)

    def _look(self, done: threading.Event) -> None:
        try:
            version = self._stat()
            if version != self._unusable and (version != self._version or self._fault):
                self._renew()
            else:
                self._unknown_since = math.inf
        except Exception as error:
            log.error("reading %s failed because of a bug: %s", self._names, type(error).__name__)
        finally:
            self._looking.release()
            done.set()

    def _renew(self) -> None:
        try:
            content, version = self._load()
        except ValueError as error:
            if not isinstance(error, Exhausted):
                self._unknown_since = math.inf
            # The version stays the old one: what can't be read now may be readable unchanged at the next look.
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
            log.info("read %s again, because it has changed", self._names)

    @property
    def _names(self) -> str:
        return ", ".join(str(path) for path in self._paths)

    def _stat(self) -> Version:
        return [_version(path) for path in self._paths]

    def _load(self) -> tuple[Content, Version]:
        # The version is taken before the content is read: a change in between is seen at the next look.
        version = self._stat()
        contents = [read_file(path) for path in self._paths]
        try:
            return self._parse(*contents), version
        except NotYet as error:
            raise NotYet(f"{self._names}: {error}") from None
        except ValueError as error:
            raise _Unusable(f"{self._names}: {error}", version) from None


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
        parse: As there; also takes what reads another file and raises ``ValueError`` if it can't.
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
        self._named: dict[Path, tuple[int, ...] | None] = {}
        self._is_unread = False
        super().__init__(
            [path], lambda content: parse(content, self._read), every=every, patience=patience, clock=clock
        )

    def _stat(self) -> Version:
        return [*super()._stat(), *map(_version, self._named)]

    def _load(self) -> tuple[Content, Version]:
        self._named = {}
        self._is_unread = False
        (version, *_) = self._stat()
        try:
            content, _ = super()._load()
        except _Unusable as error:
            if self._is_unread:
                raise ValueError(str(error)) from None
            raise _Unusable(str(error), [version, *self._named.values()]) from None
        return content, [version, *self._named.values()]

    def _read(self, path: Path) -> bytes:
        self._named.setdefault(path, _version(path))
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
