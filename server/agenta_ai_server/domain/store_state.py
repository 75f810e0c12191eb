"""Whether processes share the counts and ids of calls."""

from __future__ import annotations

from enum import Enum, auto


class StoreState(Enum):
    """Where calls are counted or ids recorded: for all processes, for this one, or for this one as the store fails."""

    SHARED = auto()
    LOCAL = auto()
    FALLBACK = auto()
