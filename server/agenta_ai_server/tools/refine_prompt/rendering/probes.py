"""Stand-ins for inputs that record what a Jinja2 template does with them, instead of having a value."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from functools import wraps
from typing import TYPE_CHECKING, Any, SupportsIndex

from agenta_ai_server.tools.refine_prompt.rendering.shapes import METHODS, Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

# A list inside of a list inside of a list …: deeper, a recursive loop is taken to end.
_MAX_NESTING = 4
_METHODS_OF_LISTS = frozenset(dir(list)) - frozenset(dir(str))
_SEARCHES = frozenset({"startswith", "endswith", "find", "rfind", "index", "count", "replace", "removeprefix", "split"})
# Filters and methods that return a number.
_NUMBERS = frozenset({"length", "count", "find", "index", "rfind", "rindex", "wordcount"})
# Where filters and methods take numbers, and the names of such arguments.
_NONE, _FIRST, _THIRD, _AFTER_FIRST = slice(0), slice(1), slice(2, 3), slice(1, None)
_NUMBERS_AT = {
    **dict.fromkeys(("batch", "center", "expandtabs", "indent", "ljust", "rjust"), _FIRST),
    **dict.fromkeys(("divisibleby", "round", "slice", "truncate", "wordwrap", "zfill"), _FIRST),
    **dict.fromkeys(("count", "find", "index", "rfind", "rindex", "rsplit", "split"), _AFTER_FIRST),
    "replace": _THIRD,
}
_NUMBERS_NAMED = frozenset({"count", "length", "linecount", "maxsplit", "precision", "slices", "width"})
# Filters that compare or add the elements of a list.
_OF_ONE_KIND = frozenset({"max", "min", "sort", "sum"})
# Filters that ask whether there is a list before they go through it, which makes it no condition.
_EMPTY_OR_LIST = frozenset({"map", "reject", "rejectattr", "select", "selectattr"})
# The most elements that a list has because of its constant indexes, and into how many pieces a text is taken to fall.
MAX_LENGTH = 50
_PIECES = 4


class Origin(Enum):
    """What a probe has to do with the inputs that it comes from."""

    ITSELF = auto()
    MADE = auto()
    """It was made from them, as their capitals, and has another shape than they."""
    CALCULATED = auto()
    """It was calculated from them, which therefore are numbers."""
    COUNTED = auto()
    """It says how often something is in them, or where."""
    LENGTH = auto()


_NUMERIC = {Origin.CALCULATED, Origin.COUNTED, Origin.LENGTH}


class Probe(str):
    """Has every attribute, item and element, and takes part in every operation.

    It is a ``str``, since filters and methods ask for one.

    Args:
        shapes: Of the inputs that it may be, or comes from.
        origin: What it has to do with them.
    """

    __hash__ = str.__hash__

    def __new__(cls, *shapes: Shape, origin: Origin = Origin.ITSELF) -> Probe:
        """Make one that reads as a digit."""
        probe = super().__new__(cls, "1")
        probe._shapes, probe.origin = shapes, origin
        return probe

    _shapes: tuple[Shape, ...]
    origin: Origin

    @property
    def is_derived(self) -> bool:
        """Whether it isn't one of the inputs."""
        return self.origin is not Origin.ITSELF

    @property
    def is_numeric(self) -> bool:
        """Whether it is a number, so that what it is compared with is one as well."""
        return self.origin in _NUMERIC

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes of the inputs that it may be."""
        return self._shapes

    def use(self, use: str) -> None:
        """Record what is done with it."""
        for shape in self.shapes:
            # A sum that is used as a number is a sum of numbers, and a calculated index is that of a small number.
            summed, counts = use == "number" and shape.of_one_kind, use == "count" and self.origin is Origin.CALCULATED
            if not self.is_derived or summed or counts:
                shape.uses.add(use)
            if use == "condition":
                shape.uses.add(use)
                shape.decides = True

    def compare(self, other: object) -> None:
        """Record what it is compared with."""
        for shape in other.shapes if isinstance(other, Probe) else ():
            shape.decides = True
        for shape in self.shapes:
            shape.decides = True
            if self.origin is Origin.LENGTH and isinstance(other, int):
                shape.sizes.add(other)
            elif isinstance(other, Probe):
                shape.like = next((each for each in other.shapes if each is not shape), None)
                if shape.like and not shape.like.like:
                    shape.like.like = shape
            elif self.origin is not Origin.LENGTH:
                shape.compare(other)
        if _is_number(other) or (isinstance(other, Probe) and self.is_numeric):
            _use_as_numbers((self, other))

    def search(self, part: object) -> None:
        """Record what is looked for in it."""
        for shape in self.shapes:
            shape.decides = True
            if isinstance(part, Probe):
                shape.holds = next((each for each in part.shapes if each is not shape), None)
            elif isinstance(part, str):
                shape.parts.append(part)

    def key(self, name: str) -> Probe:
        """Return what stands for one of its items."""
        return Probe(*(shape.key(name) for shape in self.inner))

    @property
    def each(self) -> Probe:
        """What stands for one of its elements."""
        return Probe(*(shape.element() for shape in self.inner))

    @property
    def inner(self) -> tuple[Shape, ...]:
        """What has its items: itself, or something new if it was derived."""
        return tuple(Shape(shape.name) for shape in self.shapes) if self.is_derived else self.shapes

    @property
    def _ends(self) -> bool:
        """Whether it is so deep that a recursive loop is taken to end."""
        return all(shape.name.count("[]") >= _MAX_NESTING for shape in self.shapes)

    def made(self, use: str = "", origin: Origin = Origin.MADE) -> Probe:
        """Return what was made from it, by something that uses it in this way."""
        if use:
            self.use(use)
        if use == "number":
            is_number = self.origin in {Origin.ITSELF, Origin.CALCULATED}
            origin = Origin.CALCULATED if is_number else Origin.COUNTED
        return Probe(*self.shapes, origin=origin)

    def measured(self) -> Probe:
        """Return its length."""
        return self.made("measured", Origin.LENGTH)

    def method(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of texts, lists or objects."""
        use_numbers(name, args, kwargs)
        if name == "get" and args:
            self.use("object")
            item = self[args[0]]
            for shape in item.shapes if len(args) > 1 else ():
                shape.decides = True
            return either(item, *args[1:])
        if name in METHODS:
            self.use("object")
            if self._ends and name in {"items", "values"}:
                for shape in self.shapes if not self.is_derived else ():
                    shape.least = 0
                return Elements([], self)
            found = {"items": [(self.made(), self.each)], "keys": [self.made()], "values": [self.each]}
            return found.get(name, self.each)
        if name in _METHODS_OF_LISTS:
            return self.made("list")
        if name in _SEARCHES and args:
            self.search(args[0])
        made = self.made("text" if hasattr(str, name) else "", _origin(name))
        if "split" in name:
            return Pieces([made] * _PIECES, self, next((each for each in args if isinstance(each, str)), " "))
        return [made] * _PIECES if "partition" in name else made

    def items(self) -> Any:
        """Do as an object does."""
        return self.method("items")

    def keys(self) -> Any:
        """Do as an object does."""
        return self.method("keys")

    def values(self) -> Any:
        """Do as an object does."""
        return self.method("values")

    def __call__(self, *args: Any, **kwargs: Any) -> Probe:
        return self.made()

    def __getitem__(self, key: Any) -> Any:
        is_list = any("indexed" in shape.uses for shape in self.inner)
        if isinstance(key, Probe) and (key.is_numeric or is_list):
            self.use("list")
            key.use("count")
            return self.each
        if isinstance(key, Probe):
            for shape in self.inner:
                element = shape.element()
                own = element in key.shapes or shape in key.shapes
                shape.keyed_by = None if own or not key.shapes else key.shapes[0]
                shape.uses |= {"object"} if own else set()
            return self.each
        if isinstance(key, str):
            return self.key(key)
        if isinstance(key, slice):
            for shape in self.shapes:
                shape.sizes |= {abs(end) for end in (key.start, key.stop) if isinstance(end, int)}
            _use_as_numbers((key.start, key.stop, key.step))
            return self
        if isinstance(key, int) and not self.is_derived:
            # From the end, one element more than needed tells it from an index from the beginning.
            least = key + 1 if key >= 0 else 2 - key
            for shape in self.shapes if least <= MAX_LENGTH else ():
                shape.least = max(shape.least, least)
                shape.uses.add("indexed")
        return self.each

    def __iter__(self) -> Iterator[Any]:
        self.use("list")
        if self._ends:
            for shape in self.shapes if not self.is_derived else ():
                shape.least = 0
            return iter(())
        return iter([self.each, self.each])

    def __reversed__(self) -> Iterator[Any]:
        return iter(self)

    def __len__(self) -> int:
        return 2

    def __bool__(self) -> bool:
        self.use("condition")
        return True

    def __contains__(self, part: object) -> bool:
        self.search(part)
        return True

    def __eq__(self, other: object) -> bool:
        self.compare(other)
        return False

    def __ne__(self, other: object) -> bool:
        self.compare(other)
        return True

    def _show(self) -> None:
        self.use("shown")
        for shape in self.shapes:
            shape.uses.add("printed")

    def __format__(self, spec: str) -> str:
        self._show()
        try:
            return format("1", spec)
        except ValueError:
            self.use("number")
            return "1"

    def __str__(self) -> str:
        self._show()
        return "1"

    def lower(self) -> str:
        """Do as a text does. Only filters that sort call it, to ignore case."""
        self.use("ordered")
        return super().lower()

    def __add__(self, other: Any) -> Any:
        if isinstance(other, Probe):
            if self.is_numeric or other.is_numeric:
                return _arithmetic(self, other)
            _are_of_one_kind(self, other)
            return either(self, other)
        if isinstance(other, list):
            return [*self, *other]
        return self.made("number" if isinstance(other, int | float) else "text")

    __radd__ = __add__

    def __rmod__(self, other: Any) -> Any:
        # Python calls this before the operator of a text that is a format.
        return other % (self,) if isinstance(other, str) else _arithmetic(self, other)

    def __index__(self) -> int:
        self.use("count")
        return 1

    def __int__(self) -> int:
        self.use("number")
        return 1

    def __float__(self) -> float:
        self.use("number")
        return 1.0

    def __round__(self, digits: SupportsIndex = 0) -> Probe:
        return self.made("number")


