"""The situations in which the old and the new texts are rendered: which inputs are there, and with which values."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, combinations, islice, permutations, starmap, zip_longest
from typing import TYPE_CHECKING, Any, Final

from agenta_ai_server.tools.refine_prompt.formats.syntax import shown
from agenta_ai_server.tools.refine_prompt.rendering.inputs import CHANCE, FLAT, FRACTIONS, LONG, PLAIN
from agenta_ai_server.tools.refine_prompt.rendering.shapes import ABSENT, EMPTY, KINDS, OTHER, Choice, Shape

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

_MAX_SIZE: Final = 25
_MAX_PAIRS: Final = 2_000
_DESCRIBED: Final = 3
# How many elements of a list are varied one by one.
_MAX_PLACES: Final = 6
# The constants that all inputs are given at once before anything is given to one alone.
_FIRST_DIAGONALS: Final = 2
# Lists of so many levels become long at once. With more, there would be thousands of elements.
_LEVELS: Final = 2
# The pairs of inputs that are tried before the second choice of one alone.
_FIRST_PAIRS: Final = 24
_MODES: Final = {
    LONG: "all texts are long and have several lines",
    FRACTIONS: "all numbers have fractions",
    FLAT: "all sections are plain conditions",
    CHANCE: "chance has another result",
}


@dataclass(frozen=True, slots=True)
class Situation:
    """What is unusual about the inputs.

    Attributes:
        choices: The values that aren't the usual ones, by what has them.
        mode: What is so for all values.
    """

    choices: Mapping[Shape, Choice] = field(default_factory=dict)
    mode: str = PLAIN

    def __str__(self) -> str:
        """Say for people when it occurs: "order.id is absent and tier is 'vip'"."""
        said = [f"{shown(shape.name)} is {shown(choice.says)}" for shape, choice in self.choices.items()]
        said += [_MODES[self.mode]] if self.mode else []
        return " and ".join(said[:_DESCRIBED]) + (" and so on" if len(said) > _DESCRIBED else "")

    @property
    def key(self) -> tuple[frozenset[tuple[Shape, Choice]], str]:
        """What tells it from others."""
        return frozenset(self.choices.items()), self.mode

    def over(self, base: Situation) -> Situation:
        """Return this situation with the choices of another one where it has none."""
        return Situation({**base.choices, **self.choices}, self.mode or base.mode)

    def beyond(self, base: Situation) -> Situation:
        """Return what differs from another situation."""
        choices = {shape: choice for shape, choice in self.choices.items() if base.choices.get(shape) != choice}
        return Situation(choices, "" if self.mode == base.mode else self.mode)


def candidates(root: Shape, unshown: Collection[Shape] = (), *, may_use_chance: bool) -> Iterator[Situation]:
    """Yield all situations that may matter, the most telling first; the first has nothing unusual.

    Args:
        root: The shape of all inputs.
        unshown: Inputs that aren't shown as they are.
        may_use_chance: Whether the texts may render differently with the same inputs.
    """
    choices = _all_choices(root)
    shapes = list(root.walk())
    sizes = list(_at_once(_limits(choices)))
    longest = sizes[0] if sizes else {}
    yield Situation()
    yield Situation(mode=LONG)
    if may_use_chance:
        yield Situation(mode=CHANCE)
    modes = [FLAT] if any("section" in shape.uses for shape in shapes) else []
    modes += [FRACTIONS] if any("number" in shape.uses for shape in shapes) else []
    yield from (Situation(mode=mode) for mode in modes)
    diagonals = _diagonals(choices, least=2)
    yield from islice(diagonals, _FIRST_DIAGONALS)
    yield from map(Situation, sizes)
    yield from _others(root, unshown, longest)
    single = _one_by_one(choices)
    first, more = single[: len(choices)], single[len(choices) :]
    # An object may be used only behind a condition on another input, and be absent otherwise.
    objects = [shape for shape in root.keys.values() if shape.keys and not shape.decides]
    yield from (Situation({shape: ABSENT}) for shape in objects)
    for common in (ABSENT, EMPTY):
        together = {shape: choice for shape, choice in single if choice is common}
        if len(together) > 1:
            yield Situation(together)
    yield from (Situation({shape: choice}) for shape, choice in first)
    yield from _every_second(root, choices, longest)
    yield from _all_but_one(choices)
    # A condition may ask for two inputs, of which the texts show nothing else.
    silent = [pair for pair in first if not any(shape.is_printed for shape in pair[0].walk())]
    yield from (Situation(dict(pair)) for pair in islice(_pairs(silent), _FIRST_PAIRS))
    yield from (Situation({shape: choice}) for shape, choice in more)
    yield from diagonals
    yield from (Situation({s: c, shape: ABSENT}) for s, c in single if c in {ABSENT, EMPTY} for shape in objects)
    # A text that is cut in a branch shows that only if it is long and the branch is taken.
    yield from (Situation({shape: choice}, LONG) for shape, choice in single if choice.kind in {"absent", "literal"})
    yield from (Situation({shape: choice}, mode) for mode in modes for shape, choice in single)
    yield from (Situation(dict(pair)) for pair in islice(_pairs(single), _MAX_PAIRS))


def bases(root: Shape, *, may_use_chance: bool) -> Iterator[Situation]:
    """Yield the situations that all others may be variations of, the most ordinary first.

    Args:
        root: The shape of all inputs.
        may_use_chance: Whether the texts may render differently with the same inputs.
    """
    choices = _all_choices(root)
    single = _one_by_one(choices)
    yield Situation()
    # The two elements of a pair may be of different kinds.
    yield from (Situation({s: choice}) for s, choice in single if choice.kind == "at" and choice.value[1].kind in KINDS)
    # What chooses from a constant object is one of its keys.
    keys = {shape: [choice for choice in found if choice.value] for shape, found in choices.items()}
    yield from _diagonals(keys, least=1)
    yield from (Situation({shape: choice}) for shape, choice in single)
    yield from candidates(root, may_use_chance=may_use_chance)


def _others(root: Shape, unshown: Collection[Shape], longest: Mapping[Shape, Choice]) -> Iterator[Situation]:
    """Give one input that isn't shown as it is another value of its kind.

    Those in lists are in another order then, on which a limit of the list may depend.
    """
    for shape in root.walk():
        if shape in unshown and shape.kinds[0] in {"text", "number", "count"}:
            yield Situation({**(longest if "[]" in shape.name else {}), shape: OTHER})


def _every_second(
    root: Shape, choices: Mapping[Shape, list[Choice]], longest: Mapping[Shape, Choice]
) -> Iterator[Situation]:
    """Make the elements of the longest lists differ: in every second one, an item is absent or equals a constant."""
    items = {
        item: [choice for choice in choices.get(item, ()) if choice is ABSENT or choice.kind == "literal"]
        for shape in root.walk()
        if shape.each and "list" in shape.uses
        for item in shape.each.items()
    }
    for item, choice in _one_by_one(items):
        for begin, name in enumerate(("first", "second")):
            says = f"{choice.says} in every second element from the {name}"
            yield Situation({**longest, item: Choice("second", (begin, choice), says)})


def _all_choices(root: Shape) -> dict[Shape, list[Choice]]:
    shapes = (shape for shape in root.walk() if shape is not root)
    return {shape: found for shape in shapes if (found := list(dict.fromkeys(_choices(shape))))}


def _one_by_one(choices: Mapping[Shape, list[Choice]]) -> list[tuple[Shape, Choice]]:
    """Return the first choice of each input, then the second, and so on."""
    rows = ([(shape, choice) for choice in found] for shape, found in choices.items())
    return [(shape, choice) for row in zip_longest(*rows) for shape, choice in filter(None, row)]


def _diagonals(choices: Mapping[Shape, list[Choice]], least: int) -> Iterator[Situation]:
    """Give all inputs that are compared with constants, if they are so many, one of these at once."""
    constants = {shape: same for shape, found in choices.items() if (same := [c for c in found if c.kind == "literal"])}
    if len(constants) >= least:
        yield from map(Situation, _at_once(constants))


def _at_once(choices: Mapping[Shape, list[Choice]]) -> Iterator[dict[Shape, Choice]]:
    """Yield the first choices of all inputs together, then the second, and so on."""
    for place in range(max(map(len, choices.values()), default=0)):
        yield {shape: found[place % len(found)] for shape, found in choices.items()}


def _limits(choices: Mapping[Shape, list[Choice]]) -> dict[Shape, list[Choice]]:
    """Return the sizes of outer lists that are asked for and are more than usual, the greatest first."""
    found = {
        shape: [each for each in of if each.kind == "size" and each.value > shape.least]
        for shape, of in choices.items()
        if shape.kinds[0] == "list" and shape.name.count("[]") < _LEVELS
    }
    return {shape: sorted(sizes, key=lambda size: -size.value) for shape, sizes in found.items() if sizes}


def _pairs(single: Iterable[tuple[Shape, Choice]]) -> Iterator[tuple[tuple[Shape, Choice], ...]]:
    """Yield each two choices that can be made together."""
    return (pair for pair in combinations(single, 2) if not any(starmap(_leaves_out, permutations(pair))))


def _leaves_out(one: tuple[Shape, Choice], other: tuple[Shape, Choice]) -> bool:
    """Whether a choice leaves nothing of what has another choice, because it is of the same input, or inside of it."""
    shape, choice = one
    leaves_nothing = choice in {ABSENT, EMPTY} or (choice.kind, choice.value) == ("size", 0)
    return other[0] is shape or (leaves_nothing and other[0] in set(shape.walk()))


def _all_but_one(choices: Mapping[Shape, list[Choice]]) -> Iterator[Situation]:
    """Give all but one of the inputs that are compared with constants the first of these.

    If several conditions must hold, this shows the effect of each. Of fewer than three inputs, one is left.
    """
    together = next(_diagonals(choices, least=3), Situation()).choices
    for left in together:
        yield Situation({shape: choice for shape, choice in together.items() if shape is not left})


def _choices(shape: Shape) -> Iterator[Choice]:
    first, *more = shape.kinds
    yield from (_literal(constant) for constant in _constants(shape))
    if (shape.decides or "list" in shape.uses) and not shape.name.endswith("[]"):
        yield ABSENT
    if shape.like:
        yield Choice("like", shape.like, f"the same as {shape.like.name}")
    parts = list(dict.fromkeys(shape.parts))
    parts += ["".join(parts)] if len(parts) > 1 else []
    yield from (Choice("around", part, f"a text with {part!r}") for part in parts)
    yield from _places_and_pieces(shape)
    yield from (Choice("size", size, _elements(size)) for size in _sizes(shape))
    if shape.decides:
        yield EMPTY
    # A list or an object is empty or absent instead.
    if ("condition" in shape.uses and first == "text") or first in {"number", "count"}:
        yield _literal(0 if first in {"number", "count"} else False)
    yield from (Choice(kind, says=f"of the kind {kind}") for kind in more)
    if "section" in shape.uses:
        yield Choice("object", says="an object")


def _sizes(shape: Shape) -> dict[int, None]:
    """Return how many elements, or characters, it may have."""
    kinds = shape.kinds
    # Elements that are only found by their numbers are taken to be there, unless something asks for them.
    asks = "measured" in shape.uses or (shape.each is not None and shape.each.decides)
    may_be_few = "list" in kinds and (asks or "list" in shape.uses or "indexed" not in shape.uses)
    few = range(min(shape.least, _MAX_PLACES)) if may_be_few else ()
    asked = chain.from_iterable((size, size + 1) for size in sorted(shape.sizes) if 0 <= size < _MAX_SIZE)
    return dict.fromkeys(size for size in (*few, *asked) if size != shape.least or kinds[0] == "text")


def _places_and_pieces(shape: Shape) -> Iterator[Choice]:
    """Yield the choices for what is used by its parts: by the places of a list, or by the pieces of a text."""
    if shape.each and "indexed" in shape.uses:
        inner = [choice for choice in _choices(shape.each) if choice.kind in {"empty", "literal", *KINDS}]
        places = range(min(shape.least, _MAX_PLACES))
        yield from (Choice("at", (at, choice), f"{choice.says} at place {at + 1}") for choice in inner for at in places)
    if shape.pieces:
        separator, count = shape.pieces
        yield Choice("pieces", shape.pieces, f"a text of {count} pieces with {separator!r} between them")


def _constants(shape: Shape) -> Iterator[Any]:
    for constant in shape.constants:
        if isinstance(constant, bool):
            yield from (False, True)
            continue
        yield constant
        if isinstance(constant, int | float):
            yield from (constant - 1, constant + 1)


def _literal(constant: Any) -> Choice:
    return Choice("literal", constant, repr(constant)[:40])


def _elements(size: int) -> str:
    return f"of length {size}"
