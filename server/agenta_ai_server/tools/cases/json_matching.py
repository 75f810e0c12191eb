"""Decide whether one JSON value equals or contains another, like PostgreSQL's ``@>``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agenta_ai_server.domain.values import Json

# Pairs of values that are compared. Lists are compared each with each.
MAX_COMPARISONS = 200_000


class TooManyComparisons(ValueError):
    """The comparison would take too long."""


def equals(actual: Json, expected: Json) -> bool:
    """Say whether two values are the same JSON. ``1`` and ``1.0`` are; ``1`` and ``true`` aren't."""
    waiting = [(actual, expected)]
    while waiting:
        left, right = waiting.pop()
        if isinstance(left, dict) and isinstance(right, dict):
            if left.keys() != right.keys():
                return False
            waiting.extend((value, right[key]) for key, value in left.items())
        elif isinstance(left, list) and isinstance(right, list):
            if len(left) != len(right):
                return False
            waiting.extend(zip(left, right, strict=True))
        elif not _is_same_scalar(left, right):
            return False
    return True


def contains(actual: Json, expected: Json) -> bool:
    """Say whether ``actual`` contains ``expected``.

    An object contains another if it has all its keys, with values that contain the other's. A list contains another if
    each of the other's items is contained in one of its own, in any order and number. Anything else contains only its
    equal.

    Raises:
        TooManyComparisons: After ``MAX_COMPARISONS``.
    """
    return _Containment().holds(actual, expected)


class _Containment:
    def __init__(self) -> None:
        self._left = MAX_COMPARISONS

    def holds(self, actual: Json, expected: Json) -> bool:
        self._left -= 1
        if self._left < 0:
            raise TooManyComparisons(f"comparing the output takes more than {MAX_COMPARISONS:,} steps")
        if isinstance(expected, dict):
            return isinstance(actual, dict) and all(
                key in actual and self.holds(actual[key], value) for key, value in expected.items()
            )
        if isinstance(expected, list):
            return isinstance(actual, list) and all(any(self.holds(each, item) for each in actual) for item in expected)
        return _is_same_scalar(actual, expected)


def _is_same_scalar(left: Json, right: Json) -> bool:
    # Python takes True for 1.
    return isinstance(left, bool) == isinstance(right, bool) and left == right