def use_numbers(name: str, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
    """Record which probes a filter, a test or a method takes as numbers, besides the value that it is applied to."""
    named = (kwargs[key] for key in _NUMBERS_NAMED & kwargs.keys())
    _use_as_numbers((*args[_NUMBERS_AT.get(name, _NONE)], *named))


def use_counts(values: Iterable[object]) -> None:
    """Record that the probes among these values are used as small numbers."""
    for value in values:
        if isinstance(value, Probe):
            value.use("count")


def _is_number(value: object) -> bool:
    if isinstance(value, Probe):
        return value.is_numeric
    return isinstance(value, int | float) and not isinstance(value, bool)


def _use_as_numbers(values: Iterable[object]) -> None:
    for value in values:
        if isinstance(value, Probe):
            value.use("number")


def _arithmetic(self: Probe, *others: Any) -> Probe:
    _use_as_numbers((self, *others))
    # A repeated text or list is no number.
    return self.made("number" if all(isinstance(each, int | float | Probe) for each in others) else "")


def _are_of_one_kind(*pair: Probe) -> None:
    for one, other in (pair, reversed(pair)):
        for shape in one.shapes if not one.is_derived else ():
            shape.of_one_kind += [each for each in other.shapes if each is not shape]


def _order(self: Probe, other: object) -> bool:
    self.compare(other)
    if isinstance(other, Probe):
        _are_of_one_kind(self, other)
        for each in (self, other):
            # Mostly numbers, whose order can be changed; and else dates.
            each.use("number")
            each.use("text")
            each.use("ordered")
    return True


for _name in ("sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "floordiv", "rfloordiv", "mod", "pow", "rpow"):
    setattr(Probe, f"__{_name}__", _arithmetic)


for _name in ("neg", "pos", "abs"):
    setattr(Probe, f"__{_name}__", _arithmetic)
for _name in ("lt", "le", "gt", "ge"):
    setattr(Probe, f"__{_name}__", _order)


class Elements(list[Any]):
    """What stands for elements of a list, picked or sorted by a filter.

    Args:
        elements: What stands for the elements.
        source: What stands for the list.
    """

    def __init__(self, elements: Iterable[Any], source: Probe) -> None:
        super().__init__(elements)
        self.source = source

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, slice):
            return super().__getitem__(key)
        _ = self.source[key]
        return Elements(self, self.source)


class Pieces(list[Probe]):
    """What stands for the pieces of a text.

    Args:
        probes: The pieces.
        whole: What stands for the text.
        separator: What is between the pieces.
    """

    def __init__(self, probes: Iterable[Probe], whole: Probe, separator: str) -> None:
        super().__init__(probes)
        self._whole, self._separator = whole, separator

    def are_so_many(self, count: int) -> None:
        """Record how many pieces there must be."""
        for shape in self._whole.shapes:
            shape.pieces = (str(self._separator), count)


class Attribute(Probe):
    """An attribute of a probe, which is either an item or a method that is about to be called."""

    owner: Probe
    name: str

    @classmethod
    def of(cls, owner: Probe, name: str) -> Attribute:
        """Return the attribute of this name."""
        attribute = cls()
        attribute.owner, attribute.name = owner, name
        return attribute

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes of the items, which there are from now on."""
        self._shapes = self._shapes or self.owner.key(self.name).shapes
        return self._shapes

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.owner.method(self.name, *args, **kwargs)


def show(*values: object) -> None:
    """Record that probes are put into a format. Python itself would refuse to show one as a number."""
    for value in values:
        if isinstance(value, tuple):
            show(*value)
        elif isinstance(value, Probe):
            str(value)


def either(*values: Any) -> Any:
    """Return what stands for all these values together."""
    probes = [value for value in values if isinstance(value, Probe)]
    shapes = [shape for probe in probes for shape in probe.shapes]
    if not probes:
        return values[0]
    origins = {probe.origin for probe in probes}
    return Probe(*shapes, origin=Origin.ITSELF if Origin.ITSELF in origins else probes[0].origin)


def _origin(name: str) -> Origin:
    return Origin.COUNTED if name in _NUMBERS else Origin.MADE


def _picked(result: Any, source: Any) -> Any:
    """Return what a filter picks from a list, which is cut where the list is."""
    is_list = isinstance(source, Probe) and isinstance(result, list | Iterator)
    return Elements(result, source) if is_list else result


def recorded(function: Callable[..., Any], name: str, use: str) -> Callable[..., Any]:
    """Return a filter that never raises, and records that it was applied to a probe."""
    place = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def apply(*args: Any, **kwargs: Any) -> Any:
        value = args[place] if len(args) > place else None
        use_numbers(name, args[place + 1 :], kwargs)
        if name == "format":
            show(*args[place + 1 :], *kwargs.values())
        if name in _OF_ONE_KIND and isinstance(value, list | tuple) and any(map(_is_number, value)):
            _use_as_numbers(value)
        source = value.source if isinstance(value, Elements) else value
        if isinstance(source, Probe) and use == "measure":
            return source.measured()
        if isinstance(value, Probe) and name == "replace":
            value.search(args[place + 1] if len(args) > place + 1 else None)
        if isinstance(value, Probe) and name in _EMPTY_OR_LIST:
            args = (*args[:place], list(value), *args[place + 1 :])
        elif isinstance(value, Probe) and use != "through":
            return value.made(use, _origin(name))
        try:
            return _picked(function(*args, **kwargs), source)
        except Exception:
            return value.made() if isinstance(value, Probe) else value

    return apply
