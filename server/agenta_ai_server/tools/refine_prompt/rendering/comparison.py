"""Finds what a refinement breaks, by rendering the old and the new texts with the same inputs."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Final

from agenta_ai_server.tools.refine_prompt.formats import jsonpath
from agenta_ai_server.tools.refine_prompt.formats.syntax import TemplateSyntaxError, is_blank
from agenta_ai_server.tools.refine_prompt.rendering.dependence import Dependence
from agenta_ai_server.tools.refine_prompt.rendering.inputs import Inputs
from agenta_ai_server.tools.refine_prompt.rendering.shapes import ABSENT, EMPTY, Shape
from agenta_ai_server.tools.refine_prompt.rendering.situations import Situation, bases, candidates
from agenta_ai_server.tools.refine_prompt.rendering.text import MAX_TAGS, Rendered, RenderError, TooComplex
from agenta_ai_server.tools.refine_prompt.rendering.verdict import Fault, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agenta_ai_server.tools.refine_prompt.rendering.inputs import Object
    from agenta_ai_server.tools.refine_prompt.rendering.text import Format, Text

MAX_SITUATIONS: Final = 64
# The most characters that are rendered from the old texts, in all situations together. At least _FEWEST situations are
# always rendered.
_MAX_RENDERED: Final = 5_000_000
_FEWEST: Final = 9
# How deep the objects may be that only rendering finds.
_MAX_NESTING: Final = 3
# As many characters cost as much as a tag, and as a value of the inputs.
_TAG: Final = 300
_VALUE: Final = 400
# The CPU time after which a comparison ends, if there were at least _FEWEST situations.
_ENOUGH_SECONDS: Final = 0.25
# The CPU time that a comparison may take.
MAX_SECONDS: Final = 0.65
# What it may be expected to take, for the new texts may be longer, and a busy machine slower.
_EXPECTED_SECONDS: Final = 0.5


def read(
    template_format: str, texts: Sequence[str], fixed: Sequence[str], *, seconds: float = _EXPECTED_SECONDS
) -> Fault | None:
    """Return why the texts of a prompt can't be rendered in any situation, or ``None`` if they can.

    Args:
        template_format: ``jinja2`` or ``mustache``.
        texts: The texts that are to be refined.
        fixed: The texts that stay as they are, whether they can be rendered or not.
        seconds: The CPU time that comparing texts like them may be expected to take.

    Raises:
        TooComplex: They have too many tags or tokens, or comparing texts like them would take too long.
    """
    began = time.process_time()
    parsed = _Parsed(template_format)
    staying, old = parsed.texts(fixed), parsed.texts(texts)
    if parsed.faults:
        return parsed.faults[0]
    comparison = _Comparison(template_format, parsed, old)
    if not comparison.fault:
        comparison.rehearse(staying, began, seconds)
    return comparison.fault


def compare(template_format: str, old: Sequence[str], fixed: Sequence[str], new: Sequence[str]) -> list[Fault]:
    """Return what is wrong with the new texts if they take the place of the old ones.

    Args:
        template_format: ``jinja2`` or ``mustache``.
        old: The texts that were refined; they can be rendered.
        fixed: The texts of the prompt that stay as they are, whether they can be rendered or not.
        new: The texts that take the place of the old ones.

    Raises:
        TooComplex: The new texts have too many tags or tokens.
    """
    parsed = _Parsed(template_format)
    staying, before, refined = (parsed.texts(texts) for texts in (fixed, old, new))
    found = _Comparison(template_format, parsed, before).faults(refined, staying)
    if not parsed.faults:
        return found
    # What is lost can't be said, but which of the other texts are empty.
    return sorted(
        [*parsed.faults, *(fault for fault in found if fault.index is not None)], key=lambda each: each.index or 0
    )


class _Unreadable:
    """Stands for a text that can't be read."""

    names = paths = constants = frozenset[str]()
    may_use_chance = uses_chance = False

    def survey(self, root: Shape) -> None:
        pass

    def render(self, inputs: Object, mode: str) -> Rendered:
        return Rendered("unreadable", "", frozenset())


class _Parsed:
    """Parses texts, and collects what is wrong with them."""

    def __init__(self, template_format: str) -> None:
        # The JSONPaths of all texts, each with a number.
        self.places: dict[str, int] = {}
        self.format: Format
        if template_format == "jinja2":
            from agenta_ai_server.tools.refine_prompt.rendering.jinja import JinjaText

            self.format = JinjaText
        else:
            from agenta_ai_server.tools.refine_prompt.rendering.mustache import MustacheText

            self.format = MustacheText
        self.faults: list[Fault] = []
        # How many tags the old texts have, or the new ones, whichever are more.
        self.tags = 0
        self.may_use_chance = False

    def texts(self, texts: Sequence[str]) -> list[Text]:
        """Return the texts, each ready to be rendered; ``faults`` are theirs."""
        self.tags = max(self.tags, sum(map(self.format.tags, texts)))
        if self.tags > MAX_TAGS:
            raise TooComplex
        self.faults.clear()
        found: list[Text] = []
        for index, text in enumerate(texts):
            try:
                found.append(self.format(text, self.places))
            except TemplateSyntaxError as error:
                found.append(_Unreadable())
                self.faults.append(Fault(index, "unreadable", str(error)))
        self.may_use_chance |= any(text.may_use_chance for text in found)
        return found


