"""Formats log lines: JSON for programs, text for people. Neither shows an exception's message.

Of other libraries' records only the template is written, without what they put into it: grpc logs metadata that isn't
UTF-8 as a whole, before anybody has been authenticated.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import re
import sys
import time
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeAlias

from agenta_ai_server.domain.call import CURRENT_CALL
from agenta_ai_server.telemetry.log_stream import LogStream

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

Format: TypeAlias = Literal["auto", "json", "text"]
OURS = "agenta_ai_server"
FIELDS = "fields"
"""Name of the record's attribute that holds a dict of values besides the message, as ``extra`` passes it."""

LEFT_OUT = "log lines were dropped, because the log's reader didn't read them in time"
DRAIN_SECONDS = 1.0
"""How long the end of the process waits for what reads the log."""
# All that a record holds.
_BLANK = vars(logging.makeLogRecord({}))

# What ends a value in a line of text.
AMBIGUOUS = re.compile('[ ="]')

MAX_TEMPLATE_CHARACTERS = 200
# As in the % operator's templates.
PLACEHOLDER = re.compile(r"%(\([^)]*\))?[-#0 +]*[0-9*]*(\.[0-9*]+)?[a-zA-Z]")


def configure(level: str, form: Format) -> None:
    """Write the logs of this process to standard error.

    Args:
        level: The least severe ones, ``"debug"``, ``"info"``, ``"warning"`` or ``"error"``.
        form: ``"auto"`` is text on a terminal, and JSON otherwise.
    """
    # The log doesn't show the line of code, the thread and the process, which would take half of the time:
    # https://docs.python.org/3/howto/logging.html#optimization
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    text = bool(sys.stderr and sys.stderr.isatty()) if form == "auto" else form == "text"
    formatter = TextFormatter() if text else JsonFormatter()
    handler = BoundedHandler(_standard_error(formatter))
    handler.setFormatter(formatter)
    logging.basicConfig(level=max(logging.getLevelName(level.upper()), logging.WARNING), handlers=[handler])
    logging.getLogger(OURS).setLevel(level.upper())


def _standard_error(formatter: logging.Formatter) -> LogStream:
    """Return the stream to standard error, which has a moment to write waiting lines when the process ends."""

    def left_out(lines: int) -> str:
        event = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING", "msg": LEFT_OUT}
        return formatter.format(logging.makeLogRecord(event | {FIELDS: {"left_out": lines}}))

    # A process may be started without standard error, whose number another file would get.
    descriptor = sys.stderr.fileno() if sys.stderr else os.open(os.devnull, os.O_WRONLY)
    stream = LogStream(descriptor, left_out)
    atexit.register(stream.drain, DRAIN_SECONDS)
    return stream


def log_event(logger: logging.Logger, level: int, message: str, fields: dict[str, Any]) -> None:
    """Log a message and its fields, if the logger is on for the level.

    The record is made by hand, because ``Logger.log`` takes 3 µs longer, 0.3% of a call, even as :func:`configure`
    leaves it: it takes the path of the code apart, and checks the name of each extra value.

    Args:
        logger: One of this service's.
        level: As the library counts it.
        message: The same for each event of its kind.
        fields: Values besides, by their names.
    """
    if logger.isEnabledFor(level):
        now = time.time()
        record = logging.LogRecord.__new__(logging.LogRecord)
        vars(record).update(
            _BLANK, name=logger.name, levelno=level, levelname=logging.getLevelName(level), msg=message,
            created=now, msecs=int(now % 1 * 1000), fields=fields,
        )  # fmt: skip
        logger.handle(record)


class BoundedHandler(logging.StreamHandler["TextIO | LogStream"]):
    """Writes our records, and only the harmless part of other libraries' records.

    Args:
        stream: Where to.
        lines: How many lines of one logger of a library are written within a window, at least 1.
        seconds: Length of a window.
        clock: Monotonic clock, in seconds.
    """

    def __init__(
        self,
        stream: TextIO | LogStream,
        *,
        lines: int = 10,
        seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(stream)
        self._lines = lines
        self._seconds = seconds
        self._clock = clock
        self._begin = 0.0
        self._written: dict[str, int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record."""
        if record.name == OURS or record.name.startswith(f"{OURS}."):
            super().emit(record)
        elif (written := self._count(record.name)) <= self._lines:
            super().emit(_harmless(record, is_last=written == self._lines))

    def _count(self, logger: str) -> int:
        now = self._clock()
        if now - self._begin >= self._seconds:
            self._begin = now
            self._written.clear()
        self._written[logger] = self._written.get(logger, 0) + 1
        return self._written[logger]


def _harmless(record: logging.LogRecord, *, is_last: bool) -> logging.LogRecord:
    """Return a copy that has numbers for arguments, and no text but the first line of the template."""
    template = str(record.msg).partition("\n")[0][:MAX_TEMPLATE_CHARACTERS]
    arguments = record.args if isinstance(record.args, tuple) else ()
    shown = iter(arguments)
    message = PLACEHOLDER.sub(lambda _: _shown(next(shown, None)), template)
    if is_last:
        message += " (further lines of this logger are omitted for a while)"
    made = logging.makeLogRecord(vars(record) | {"msg": message, "args": ()})
    made.exc_text = made.stack_info = None
    return made


def _shown(value: object) -> str:
    return str(value) if isinstance(value, int | float) else "…"


_to_json = json.JSONEncoder(ensure_ascii=False, default=str).encode


class _Formatter(logging.Formatter):
    """Formats an exception as its type and place. Its text may quote a prompt or a credential."""

    def formatException(  # noqa: N802  # the base class's name
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        kind, _, frames = ei
        return "".join(traceback.format_tb(frames)) + (kind.__name__ if kind else "")


class TextFormatter(_Formatter):
    """Lines for people: time, level, logger and message, then ``name=value`` for all that isn't empty, as in logfmt."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the base class's name
        """Return the line."""
        fields = getattr(record, FIELDS, {}).items()
        shown = "".join(f" {name}={_quoted(value)}" for name, value in fields if value != "")
        return super().formatMessage(record) + shown


def _quoted(value: object) -> str:
    """Return the value, as a string of JSON if it could be taken for further fields or lines: ids may hold anything."""
    text = str(value)
    if text.isprintable():
        return _to_json(text) if AMBIGUOUS.search(text) else text
    return json.dumps(text)


class JsonFormatter(_Formatter):
    """One JSON object for each line: time, level, logger and message, then the record's fields.

    What is logged while a call is worked on has its id and its trace, so that all lines of a call are found.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if fields := getattr(record, FIELDS, None):
            line.update(fields)
        elif call := CURRENT_CALL.get():
            line.update(call=call.id, trace_id=call.trace_id)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _to_json(line)
