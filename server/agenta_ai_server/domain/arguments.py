"""The arguments of a tool call, which are read from its request late, and only once."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Protocol

from agenta_ai_server.domain.errors import Refused, forget_frames

if TYPE_CHECKING:
    from agenta_ai_server.domain.values import Json


class ReadArguments(Protocol):
    """Reads the arguments of a call from its request."""

    def __call__(self, *, max_values: int = ...) -> dict[str, Json]:
        """Return them. Raises ``Refused`` with ARGUMENTS_INVALID, also if there are more than ``max_values`` values."""


class LazyArguments:
    """The arguments of a call, read when they are first needed.

    What reads them is released as soon as it has done so: it holds the request, which may be far larger than what is
    read from it.

    Args:
        read: Reads them.
    """

    __slots__ = ("_read", "_refused", "_values")

    def __init__(self, read: ReadArguments) -> None:
        self._read: ReadArguments | None = read
        self._values: dict[str, Json] = {}
        self._refused: Refused | None = None

    def load(self) -> dict[str, Json]:
        """Return the arguments.

        Raises:
            Refused: ARGUMENTS_INVALID, each time.
        """
        if self._read:
            try:
                self._values = self._read()
            except Refused as refused:
                forget_frames(refused)
                self._refused = refused
            self._read = None
        if self._refused:
            # A raised error keeps the frames that it passes, and these keep the original.
            raise copy(self._refused)
        return self._values

    def load_few(self, max_values: int) -> bool:
        """Read the arguments, unless they are invalid or have too many values. Return whether they have been read."""
        if self._read:
            try:
                self._values = self._read(max_values=max_values)
            except Refused:
                return False
            self._read = None
        return not self._refused

    def release(self) -> None:
        """Forget the arguments and the request, because nothing needs them any more. From now on there are none."""
        self._read, self._values = None, {}


def already_read(arguments: dict[str, Json]) -> LazyArguments:
    """Return arguments that no request holds."""

    def read(*, max_values: int = 0) -> dict[str, Json]:
        return arguments

    return LazyArguments(read)
