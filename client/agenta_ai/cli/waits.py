"""Reports why a call waits: the server asked it to retry later."""

from __future__ import annotations

import logging
import math
import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from agenta_ai.cli import streams

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenta_ai import CallFailed

_ADVICE = re.compile(r"[:;,.]? (?:try again|retry) in .*", re.IGNORECASE | re.DOTALL)
_SHORTEST_SECONDS = 1.0


class Waits(logging.Handler):
    """Writes a line for each wait of a second or more. Calls that wait at the same time share a line."""

    def __init__(self) -> None:
        super().__init__()
        self._until = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line for a failed attempt that the client has logged."""
        failure, delay = cast("tuple[CallFailed, float]", cast("Any", record.args))
        now = time.monotonic()
        if failure.retry_delay is None or delay < _SHORTEST_SECONDS or now < self._until:
            return
        self._until = now + delay
        streams.note(f"agenta-ai: {_ADVICE.sub('.', str(failure))} Waiting {math.ceil(delay)} s.")


@contextmanager
def told() -> Iterator[None]:
    """Write lines for as long as the context lasts."""
    # Nothing else is logged under this name, so each record has the attributes that emit expects.
    log, handler = logging.getLogger("agenta_ai.attempts"), Waits()
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