@dataclass(slots=True)
class _Shown:
    """What all texts together show in one situation.

    Attributes:
        text: What is rendered, without blanks that say nothing.
        blank: Whether each of the texts says nothing.
        markers: The values in it.
        guesses: What looks like values and is none.
        paths: The JSONPaths in it.
        misses: The unknown items that were accessed.
    """

    text: str
    blank: list[bool]
    markers: set[str]
    guesses: set[str]
    paths: frozenset[str]
    misses: set[str]


class _Failed(Exception):
    """One of the texts can't be rendered in a situation."""

    def __init__(self, index: int, error: RenderError) -> None:
        super().__init__(str(error))
        self.index = index
        self.error = error


class _Comparison:
    """The old texts, with the situations in which they are rendered.

    Attributes:
        fault: Why they can't be rendered in any, if they can't.
    """

    def __init__(self, template_format: str, parsed: _Parsed, old: Sequence[Text]) -> None:
        self._parsed = parsed
        self._old = old
        self._root = Shape("")
        for text in self._old:
            text.survey(self._root)
        self._root.mark_optional_items()
        self._root.mark_flags()
        self._deciding = [shape for shape in self._root.walk() if shape.decides]
        constants = frozenset[str]().union(*(text.constants for text in self._old))
        self._inputs = Inputs(self._root, constants, notes_tests=template_format == "jinja2")
        self.fault: Fault | None = None
        self._base = Situation()
        failed: _Failed | None = None
        for situation in islice(bases(self._root, may_use_chance=self._parsed.may_use_chance), MAX_SITUATIONS):
            try:
                self._render(self._old, situation)
            except _Failed as error:
                failed = failed or error
            else:
                self._base = situation
                self._learn()
                return
        if failed:
            place = f" (line {failed.error.line})" if failed.error.line else ""
            self.fault = Fault(failed.index, "unreadable", f"{failed.error.message}{place}")

    def _learn(self) -> None:
        """Add the items that the survey didn't find to the inputs."""
        for _ in range(_MAX_NESTING):
            for shape, key in self._inputs.misses.values():
                shape.key(key)
            with contextlib.suppress(_Failed):
                self._render(self._old, self._base)
            if not self._inputs.misses:
                return

    def rehearse(self, fixed: Sequence[Text], began: float, seconds: float) -> None:
        """Render the texts in the situations that no comparison leaves out, to see that there is time for it.

        Args:
            fixed: The texts that stay as they are.
            began: The CPU time of the process when it began to read the texts.
            seconds: The CPU time that a comparison may be expected to take.

        Raises:
            TooComplex: It would take too long.
        """
        # All of them: the longest lists take a hundred times as long as the others.
        for situation in islice(self._situations(), _FEWEST):
            with contextlib.suppress(_Failed):
                self._render(self._old, situation, fixed)
            # The new texts are read and rendered too.
            if 2 * (time.process_time() - began) > seconds:
                raise TooComplex("checking a refinement of it would take too much CPU time")

    def faults(self, new: Sequence[Text], fixed: Sequence[Text]) -> list[Fault]:
        """Return what is wrong with new texts."""
        survey = Shape("")
        for text in new:
            text.survey(survey)
        self._root.merge(survey)
        self._root.mark_optional_items()
        verdict = Verdict()
        if any(text.uses_chance for text in new) and not any(text.uses_chance for text in chain(self._old, fixed)):
            verdict.chance()
        verdict.names(*self._parsed.format.compared(_names(self._old, fixed), _names(new, fixed)))
        old_paths, new_paths = _paths(self._old, fixed), _paths(new, fixed)
        verdict.names(old_paths - new_paths, new_paths - old_paths)
        seen = self._compare(new, fixed, verdict)
        self._judge_unseen(survey, seen, verdict)
        return verdict.faults

    def _compare(self, new: Sequence[Text], fixed: Sequence[Text], verdict: Verdict) -> set[Shape]:
        """Render old and new in all situations, and return what the old texts showed in any."""
        seen, seen_in_new = set[Shape](), set[Shape]()
        dependence = Dependence(self._inputs.markers)
        began = time.process_time()
        for count, situation in enumerate(self._situations()):
            if count >= _FEWEST and time.process_time() - began > _ENOUGH_SECONDS:
                break
            try:
                old = self._render(self._old, situation, fixed)
            except _Failed:
                continue
            shapes = {marker: self._inputs.shape_of(marker) for marker in old.markers}
            seen |= set(shapes.values())
            unusual = situation.beyond(self._base)
            try:
                refined = self._render(new, situation, fixed)
            except _Failed as failed:
                verdict.fails(failed.index, failed.error, unusual)
                continue
            verdict.blank(old.blank, refined.blank)
            kept = self._inputs.unguessed(refined.markers, refined.guesses - old.guesses)
            lost = {shapes[marker].name for marker in old.markers - kept} | (old.paths - refined.paths)
            verdict.lost(lost, unusual)
            verdict.say("unguarded", refined.paths - old.paths, str(unusual))
            verdict.say("invented", refined.misses - old.misses)
            surplus = self._inputs.surplus_markers
            fresh = refined.markers - old.markers
            verdict.say("shows all", {surplus[marker].name for marker in fresh & surplus.keys()})
            shown_in_new = {self._inputs.shape_of(marker) for marker in refined.markers}
            seen_in_new |= shown_in_new
            said, shown = (old.text, refined.text), (set(shapes.values()), shown_in_new)
            dependence.note(unusual, said, shown, fresh - surplus.keys())
        verdict.say("ignores", dependence.ignored())
        verdict.say("separates", dependence.separated())
        for condition, names in dependence.exposed():
            verdict.say("exposes", names, condition)
        self._judge_elements(seen, seen_in_new, verdict)
        return seen

    def _judge_unseen(self, survey: Shape, seen: set[Shape], verdict: Verdict) -> None:
        """Check that the new texts use by name what no situation shows."""
        used = {shape.name for shape in survey.walk()}
        # It takes more than two items of a condition to be other than usual, or more situations than there are, to see
        # the effect of some.
        silent = {shape.name for shape in self._deciding if not seen.intersection(shape.walk())}
        verdict.say("ignores", silent - used)
        hides = any(choice in {ABSENT, EMPTY} for choice in self._base.choices.values())
        never = {shape for shape in self._root.walk() if ("shown" in shape.uses or hides) and not shape.fallback} - seen
        verdict.say("lost", {shape.name for shape in never} - used)
        # A count has no marker, and is mostly used for something else as well, as in range(n).
        printed = {shape.name for shape in survey.walk() if shape.is_printed}
        counts = {shape.name for shape in never if "shown" in shape.uses and shape.kinds[0] == "count"}
        verdict.say("lost", counts - printed)
        if hides:
            verdict.say("invented", used - {shape.name for shape in self._root.walk()})
        # A constant may also be seen because it stands in the texts.
        constants = {shape.name for shape in self._base.choices if "shown" in shape.uses}
        verdict.say("lost", constants - printed)

    def _judge_elements(self, seen: set[Shape], seen_in_new: set[Shape], verdict: Verdict) -> None:
        """Check that the new texts show nothing of elements of which the old ones show nothing."""
        for element, container in self._inputs.elements.items():
            inside = set(element.walk())
            if inside & seen_in_new and not inside & seen:
                verdict.say("shows all", {container.name})

    def _situations(self) -> Iterable[Situation]:
        self._inputs.made = 0
        try:
            base = self._render(self._old, self._base)
        except _Failed:
            return
        shown_shapes = {self._inputs.shape_of(marker) for marker in base.markers}
        unshown = {shape for shape in self._root.walk() if shape not in shown_shapes or "ordered" in shape.uses}
        # New texts that are as large as the old ones cost as much as these.
        size = len(base.text) + _VALUE * self._inputs.made + _TAG * self._parsed.tags
        most = max(_FEWEST, min(MAX_SITUATIONS, _MAX_RENDERED // max(size, 1)))
        known = {self._base.key}
        yield self._base
        for situation in candidates(self._root, unshown, may_use_chance=self._parsed.may_use_chance):
            combined = situation.over(self._base)
            if combined.key not in known:
                known.add(combined.key)
                yield combined
                if len(known) >= most:
                    return

    def _render(self, texts: Sequence[Text], situation: Situation, fixed: Sequence[Text] = ()) -> _Shown:
        """Render texts, and those that stay as they are, as far as that can be done."""
        self._inputs.misses.clear()
        rendered: list[Rendered] = []
        for index, text in enumerate(texts):
            try:
                rendered.append(text.render(self._inputs.make(situation.choices, situation.mode), situation.mode))
            except RenderError as error:
                raise _Failed(index, error) from None
        misses = set(self._inputs.misses)
        blank = [is_blank(each.text) for each in rendered]
        for text in fixed:
            try:
                rendered.append(text.render(self._inputs.make(situation.choices, situation.mode), situation.mode))
            except RenderError:
                continue
        values = "\n".join(each.values for each in rendered)
        masks = frozenset[str]().union(*(each.paths for each in rendered))
        paths = frozenset(path for path, number in self._parsed.places.items() if jsonpath.masked(number) in masks)
        return _Shown("\n".join(each.text for each in rendered), blank, *self._inputs.shown(values), paths, misses)


def _names(texts: Iterable[Text], fixed: Iterable[Text]) -> set[str]:
    return {name for text in chain(texts, fixed) for name in text.names}


def _paths(texts: Iterable[Text], fixed: Iterable[Text]) -> set[str]:
    return {path for text in chain(texts, fixed) for path in text.paths}
