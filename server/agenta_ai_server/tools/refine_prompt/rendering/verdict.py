"""What is wrong with a refinement, in sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from agenta_ai_server.tools.refine_prompt.formats.syntax import shown

if TYPE_CHECKING:
    from collections.abc import Set

    from agenta_ai_server.tools.refine_prompt.rendering.situations import Situation
    from agenta_ai_server.tools.refine_prompt.rendering.text import RenderError

_MAX_NAMES: Final = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one text, or with all of them together.

    Attributes:
        index: Of the text; ``None`` for all, if the kind is ``names`` or ``complex``.
        kind: What it concerns; ``complex`` if the texts weren't read.
        description: What is wrong, a sentence's end or a sentence.
    """

    index: int | None
    kind: Literal["unreadable", "empty", "names", "complex"]
    description: str


class Verdict:
    """Collects what is wrong, each thing once."""

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._not_empty: set[int] = set()
        self._emptied: set[int] = set()
        self._found: list[Fault] = []
        self._of_names = 0

    @property
    def faults(self) -> list[Fault]:
        """What was found."""
        empty = [Fault(index, "empty", "") for index in sorted(self._emptied - self._not_empty)]
        return [*self._found[: self._of_names], *empty, *self._found[self._of_names :]]

    def names(self, lost: Set[str], invented: Set[str]) -> None:
        """Judge names of inputs, and JSONPaths."""
        self.say("lost", lost)
        self.say("invented", invented)
        self._of_names = len(self._found)

    def chance(self) -> None:
        """Judge texts that depend on chance where the old ones don't."""
        self._found.append(
            Fault(None, "names", "The refinement uses random or lipsum, which show something else each time.")
        )

    def fails(self, index: int, error: RenderError, situation: Situation) -> None:
        """Judge a text that can't be rendered where the old one could."""
        when = f" when {situation}" if str(situation) else ""
        place = f" (line {error.line})" if error.line else ""
        if index not in {fault.index for fault in self._found if fault.kind == "unreadable"}:
            self._found.append(Fault(index, "unreadable", f"{error.message}{place}{when}"))

    def blank(self, old: list[bool], new: list[bool]) -> None:
        """Judge texts that say nothing."""
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            if not before:
                (self._emptied if after else self._not_empty).add(index)

    def lost(self, names: Set[str], situation: Situation) -> None:
        """Judge values and JSONPaths that aren't shown where they were."""
        when = str(situation)
        self.say("lost", names, f" when {when}" if when else "")

    def say(self, verb: str, names: Set[str], when: str = "") -> None:
        """Say what the refinement does to inputs and JSONPaths."""
        unsaid = names - self._said
        if not unsaid:
            return
        fresh = sorted(names if verb in {"invented", "separates"} else unsaid)
        self._said |= names
        listed = ", ".join(f"{{{{{shown(name)}}}}}" for name in fresh[:_MAX_NAMES])
        more = f" and {len(fresh) - _MAX_NAMES} more" if len(fresh) > _MAX_NAMES else ""
        noun = f"variable{'s' if len(fresh) > 1 else ''}"
        sentence = {
            "unguarded": f"shows the {noun} {listed}{more} where the prompt doesn't{f', when {when}' if when else ''}",
            "ignores": f"no longer depends on the {noun} {listed}{more}",
            "separates": f"no longer depends on the {noun} {listed}{more} together",
            "exposes": f"shows the {noun} {listed}{more} where the prompt doesn't, whatever {{{{{shown(when)}}}}} is",
            "shows all": f"shows all items of the {noun} {listed}{more}, also those that the prompt doesn't use",
        }.get(verb, f"{verb} the {noun} {listed}{more}{when}")
        self._found.append(Fault(None, "names", f"The refinement {sentence}."))
