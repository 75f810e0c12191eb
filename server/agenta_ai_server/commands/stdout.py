"""Standard output, which may be closed, full, or without a reader, and lines for standard error."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agenta_ai.terminal import printable_json

if TYPE_CHECKING:
    from collections.abc import Iterator


class OutputError(Exception):
    """Standard output can't be written. The text says why.

    Attributes:
        is_unread: Whether that is because its reader has left.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__("it is closed" if error.errno == errno.EBADF else error.strerror)
        self.is_unread = isinstance(error, BrokenPipeError)


def prepare_streams() -> None:
    """Replace closed standard streams: otherwise a socket would get their numbers, which makes libuv abort.

    Writing to standard output fails as before, and what is written to standard error is lost. Characters that standard
    output doesn't know are written as escapes.
    """
    # Each gets the lowest number that is free, which is its own.
    sys.stdin = sys.stdin or os.fdopen(os.open(os.devnull, os.O_RDONLY))
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    sys.stderr = sys.stderr or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that doesn't know a character is shown its number.
        sys.stdout.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Print a text, at once. Characters that would manipulate a terminal are escaped: the text may be Agenta's.

    Raises:
        OutputError: It can't be printed.
    """
    with printed():
        # JSON stays JSON, and the escapes are as good for other texts.
        print(printable_json(text))


def report(line: str) -> None:
    """Print a line to standard error, at once, escaped so that no part of it can pass for another line."""
    print(printable_json(line).replace("\n", r"\n"), file=sys.stderr, flush=True)


@contextmanager
def printed() -> Iterator[None]:
    """Flush what is printed inside when the context ends, and not when the interpreter exits.

    Raises:
        OutputError: It can't be written.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        # The interpreter flushes once more when it exits, and must not fail then.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(error) from None
