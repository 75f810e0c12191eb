"""Reading and replacing files that settings and commands name."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 16 * 1024 * 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# With these errors no file can be opened, whichever it is.
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Exhausted(ValueError):
    """The file can't be opened, because descriptors or memory have run out. The text says so."""


def read_file(path: Path) -> bytes:
    """Return what a regular file holds, without a UTF-8 byte order mark.

    Raises:
        Exhausted: No file can be opened now.
        ValueError: It can't be read, isn't a regular file, or has more than 16 MiB. The sentence names the path.
    """
    try:
        # Don't block: opening a named pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
            if kind != stat.S_IFREG:
                raise ValueError(f"{path} is {KINDS.get(kind, 'something else')}, not a regular file")
            with open(descriptor, "rb", closefd=False) as file:
                content = file.read(MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        fault = Exhausted if error.errno in EXHAUSTED else ValueError
        raise fault(f"can't read {path}: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} has more than {MAX_BYTES // 1024**2} MiB")
    return content.removeprefix(BYTE_ORDER_MARK)


def replace_file(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file so that readers see all of the old or all of the new content, even after a crash.

    Args:
        path: The file; no symbolic link, which would be replaced itself.
        content: What it shall hold.
        mode: Permissions of a new file. One that is there keeps its owner and its permissions.

    Raises:
        OSError: It can't be written.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            if path.exists():
                # A server that could no longer read the file would stay with what it has read before.
                old = path.stat()
                os.fchown(descriptor, old.st_uid, old.st_gid)
                os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
