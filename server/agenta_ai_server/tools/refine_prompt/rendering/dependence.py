"""Finds on which inputs only the old texts depend, from what was rendered in different situations."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Set

    from agenta_ai_server.tools.refine_prompt.rendering.shapes import Choice, Shape
    from agenta_ai_server.tools.refine_prompt.rendering.situations import Situation


# The longest text that is kept, and the longest one whose words are told apart, in characters. Those of all situations
# are in memory at once.
_KEPT: Final = 5_000
_LONGEST: Final = 200_000
# A word, a number, or a value.
_WORD = re.compile(r"\w+")

# How many words a number may exchange for others without saying anything else.
_WORDS_OF_FORM: Final = {1, 2}

# How many times more each word is in one text than in another; fewer if negative.
_Change: TypeAlias = dict[str, int]


class _Usual:
    """The first text that was rendered in a mode. Of long other ones, only what differs from it is kept."""

    def __init__(self, text: str) -> None:
        self._text = text

    def changed(self, text: str) -> _Change:
        """Return what the words of a text differ by."""
        if text == self._text or max(len(text), len(self._text)) > _LONGEST:
            return {}
        start = self._text.rfind(" ", 0, _alike(self._text, text)) + 1
        usual, other = self._text[start:], text[start:]
        end = usual.find(" ", len(usual) - _alike(usual[::-1], other[::-1]))
        rest = len(usual) - end if end >= 0 else 0
        before, after = (Counter(_WORD.findall(each[: len(each) - rest])) for each in (usual, other))
        return _change(before, after)

    @cached_property
    def words(self) -> Counter[str]:
        """How many times each word is in it."""
        return Counter(_WORD.findall(self._text))


class _Said:
    """What a text says.

    Args:
        usual: What is said usually.
        text: The text.
    """

    def __init__(self, usual: _Usual, text: str) -> None:
        self.whole = hash(text)
        self._usual, self._text = usual, text
        self._words: _Change | None = None
        if len(text) > _KEPT:
            _ = self.words

    @property
    def words(self) -> _Change:
        """The words that it says more or fewer times than usual."""
        if self._words is None:
            # Mostly not needed, and so not counted before.
            self._words, self._text = self._usual.changed(self._text), ""
        return self._words

    def has(self, words: Set[str]) -> bool:
        """Whether it says all of these words."""
        return all(self._usual.words[word] + self.words.get(word, 0) > 0 for word in words)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What was rendered in one situation.

    Attributes:
        choices: What is other than usual.
        mode: The situation's mode.
        old: What the old texts say.
        new: What the new texts say.
        fresh: The values that only the new texts show.
    """

    choices: frozenset[tuple[Shape, Choice]]
    mode: str
    old: _Said
    new: _Said
    fresh: Set[str]


# Choices that were made, and what was rendered without each.
_Steps: TypeAlias = "list[tuple[tuple[Shape, Choice], _Outcome]]"
# What was rendered with neither of two choices, with one and with the other; and the inputs.
_Square: TypeAlias = "tuple[_Outcome, _Outcome, _Outcome, tuple[Shape, Shape]]"


