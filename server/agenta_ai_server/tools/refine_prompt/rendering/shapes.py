"""Describes an input by what templates do with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

# Names that an object of JSON has already, so that an item is written ``order['items']``.
METHODS: Final = frozenset(name for name in dir(dict) if not name.startswith("_"))

# Types of what an input can be compared with; what stands for another input is none of them.
_CONSTANTS = (str, int, float, bool, type(None))


# What a value may be.
KINDS: Final = frozenset({"object", "list", "flag", "count", "number", "text"})


@dataclass(frozen=True, slots=True)
class Choice:
    """A value other than the usual one.

    Attributes:
        kind: ``absent``, ``empty``, ``literal``, ``like`` (another input), ``around`` (a marker that begins, ends and
            is filled with a text), ``pieces`` (markers with a text between them), ``size`` (of a list or a text),
            ``at`` (one element of a list has another choice: ``value`` is its index and that choice), ``second`` (every
            second element has another choice: ``value`` is 0 or 1, where that begins, and that choice), ``other``
            (another marker), or one of ``KINDS``.
        value: What belongs to the kind.
        says: What that means for the input, for people.
    """

    kind: str
    value: Any = None
    says: str = ""

    @property
    def constant(self) -> Any:
        """The constant that it is, be it in some elements only; ``None`` if it is something else."""
        inner = self.value[1] if self.kind in {"at", "second"} else self
        return inner.value if inner.kind == "literal" else None


ABSENT: Final = Choice("absent", says="absent")
EMPTY: Final = Choice("empty", says="empty")
OTHER: Final = Choice("other", says="different")


@dataclass(slots=True, eq=False)
class Shape:
    """What is known of one value, from what templates do with it.

    Attributes:
        name: The path for people: ``order['items'][].sku``.
        keys: Its items by name, if it is an object.
        each: Its elements, if it is a list, or its values, if it is an object with any keys.
        uses: What is done with it: ``object``, ``list``, ``number``, ``count``, ``text``, ``condition``; ``shown`` as
            it is, ``printed`` as it is or changed; ``indexed`` by a number, and not by a name; ``ordered``, that is,
            compared with another input by ``<`` and the like; ``flag`` if it is only asked whether it is true or false.
        constants: What it is compared with.
        parts: Texts that are looked for in it.
        sizes: What its length is compared with.
        decides: Whether anything depends on it being there, or true, in either text.
        fallback: Whether it is only there in the mode ``FLAT``.
        keyed_by: What its keys come from.
        holds: What is one of its elements, or a part of it.
        of_one_kind: What it is added to, or ordered with, and so is of one kind with.
        like: Another input that it is compared with.
        least: How many elements it has at the least.
        pieces: What it is split by, and into how many pieces.
    """

    name: str
    keys: dict[str, Shape] = field(default_factory=dict)
    each: Shape | None = None
    uses: set[str] = field(default_factory=set)
    constants: list[Any] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    sizes: set[int] = field(default_factory=set)
    decides: bool = False
    fallback: bool = False
    keyed_by: Shape | None = None
    holds: Shape | None = None
    of_one_kind: list[Shape] = field(default_factory=list)
    like: Shape | None = None
    least: int = 2
    pieces: tuple[str, int] | None = None

    def key(self, name: str) -> Shape:
        """Return the shape of the item of this name, which there is from now on."""
        if name not in self.keys:
            plain = name.isidentifier() and name not in METHODS
            step = name if not self.name else f".{name}" if plain else f"[{name!r}]"
            self.keys[name] = Shape(self.name + step)
        return self.keys[name]

    def element(self) -> Shape:
        """Return the shape of the elements, which there are from now on."""
        if self.each is None:
            self.each = Shape(f"{self.name}[]")
        return self.each

    def compare(self, constant: object) -> None:
        """Note that it is compared with a constant."""
        self.decides = True
        if type(constant) in _CONSTANTS and not any(
            type(known) is type(constant) and known == constant for known in self.constants
        ):
            self.constants.append(constant)

    @property
    def kinds(self) -> list[str]:
        """What it may be, the likeliest first."""
        values = "object" in self.uses or self.keyed_by is not None
        found = ["object"] if self.keys or "mapping" in self.uses or (values and "list" not in self.uses) else []
        found += ["list"] if "list" in self.uses or (self.each and not values) else []
        found += ["object"] if values and "object" not in found else []
        uses = self.uses.union(*(each.uses for each in self.of_one_kind))
        found += ["flag"] if "flag" in self.uses else []
        found += ["count"] if "count" in self.uses else ["number"] if {"count", "number"} & uses else []
        return found + (["text"] if "text" in self.uses or not found else [])

    def walk(self) -> Iterator[Shape]:
        """Yield this shape and all inside of it."""
        yield self
        for child in (*self.keys.values(), *([self.each] if self.each else ())):
            yield from child.walk()

    @property
    def is_printed(self) -> bool:
        """Whether it is shown, as it is or changed."""
        return bool(self.uses & {"shown", "printed"})

    def items(self) -> Iterator[Shape]:
        """Yield the items, and theirs, as far as they are in no list of their own."""
        for child in self.keys.values():
            yield child
            yield from child.items()

    def mark_optional_items(self) -> None:
        """Note that an item may be absent if something asks whether it is there."""
        for shape in self.walk():
            for part in shape.parts:
                if part in shape.keys:
                    shape.keys[part].decides = True

    def mark_flags(self) -> None:
        """Note what is true or false: what is compared with these only, and never asked whether it is anything."""
        for shape in self.walk():
            is_only_compared = shape.kinds == ["text"] and not shape.uses & {"condition", "printed", "shown"}
            if is_only_compared and shape.constants and all(isinstance(each, bool) for each in shape.constants):
                shape.uses.add("flag")

    def merge(self, new: Shape) -> None:
        """Add what the new text compares and decides by, of what is known from the old one."""
        for constant in new.constants:
            self.compare(constant)
        self.decides |= new.decides
        self.parts += [part for part in new.parts if part not in self.parts]
        self.sizes |= new.sizes
        for name in self.keys.keys() & new.keys.keys():
            self.keys[name].merge(new.keys[name])
        if self.each and new.each:
            self.each.merge(new.each)
