"""Finds on which inputs only the old texts depend, from what was rendered in different situations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Set

    from agenta_ai_server.tools.refine_prompt.rendering.shapes import Choice, Shape
    from agenta_ai_server.tools.refine_prompt.rendering.situations import Situation


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What was rendered in one situation.

    Attributes:
        choices: What is other than usual.
        mode: The situation's mode.
        old: Stands for what the old texts say. The texts themselves would be too large to keep.
        new: Stands for what the new texts say.
        shown: What either of them shows.
    """

    choices: frozenset[tuple[Shape, Choice]]
    mode: str
    old: int
    new: int
    shown: Set[Shape]


class Dependence:
    """Remembers what was rendered.

    Args:
        base: The situation that the others are variations of.
    """

    def __init__(self, base: Situation) -> None:
        self._usual = base.choices
        self._outcomes: dict[tuple[frozenset[tuple[Shape, Choice]], str], _Outcome] = {}

    def note(self, situation: Situation, old: str, new: str, shown: Set[Shape]) -> None:
        """Remember what the old and the new texts say in a situation, and what either of them shows."""
        choices = frozenset(pair for pair in situation.choices.items() if pair[1] != self._usual.get(pair[0]))
        self._outcomes[choices, situation.mode] = _Outcome(choices, situation.mode, hash(old), hash(new), shown)

    def ignored(self) -> set[str]:
        """Return the names of what made a difference to the old texts only, whatever else was unusual."""
        return {
            shape.name
            for outcome in self._outcomes.values()
            for shape, before in self._steps(outcome)
            if outcome.old != before.old
            and outcome.new == before.new
            and not (outcome.shown | before.shown) & set(shape.walk())
        }

    def _steps(self, outcome: _Outcome) -> Iterator[tuple[Shape, _Outcome]]:
        """Yield each input that isn't as usual, and what was rendered when all but that was the same."""
        for pair in outcome.choices:
            if before := self._outcomes.get((outcome.choices - {pair}, outcome.mode)):
                yield pair[0], before
