"""The progress of a call."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable


class Stage(StrEnum):
    """The stage of a call."""

    QUEUED = "queued"
    STARTED = "started"
    ASKING = "asking"
    WAITING_FOR_RETRY = "waiting for retry"
    CHECKING = "checking"
    REPAIRING = "repairing"
    RUNNING_CASES = "running cases"


class Progress(NamedTuple):
    """One step of a call, for its watchers.

    Attributes:
        stage: What is happening.
        text: The same in a sentence for people.
        done: Steps that are done; 0 if they aren't counted.
        total: Steps in all; 0 if they aren't counted.
        queue_position: The call's place in the queue, from 1; 0 unless it is queued.
        retry_delay: Seconds until the next attempt; ``None`` unless the call waits for it.
    """

    stage: Stage
    text: str
    done: int = 0
    total: int = 0
    queue_position: int = 0
    retry_delay: float | None = None


Watch: TypeAlias = "Callable[[Progress], None]"
"""Takes the progress of a call. It returns at once and doesn't raise."""
