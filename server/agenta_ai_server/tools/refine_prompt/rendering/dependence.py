"""Finds on which inputs only the old texts depend, from what was rendered in different situations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Set

    from agenta_ai_server.tools.refine_prompt.rendering.shapes import Choice, Shape
    from agenta_ai_server.tools.refine_prompt.rendering.situations import Situation


# The longest text whose words are kept, in characters. Those of all situations are in memory at once.
_LONGEST: Final = 5_000


@dataclass(frozen=True, slots=True)
class _Said:
    """What some texts say, without them, as they may be too large to keep."""

    whole: int
    words: frozenset[str]

    @classmethod
    def by(cls, text: str) -> _Said:
        """Return what a text says."""
        return cls(hash(text), frozenset(text.split() if len(text) <= _LONGEST else ()))


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What was rendered in one situation.

    Attributes:
        choices: What is other than usual.
        mode: The situation's mode.
        old: What the old texts say.
        new: What the new texts say.
    """

    choices: frozenset[tuple[Shape, Choice]]
    mode: str
    old: _Said
    new: _Said


class Dependence:
    """Remembers what was rendered.

    Args:
        base: The situation that the others are variations of.
    """

    def __init__(self, base: Situation) -> None:
        self._usual = base.choices
        self._outcomes: dict[tuple[frozenset[tuple[Shape, Choice]], str], _Outcome] = {}
        # What either of the texts shows in any situation.
        self._shown: set[Shape] = set()

    def note(self, situation: Situation, old: str, new: str, shown: Set[Shape]) -> None:
        """Remember what the old and the new texts say in a situation, and what either of them shows."""
        choices = frozenset(pair for pair in situation.choices.items() if pair[1] != self._usual.get(pair[0]))
        self._outcomes[choices, situation.mode] = _Outcome(choices, situation.mode, _Said.by(old), _Said.by(new))
        self._shown |= shown

    def ignored(self) -> set[str]:
        """Return the names of what made a difference to the old texts only, whatever else was unusual."""
        return {
            shape.name
            for outcome in self._outcomes.values()
            for shape, before in self._steps(outcome)
            if outcome.old != before.old
            and outcome.new == before.new
            and not self._is_shown(shape)
            and not self._is_wording(before)
            and not self._is_default(outcome, before, shape)
        }

    def _is_shown(self, shape: Shape) -> bool:
        return not self._shown.isdisjoint(shape.walk())

    def _is_wording(self, before: _Outcome) -> bool:
        """Whether something that is usually shown is other than usual, and the new texts say no more than usual.

        What they say in its place is left to them: a default, a header, a bullet.
        """
        usual = self._outcomes.get((frozenset(), before.mode))
        says_more = usual and before.new.words - usual.new.words
        return not says_more and any(self._is_shown(shape) for shape, _ in before.choices)

    def _is_default(self, outcome: _Outcome, before: _Outcome, shape: Shape) -> bool:
        """Whether the new texts say the same by default, as ``styles.get(tone, 'Be brief.')``.

        They say it where the old ones do, which say nothing else by default. For another value of the input, the old
        ones say something else, and so do the new ones.
        """
        fresh = outcome.old.words - before.old.words
        others = (
            other
            for other in self._outcomes.values()
            if other.mode == before.mode
            and before.choices < other.choices
            and {changed for changed, _ in other.choices - before.choices} == {shape}
            and other.old != before.old
        )
        said = before.old.words < outcome.old.words and fresh <= outcome.new.words
        return said and not all(fresh <= other.old.words or fresh <= other.new.words for other in others)

    def _steps(self, outcome: _Outcome) -> Iterator[tuple[Shape, _Outcome]]:
        """Yield each input that isn't as usual, and what was rendered when all but that was the same."""
        for pair in outcome.choices:
            if before := self._outcomes.get((outcome.choices - {pair}, outcome.mode)):
                yield pair[0], before
