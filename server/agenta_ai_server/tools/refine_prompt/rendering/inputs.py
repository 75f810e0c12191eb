"""Makes values for inputs: markers that can be found again in rendered texts."""

from __future__ import annotations

import random
import re
from itertools import product
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from agenta_ai_server.tools.refine_prompt.rendering.shapes import ABSENT, KINDS, METHODS, OTHER, Choice, Shape

if TYPE_CHECKING:
    from collections.abc import Mapping, Set

# A text is made of chunks: 9, four octal digits that number the value, two that number the chunk, 8. Digits pass
# through most filters, and a chunk can't begin inside of another one. The numbers begin anywhere, so that a text can't
# show a chunk without the value.
_CHUNK = re.compile(r"9[0-7]{6}8")
_CHUNKS = re.compile(rf"{_CHUNK.pattern}(?: {_CHUNK.pattern})*")
_NUMBER = re.compile(r"(?<![\d.])[1-9]\d\d(?!\d)")
_FRACTION = 0.25
_WITH_FRACTION = re.compile(r"(?<![\d.])([1-9]\d\d\.25)0*(?!\d)")
# A text that filters leave as it is if they only escape, quote or trim.
_PLAIN = re.compile(r"[\w .,:-]+")
_FIRST_NUMBERS = range(101, 201)
_OTHER_NUMBER = 400
_MOST_VALUES = 8**4
# What may look like a value that isn't there, for a prompt has numbers of its own. More of it may be guesses.
_MAX_GUESSES = 8
# How deep the lists may be whose elements are keys.
_MAX_KEYS_DEPTH = 2
# Deeper, a list has one element only.
_MAX_NESTING = 3
# Where the chunks of a long text begin, so that a cut is seen wherever it is, and what is between them.
_LONG = (*range(2, 100, 10), *range(100, 400, 20), *range(400, 1200, 40), *range(1200, 2001, 50))
# In fewer than a hundred lines, whose numbers have fewer digits than those that stand for inputs.
_PROSE = "Été, the first line, which has as many words as people write,\nline\n\n" * 33

# Modes, each of which is for all inputs at once.
PLAIN: Final = ""
LONG: Final = "long"
FRACTIONS: Final = "fractions"
FLAT: Final = "flat"
CHANCE: Final = "chance"


# By their names for people: what has no such item, and the item.
Misses: TypeAlias = dict[str, tuple[Shape, str]]


class Object(dict[str, Any]):
    """An object that records accesses to items that the old text doesn't know."""

    def __init__(self, shape: Shape, misses: Misses, *, notes_tests: bool) -> None:
        super().__init__()
        self._shape, self._misses, self._notes_tests = shape, misses, notes_tests

    def _miss(self, key: object) -> None:
        _note_miss(self._shape, key, self._misses)

    def _noted(self, key: object) -> object:
        if not super().__contains__(key):
            self._miss(key)
        return key

    def __contains__(self, key: object) -> bool:
        """Return whether there is an item. Only a constant key asks for an unknown one."""
        found = super().__contains__(key)
        if self._notes_tests and not found and not isinstance(key, Value):
            self._miss(key)
        return found

    def has_item(self, name: str) -> bool:
        """Return whether ``.name`` is an item: whether there is one, and no attribute of this name comes first."""
        return super().__contains__(name) and name not in METHODS and name[0] != "_"

    def get(self, key: object, default: Any = None) -> Any:
        """Return an item, as a template asks for it."""
        return super().get(self._noted(key), default)  # type: ignore[call-overload, unused-ignore]

    def pop(self, key: object, *default: Any) -> Any:
        """Remove an item, and return it."""
        return super().pop(self._noted(key), *default)  # type: ignore[call-overload, unused-ignore]

    def setdefault(self, key: object, default: Any = None) -> Any:
        """Return an item, or add it."""
        return super().setdefault(self._noted(key), default)  # type: ignore[call-overload, unused-ignore]

    def copy(self) -> Object:
        """Return an object that records the same."""
        made = Object(self._shape, self._misses, notes_tests=self._notes_tests)
        made.update(self)
        return made


class Value(str):
    """A text that records accesses to attributes."""

    _shape: Shape
    _misses: Misses

    def _miss(self, key: object) -> None:
        _note_miss(self._shape, key, self._misses)


# As errors name their types.
for _type, _name in ((Object, "dict"), (Value, "str")):
    _type.__name__, _type.__module__ = _name, "builtins"


def note_miss(value: object, key: object) -> None:
    """Record an access to an unknown item of an input."""
    if isinstance(value, Object | Value):
        value._miss(key)  # no template can reach what begins so


def _note_miss(shape: Shape, key: object, misses: Misses) -> None:
    if isinstance(key, str) and key not in shape.keys:
        misses[Shape(shape.name).key(key).name] = (shape, key)


def without_values(message: str) -> str:
    """Return an error's message without the texts that were made up for the inputs."""
    return _CHUNKS.sub("…", message)