class Dependence:
    """Remembers what was rendered.

    Args:
        markers: What each of the values stands for, also of those to come.
    """

    def __init__(self, markers: Mapping[str, Shape]) -> None:
        self._markers = markers
        self._outcomes: dict[tuple[frozenset[tuple[Shape, Choice]], str], _Outcome] = {}
        # By mode, the usual old and new texts.
        self._texts: dict[str, tuple[_Usual, _Usual]] = {}
        # What the old texts show in any situation, and what either of them shows.
        self._shown_by_old: set[Shape] = set()
        self._shown: set[Shape] = set()

    def note(
        self,
        situation: Situation,
        said: tuple[str, str],
        shown: tuple[Set[Shape], Set[Shape]],
        fresh: Set[str],
    ) -> None:
        """Remember what the texts say in a situation.

        Args:
            situation: What differs from the usual one.
            said: What the old texts say, and what the new ones say.
            shown: Which inputs the old texts show, and which the new ones show.
            fresh: The values that only the new texts show.
        """
        old, new = said
        usual_old, usual_new = self._texts.setdefault(situation.mode, (_Usual(old), _Usual(new)))
        self._outcomes[situation.key] = _Outcome(*situation.key, _Said(usual_old, old), _Said(usual_new, new), fresh)
        self._shown_by_old |= shown[0]
        self._shown.update(*shown)

    def ignored(self) -> set[str]:
        """Return the names of what made a difference to the old texts only, whatever else was unusual."""
        return {
            shape.name
            for outcome, steps in self._steps
            for (shape, choice), before in steps
            if self._is_lost(shape, choice, before, outcome)
            and not self._is_wording(before)
            and not self._is_default(outcome, before, shape)
        }

    def separated(self) -> set[str]:
        """Return the names of what only the old texts take together, as ``a and b``.

        The new ones say as much because of the one input whatever the other one is.
        """
        return {
            shape.name
            for both, steps in self._steps
            for neither, one, other, shapes in self._squares(both, steps)
            if _depend(neither.old.words, one.old.words, other.old.words, both.old.words)
            and _change(neither.new.words, one.new.words) == _change(other.new.words, both.new.words)
            and not self._is_wording(neither)
            for shape in shapes
        }

    def exposed(self) -> Iterator[tuple[str, set[str]]]:
        """Yield each input that only in the old texts decides whether some values are shown, and their names."""
        for outcome, steps in self._steps:
            for (shape, _), before in steps:
                fresh = outcome.fresh | before.fresh
                if not fresh or self._is_shown_by_old(shape) or self._is_default(outcome, before, shape):
                    continue
                change = _change(before.old.words, outcome.old.words)
                if names := {self._markers[word].name for word in change.keys() & fresh & self._markers.keys()}:
                    yield shape.name, names

    def _is_lost(self, shape: Shape, choice: Choice, before: _Outcome, outcome: _Outcome) -> bool:
        """Whether a choice makes a difference to the old texts only, besides the value that they show."""
        if not self._is_shown_by_old(shape):
            return outcome.old.whole != before.old.whole and outcome.new.whole == before.new.whole
        if not choice.constant:
            return False  # what is said around a value that isn't there is left to the new texts
        value = {word.casefold() for word in _WORD.findall(str(choice.constant))}
        own = set(shape.walk())
        old, new = (
            [
                count
                for word, count in _change(usual.words, other.words).items()
                if word.casefold() not in value and self._markers.get(word) not in own
            ]
            for usual, other in ((before.old, outcome.old), (before.new, outcome.new))
        )
        # A number may only change the form of some words: "There is 1 item", "There are 2 items".
        gained, lost = sum(max(count, 0) for count in old), sum(max(-count, 0) for count in old)
        is_form = isinstance(choice.constant, int | float) and {gained, lost} <= _WORDS_OF_FORM
        return bool(old) and not new and not is_form

    def _is_shown_by_old(self, shape: Shape) -> bool:
        return not self._shown_by_old.isdisjoint(shape.walk())

    def _is_shown(self, shape: Shape) -> bool:
        return not self._shown.isdisjoint(shape.walk())

    def _is_wording(self, before: _Outcome) -> bool:
        """Whether something that is usually shown is other than usual, and the new texts say no more than usual.

        What they say in its place is left to them: a default, a header, a bullet.
        """
        usual = self._outcomes.get((frozenset(), before.mode))
        says_more = usual and any(count > 0 for count in _change(usual.new.words, before.new.words).values())
        return not says_more and any(self._is_shown(shape) for shape, _ in before.choices)

    def _is_default(self, outcome: _Outcome, before: _Outcome, shape: Shape) -> bool:
        """Whether the new texts say the same by default, as ``styles.get(tone, 'Be brief.')``.

        They say it where the old ones do, which say nothing else by default. For another value of the input, the old
        ones say something else, and so do the new ones.
        """
        change = _change(before.old.words, outcome.old.words)
        fresh = change.keys()
        if not change or min(change.values()) < 0 or not outcome.new.has(fresh):
            return False
        others = (
            other
            for other in self._outcomes.values()
            if other.mode == before.mode
            and before.choices < other.choices
            and {changed for changed, _ in other.choices - before.choices} == {shape}
            and other.old.whole != before.old.whole
        )
        return not all(other.old.has(fresh) or other.new.has(fresh) for other in others)

    @cached_property
    def _steps(self) -> list[tuple[_Outcome, _Steps]]:
        """Each outcome with its choices, and what was rendered when all but that choice was the same."""
        found = []
        for outcome in self._outcomes.values():
            pairs = ((pair, self._outcomes.get((outcome.choices - {pair}, outcome.mode))) for pair in outcome.choices)
            found.append((outcome, [(pair, before) for pair, before in pairs if before]))
        return found

    def _squares(self, both: _Outcome, steps: _Steps) -> Iterator[_Square]:
        """Yield what was rendered without two of the choices, and with one of them. Neither input is ever shown."""
        silent = [
            (pair, before)
            for pair, before in steps
            if not self._is_shown(pair[0]) and not any(shape.is_printed for shape in pair[0].walk())
        ]
        for (one, without_one), (other, without_other) in combinations(silent, 2):
            if neither := self._outcomes.get((both.choices - {one, other}, both.mode)):
                yield neither, without_other, without_one, (one[0], other[0])


def _alike(one: str, other: str) -> int:
    """Return how many characters two texts have in common at the beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _change(before: Mapping[str, int], after: Mapping[str, int]) -> _Change:
    """Return what words differ by from others."""
    changed = {word for word, _ in before.items() ^ after.items()} if before != after else ()
    return {word: after.get(word, 0) - before.get(word, 0) for word in changed}


def _depend(neither: _Change, one: _Change, other: _Change, both: _Change) -> bool:
    """Whether what is said because of one input depends on another one.

    What is said in exchange for something else, as "brief and formal" for "brief", may be said differently, and so may
    a header, which is said because of either, and a single word, such as the "and" between them.
    """
    alone, together = _change(neither, one), _change(other, both)
    joint = _change(alone, together)
    if not joint:
        return False
    matters = bool(alone) != bool(together) or bool(_change(neither, other)) != bool(_change(one, both))
    return (matters or (min(joint.values()) > 0 and sum(joint.values()) > 1)) and not _only_splits(joint)


def _only_splits(change: _Change) -> bool:
    """Whether words are only split or joined, as "yes0" if a dash comes between."""
    gained, lost = ("".join(word * (sign * count) for word, count in change.items()) for sign in (1, -1))
    return sum(change.values()) != 0 and Counter(gained) == Counter(lost)
