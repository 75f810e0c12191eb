"""How log lines look: JSON for programs, text for people. Neither shows an exception's own words."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from agenta_ai_server.domain.call import CURRENT_CALL

if TYPE_CHECKING:
    from types import TracebackType

Format: TypeAlias = Literal["auto", "json", "text"]
FIELDS = "fields"
"""Name of the record's attribute that holds a dict of values besides the message, as ``extra`` passes it."""


def configure(level: str, form: Format) -> None:
    """Write the logs of this process to standard error.

    Args:
        level: The least severe ones, ``"debug"``, ``"info"``, ``"warning"`` or ``"error"``.
        form: ``"auto"`` is text on a terminal, and JSON otherwise.
    """
    # Nobody is told by which line, thread and process something was logged, and to find out takes half of the time:
    # https://docs.python.org/3/howto/logging.html#optimization
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    text = sys.stderr.isatty() if form == "auto" else form == "text"
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    if level == "debug":
        # Ours only. Libraries say several lines for each call, and nobody has seen to it that these hold no secret.
        logging.getLogger().setLevel(logging.INFO)
        logging.getLogger("agenta_ai_server").setLevel(logging.DEBUG)


_to_json = json.JSONEncoder(ensure_ascii=False, default=str).encode


class _Formatter(logging.Formatter):
    """Tells of an exception what it is and where it happened. Its text may quote a prompt or a credential."""

    def formatException(  # noqa: N802  # the base class's name
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        kind, _, frames = ei
        return "".join(traceback.format_tb(frames)) + (kind.__name__ if kind else "")


class TextFormatter(_Formatter):
    """Lines for people: time, level, logger and message, then ``name=value`` for all that isn't empty."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the base class's name
        """Return the line."""
        fields = getattr(record, FIELDS, {}).items()
        return super().formatMessage(record) + "".join(f" {name}={value}" for name, value in fields if value != "")


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