class Inputs:
    """Makes inputs of a shape. A value has the same marker in every situation, and is found by it.

    Args:
        root: The shape of all inputs together.
        constants: The texts that stand in expressions.
        notes_tests: Whether it is an access to an item to ask if there is one. In mustache, the engine does so to find
            the object that a name belongs to.
    """

    def __init__(self, root: Shape, constants: Set[str], *, notes_tests: bool) -> None:
        self._root = root
        self._constants, self._folded = constants, "\n".join(constants).casefold()
        self._notes_tests = notes_tests
        chance = random.SystemRandom()
        self._first_text, self._first_number = chance.randrange(_MOST_VALUES), chance.choice(_FIRST_NUMBERS)
        self._numbers: dict[tuple[Shape, tuple[int, ...]], int] = {}
        self._texts: dict[tuple[Shape, tuple[int, ...], str], str] = {}
        # What each marker in use stands for.
        self.markers: dict[str, Shape] = {}
        # The constants in use, and what each is the value of.
        self.literals: dict[str, Shape] = {}
        # Unknown items that were accessed.
        self.misses: Misses = {}
        # The markers of items that no text knows, and the object that each is in.
        self.surplus_markers: dict[str, Shape] = {}
        self._surplus: dict[Shape, Shape] = {}
        self._surplus_keys: set[str] = set()
        # The values of objects that have any keys, and these objects.
        self.elements: dict[Shape, Shape] = {}
        # How many values were made.
        self.made = 0

    def make(self, choices: Mapping[Shape, Choice], mode: str) -> Object:
        """Return new inputs."""
        self._choices, self._mode = choices, mode
        self.literals.clear()
        return self._object(self._root, ())

    def shown(self, values: str) -> tuple[set[str], set[str]]:
        """Return the markers and constants that are found in what was rendered, and what only looks like markers."""
        found = {*_CHUNK.findall(values), *_NUMBER.findall(values)}
        if self._mode == FRACTIONS:
            found.update(_WITH_FRACTION.findall(values))
        folded = values.casefold()
        literals = {literal for literal in self.literals if literal.casefold() in folded}
        # Not by sets of all markers, of which there may be many thousands.
        known = {marker for marker in found if marker in self.markers}
        return known | literals, found - known

    @staticmethod
    def unguessed(markers: set[str], guesses: set[str]) -> set[str]:
        """Return the markers of those kinds, texts or numbers, of which there are few guesses."""
        few = markers
        for kind in (_CHUNK, _NUMBER, _WITH_FRACTION):
            if sum(1 for guess in guesses if kind.fullmatch(guess)) > _MAX_GUESSES:
                few = {marker for marker in few if not kind.fullmatch(marker)}
        return few

    def shape_of(self, marker: str) -> Shape:
        """Return the shape of the value that a marker or a constant stands for."""
        return self.markers.get(marker) or self.literals[marker]

    def _object(self, shape: Shape, at: tuple[int, ...]) -> Object:
        made = Object(shape, self.misses, notes_tests=self._notes_tests)
        for key, child in shape.keys.items():
            there = self._choice(child, at) is not ABSENT
            if there and (self._mode == FLAT or not child.fallback):
                made[key] = self._value(child, at)
        if shape.keyed_by:
            depth = min(shape.keyed_by.name.count("[]"), _MAX_KEYS_DEPTH)
            places = product(range(2), repeat=depth)
            for key in (*(self._text(shape.keyed_by, place) for place in places), *shape.keyed_by.constants):
                made[str(key)] = self._value(shape.element(), at)
            self._add_surplus(made, shape, at, self._value(shape.element(), (*at, 0)))
        elif shape.each or not (shape.keys or shape is self._root):
            self.elements[shape.element()] = shape
            for number in range(min(shape.least, 2)):
                made[self._text(shape, (*at, number))] = self._value(shape.element(), (*at, number))
        else:
            self._add_surplus(made, shape, at)
        return made

    def _add_surplus(self, made: Object, shape: Shape, at: tuple[int, ...], value: Any = None) -> None:
        """Add an item that is only seen by a text that shows the whole object."""
        surplus = self._surplus.setdefault(shape, Shape(""))
        key = str(self._text(surplus, at, PLAIN))
        made[key] = self._text(surplus, (*at, 0), PLAIN) if value is None else value
        if key not in self._surplus_keys:
            self._surplus_keys.add(key)
            text = f"{key} {made[key]}"
            found = (*_CHUNK.findall(text), *_NUMBER.findall(text))
            self.surplus_markers |= {marker: shape for marker in found if marker in self.markers}

    def _value(self, shape: Shape, at: tuple[int, ...], override: Choice | None = None) -> Any:
        self.made += 1
        likeliest = shape.kinds[0]
        choice = override or self._choice(shape, at) or Choice(likeliest)
        kind = choice.kind if choice.kind in KINDS else likeliest
        if choice.kind == "literal":
            if shape.is_printed and self._is_own(choice.value):
                self.literals[choice.value] = shape
            return choice.value
        if choice.kind == "like":
            other, place = choice.value, (0,) * choice.value.name.count("[]")
            number = other.kinds[0] in {"count", "number"}
            return self._numeric(other, other.kinds[0], choice, place) if number else self._text(other, place)
        if choice.kind == "empty":
            return {"list": [], "object": {}}.get(kind, "")
        if kind == "flag" or (self._mode == FLAT and "section" in shape.uses and kind == likeliest):
            return True
        if kind == "list":
            return self._list(shape, choice, at)
        if kind == "object":
            return self._object(shape, at)
        if kind in {"count", "number"}:
            return self._numeric(shape, kind, choice, at)
        return self._chosen_text(shape, choice, at)

    def _is_own(self, constant: object) -> bool:
        """Whether a constant can be told from what stands in the texts for itself, as words that may be reworded."""
        if not isinstance(constant, str) or sum(map(str.isalpha, constant)) <= 1:
            return False
        return self._folded.count(constant.casefold()) == int(constant in self._constants)

    def _list(self, shape: Shape, choice: Choice, at: tuple[int, ...]) -> list[Any] | str:
        if choice.kind == "around":
            # A search in a list can't always be distinguished from one in a text.
            text = self._text(shape, at)
            return self._chosen_text(shape, choice, at) if "text" in shape.uses else [choice.value, text]
        usual = shape.least if len(at) < _MAX_NESTING else min(shape.least, 1)
        size = choice.value if choice.kind == "size" else usual
        place, override = choice.value if choice.kind == "at" else (None, None)
        elements = [
            self._value(shape.element(), (*at, number), override if number == place else None) for number in range(size)
        ]
        return [*elements[:-1], self._text(shape.holds, at)] if shape.holds and elements else elements

    def _chosen_text(self, shape: Shape, choice: Choice, at: tuple[int, ...]) -> str:
        text = self._text(shape, at)
        if choice.kind == "around":
            around = f"{choice.value}{text} {choice.value} {text}{choice.value}"
            if _PLAIN.fullmatch(choice.value):
                self.literals[around.strip()] = shape
            return around
        if choice.kind == "pieces":
            separator, count = choice.value
            return str(separator).join([text] * count)
        if choice.kind == "size":
            return text.ljust(choice.value, "0")[: choice.value]
        if shape.holds:
            return f"{text} {self._text(shape.holds, at)}"
        return f"{_falling(at)} {text} {text}" if choice is OTHER else text

    def _choice(self, shape: Shape, at: tuple[int, ...]) -> Choice | None:
        """Return the unusual value that was chosen, which may be that of every second element only."""
        choice = self._choices.get(shape)
        if choice is None or choice.kind != "second":
            return choice
        parity, inner = choice.value
        return inner if at[-1] % 2 == parity else None

    def _number(self, shape: Shape, at: tuple[int, ...]) -> int:
        return self._numbers.setdefault((shape, at), len(self._numbers))

    def _numeric(self, shape: Shape, kind: str, choice: Choice, at: tuple[int, ...]) -> float:
        if kind == "count":
            return 3 if choice is OTHER else 1
        place = self._number(shape, at)
        if choice is OTHER:
            # The other values fall where the usual ones rise, so that sorting a list makes a difference.
            place = _OTHER_NUMBER + (-place if place < _OTHER_NUMBER else place)
        number = self._first_number + place
        self.markers[str(number)] = shape
        if self._mode != FRACTIONS:
            return number
        self.markers[str(number + _FRACTION)] = shape
        return number + _FRACTION

    def _text(self, shape: Shape, at: tuple[int, ...], mode: str | None = None) -> str:
        key = (shape, at, self._mode if mode is None else mode)
        if key not in self._texts:
            self._texts[key] = self._new_text(*key)
        return self._texts[key]

    def _new_text(self, shape: Shape, at: tuple[int, ...], mode: str) -> str:
        number = self._number(shape, at)
        if number >= _MOST_VALUES:
            return "0"
        name = f"{(self._first_text + number) % _MOST_VALUES:04o}"
        chunks = [f"9{name}{place:02o}8" for place in range(len(_LONG) if mode == LONG else 2)]
        self.markers |= dict.fromkeys(chunks, shape)
        text = " ".join(chunks)
        if mode == LONG:
            text = ""
            for start, chunk in zip(_LONG, chunks, strict=True):
                text += f"{_PROSE[len(text) : start - 1]} {chunk}"
        value = Value(text)
        value._shape, value._misses = shape, self.misses
        return value


def _falling(at: tuple[int, ...]) -> str:
    """Return what a text begins with, so that it comes before those of the elements before its own."""
    return chr(ord("z") - (at[-1] % 26 if at else 0))
