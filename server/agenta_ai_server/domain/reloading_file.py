"""Files that are read again when they change."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

Content = TypeVar("Content")

Version: TypeAlias = list[tuple[int, ...] | None]

log = logging.getLogger(__name__)


class ReloadingFiles(Generic[Content]):
    """What some files say together, no more than ``every`` seconds behind them. Broken ones never replace good ones.

    Args:
        paths: The files.
        parse: Makes the content from the bytes of each file, one argument for each; raises ``ValueError`` with a
            sentence that quotes no secret.
        every: Seconds between looks at whether a file has changed.
        clock: Seconds that only go forward.

    Raises:
        ValueError: The files can't be read or parsed at the start.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        parse: Callable[..., Content],
        *,
        every: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths = tuple(paths)
        self._parse = parse
        self._every = every
        self._clock = clock
        self._looked = clock()
        # Taken before the content is read: a change in between is seen at the next look.
        self._version = self._stat()
        self._content = self._read()
        self._fault = ""

    @property
    def content(self) -> Content:
        """What they say; what they said last while one is broken or gone, which is logged once for each fault."""
        now = self._clock()
        if now - self._looked >= self._every:
            self._looked = now
            version = self._stat()
            if version != self._version or self._fault:
                self._renew(version)
        return self._content

    def _renew(self, version: Version) -> None:
        try:
            self._content = self._read()
        except ValueError as error:
            # The version stays the old one: what can't be read now may be readable unchanged at the next look.
            if self._fault != str(error):
                self._fault = str(error)
                log.error("%s; what was read before stays in force", error)
        else:
            self._version = version
            self._fault = ""
            log.info("read %s again, because it has changed", self._names)

    @property
    def _names(self) -> str:
        return ", ".join(str(path) for path in self._paths)

    def _stat(self) -> Version:
        return [_version(path) for path in self._paths]

    def _read(self) -> Content:
        try:
            return self._parse(*(path.read_bytes() for path in self._paths))
        except OSError as error:
            raise ValueError(f"can't read {error.filename}: {error.strerror}") from None
        except ValueError as error:
            raise ValueError(f"{self._names}: {error}") from None


class ReloadingFile(ReloadingFiles[Content]):
    """As :class:`ReloadingFiles`, for one file."""

    def __init__(
        self,
        path: Path,
        parse: Callable[[bytes], Content],
        *,
        every: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__([path], parse, every=every, clock=clock)


def _version(path: Path) -> tuple[int, ...] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino
