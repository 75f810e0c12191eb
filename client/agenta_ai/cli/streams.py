"""Files, standard streams and JSON."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from agenta_ai.terminal import one_line, printable, printable_json

_BOM = b"\xef\xbb\xbf"


def shown(name: str) -> str:
    """Return the name of a file for an error."""
    return "standard input" if name == "-" else name


def read_bytes(name: str) -> bytes:
    """Return what a file holds; ``-`` is standard input.

    Raises:
        InvalidInput: It can't be read.
    """
    from agenta_ai import InvalidInput

    if name == "-" and sys.stdin is None:
        raise InvalidInput(f"Cannot read {shown(name)}: it is closed.")
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        raise InvalidInput(f"Cannot read {shown(name)}: {error.strerror}.") from None


def read_text(name: str) -> tuple[str, bytes]:
    """Return the text of a file, and the byte order mark before it, which editors on Windows put there.

    Raises:
        InvalidInput: It can't be read, or isn't text in UTF-8.
    """
    from agenta_ai import InvalidInput

    content = read_bytes(name)
    mark = _BOM if content.startswith(_BOM) else b""
    try:
        return content[len(mark) :].decode(), mark
    except UnicodeDecodeError:
        raise InvalidInput(f"Cannot read {shown(name)}: it is not text in UTF-8.") from None


def check_writable(name: str, option: str) -> None:
    """Check, before the model is billed, that its answer can be written.

    Raises:
        InvalidInput: The file can't be written.
    """
    from agenta_ai import InvalidInput

    kept_in = name if os.path.exists(name) else os.path.dirname(name) or "."
    if os.path.isdir(name) or not os.access(kept_in, os.W_OK):
        raise InvalidInput(f"Cannot write {name}. Choose another {option}.")


def write(name: str, text: str, mark: bytes = b"") -> None:
    """Write a file; ``-`` is standard output. A regular file is replaced as a whole, and keeps its mode.

    A terminal gets unsafe characters escaped, since the text may be a server's.

    Raises:
        InvalidInput: It can't be written.
    """
    from agenta_ai import InvalidInput

    if name == "-":
        sys.stdout.write(printable(text) if is_terminal(sys.stdout) else text)
        return
    # Half of a surrogate pair isn't text, but JSON can escape it.
    content = mark + text.encode(errors="backslashreplace")
    try:
        path = Path(os.path.realpath(name))
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            path.write_bytes(content)
        else:
            _write_file(path, content)
    except OSError as error:
        raise InvalidInput(f"Cannot write {name}: {error.strerror}.") from None


def write_new(text: str, suffix: str) -> str:
    """Write a text to a new temporary file, and return its name.

    Raises:
        InvalidInput: It can't be written.
    """
    from agenta_ai import InvalidInput

    try:
        handle, name = tempfile.mkstemp(suffix, "agenta-ai-")
        os.close(handle)
    except OSError as error:
        raise InvalidInput(f"Cannot write a temporary file: {error.strerror}. Set TMPDIR.") from None
    write(name, text)
    return name


def _write_file(path: Path, content: bytes) -> None:
    if not os.access(path.parent, os.W_OK):  # the file itself may be writable all the same
        path.write_bytes(content)
        return
    try:
        _replace(path, content)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        # It is a mount point, such as a file that a container shares with its host.
        path.write_bytes(content)


def _replace(path: Path, content: bytes) -> None:
    handle, temporary = tempfile.mkstemp(prefix=".agenta-ai-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        if path.exists():
            shutil.copymode(path, temporary)
        else:
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def say(text: str) -> None:
    """Write a line to standard output."""
    print(one_line(text))


def say_text(text: str) -> None:
    """Write a text of any number of lines to standard output."""
    print(printable(text))


def note(text: str) -> None:
    """Write a line to standard error. If that is closed, ``print`` would write to standard output."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(one_line(text), file=sys.stderr)


def print_json(value: object) -> None:
    """Write a value to standard output as JSON."""
    print(to_json(value))


def to_json(value: object, *, indent: int | None = 2) -> str:
    """Return a value as JSON, with unsafe characters escaped, also those that JSON allows."""
    return printable_json(json.dumps(value, ensure_ascii=False, indent=indent, default=_jsonable))


def _jsonable(value: object) -> object:
    import base64
    import dataclasses
    import datetime

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        # They are for programs that call the server themselves.
        fields.pop("trailers", None)
        return fields
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    raise TypeError(f"no JSON for {type(value).__name__}")


def is_terminal(stream: TextIO | None) -> bool:
    """Return whether the stream is a terminal."""
    return stream is not None and stream.isatty()
