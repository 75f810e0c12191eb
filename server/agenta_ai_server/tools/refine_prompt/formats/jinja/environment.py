"""What Agenta's Jinja2 knows: filters, tests, functions and methods, and how each may be called."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, cast

from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

ENVIRONMENT: Final = ImmutableSandboxedEnvironment()
FUNCTIONS: Final = frozenset(ENVIRONMENT.globals)

# Inputs are JSON, so these are all that can be called on one; the last four are methods of a cycler and of a loop.
_METHODS = frozenset(
    name for kind in (str, int, float, list, tuple, dict) for name in dir(kind) if not name.startswith("_")
) | {"next", "reset", "cycle", "changed"}
# A literal has the methods of its own kind only.
_LITERALS: Final[Mapping[type[nodes.Node], type]] = {nodes.List: list, nodes.Tuple: tuple, nodes.Dict: dict}

#: Attributes of an object of JSON that are its methods, and hide items of the same name.
METHODS_OF_OBJECTS: Final = frozenset(name for name in dir(dict) if not name.startswith("_"))
#: What can show its arguments, and not only use them.
SHOWING_FILTERS: Final = frozenset({"default", "d", "format"})
SHOWING_METHODS: Final = frozenset({"format", "join", "get", "setdefault", "cycle"})
#: Filters that give an attribute of each element, and not the elements.
EXTRACTING_FILTERS: Final = frozenset({"map", "sum", "join"})
#: What tells something about a value, a number or a yes, and doesn't show it.
TELLING_FILTERS: Final = frozenset({"length", "count", "wordcount"})
TELLING_METHODS: Final = frozenset({"count", "find", "rfind", "index", "rindex", "startswith", "endswith"})
#: Functions that make something of numbers, and show nothing of them.
COUNTING_FUNCTIONS: Final = frozenset({"range", "lipsum"})

# Filters that take the name of another filter or test, and the place of that name among their arguments.
_INDIRECT = {
    "map": (ENVIRONMENT.filters, 0),
    "select": (ENVIRONMENT.tests, 0),
    "reject": (ENVIRONMENT.tests, 0),
    "selectattr": (ENVIRONMENT.tests, 1),
    "rejectattr": (ENVIRONMENT.tests, 1),
}
# Filters that take the name of an attribute, and the place of that name among their arguments.
_ATTRIBUTE = {
    **dict.fromkeys(("attr", "groupby", "selectattr", "rejectattr", "sum"), 0),
    **dict.fromkeys(("join", "unique", "min", "max"), 1),
    "sort": 2,
}
# How many arguments a function needs and takes that its signature doesn't tell.
_COUNTS = {"range": (1, 3), "cycler": (1, 1000)}


def filter_fault(node: nodes.Filter) -> str:
    """Why this use of a filter raises whatever the value, or nothing."""
    known, place = _INDIRECT.get(node.name, ({}, 0))
    target = constant(node.args[place]) if len(node.args) > place else None
    if known and isinstance(target, str) and target not in known:
        return f"there is no filter or test named {target!r}"
    return _fault("filter", node, ENVIRONMENT.filters)


def test_fault(node: nodes.Test) -> str:
    """Why this use of a test raises whatever the value, or nothing."""
    return _fault("test", node, ENVIRONMENT.tests)


def function_fault(name: str, node: nodes.Call) -> str:
    """Why calling this function raises, or nothing."""
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        return ""
    least, most = _COUNTS.get(name, (0, 1000))
    if not least <= len(node.args) <= most:
        return f"{name!r} can't be called with {len(node.args)} arguments"
    return _call_fault("function", name, cast("Callable[..., Any]", ENVIRONMENT.globals[name]), node.args, node.kwargs)


@dataclass(frozen=True, slots=True)
class Macro:
    """What a macro takes.

    Attributes:
        names: Of its arguments, each of which may be left out.
        asks: All names in it, among which may be ``varargs``, ``kwargs`` and ``caller``.
    """

    names: tuple[str, ...]
    asks: frozenset[str]

    @classmethod
    def of(cls, node: nodes.Macro) -> Macro:
        """What a macro of a template takes."""
        return cls(tuple(arg.name for arg in node.args), frozenset(name.name for name in node.find_all(nodes.Name)))

    def fault(self, node: nodes.Call) -> str:
        """Why calling it like this raises, or nothing."""
        if len(node.args) > len(self.names) and "varargs" not in self.asks:
            return f"the macro can't be called with {len(node.args)} arguments"
        taken = {*self.names[len(node.args) :], *self.asks & {"caller"}}
        unknown = sorted({str(keyword.key) for keyword in node.kwargs} - taken)
        return f"the macro takes no argument {unknown[0]!r} here" if unknown and "kwargs" not in self.asks else ""


def method_fault(name: str, of: nodes.Node) -> str:
    """Why calling this method of an input or of a literal raises, or nothing."""
    kind = type(of.value) if isinstance(of, nodes.Const) else _LITERALS.get(type(of))
    if kind:
        return "" if hasattr(kind, name) else f"{kind.__name__} has no method {name!r}"
    return "" if name in _METHODS else f"there is no method {name!r}"


def attribute_fault(name: str) -> str:
    """Why the sandbox refuses this attribute of anything, or nothing."""
    forbidden = name.startswith("__") and name.endswith("__")
    return f"the sandbox doesn't give access to {name!r}" if forbidden else ""


def filtered_attributes(node: nodes.Filter) -> list[list[str | int]]:
    """The attributes that a filter reads from each element, step by step, as in ``map(attribute="address.city")``."""
    named = [keyword.value for keyword in node.kwargs if keyword.key == "attribute"]
    if node.name in _ATTRIBUTE:
        named += node.args[_ATTRIBUTE[node.name] :][:1]
    name = constant(named[0]) if named else None
    if name is None or isinstance(name, bool):
        return []
    several = str(name).split(",") if node.name == "sort" else [str(name)]
    return [[int(step) if step.isdecimal() else step for step in each.split(".")] for each in several]


def truth(node: nodes.Node) -> bool | None:
    """Whether a literal counts as true, or ``None`` for what is no literal."""
    if isinstance(node, nodes.Const):
        return bool(node.value)
    if isinstance(node, nodes.List | nodes.Tuple | nodes.Dict):
        return bool(node.items)
    inner = truth(node.node) if isinstance(node, nodes.Not) else None
    return None if inner is None else not inner


def is_empty(node: nodes.Slice) -> bool:
    """Whether a slice has no elements, as in ``name[0:0]``."""
    start, stop = constant(node.start) or 0, constant(node.stop)
    return isinstance(start, int) and isinstance(stop, int) and node.step is None and 0 <= stop <= start


def constant(node: nodes.Node | None) -> object:
    """The value of a literal, or ``None`` for anything else. Computes nothing, as what it is given may be endless."""
    if isinstance(node, nodes.Const):
        return node.value
    if isinstance(node, nodes.Neg) and isinstance(node.node, nodes.Const) and isinstance(node.node.value, int):
        return -node.node.value
    return None


def _fault(kind: str, node: nodes.Filter | nodes.Test, known: Mapping[str, Any]) -> str:
    function = known.get(node.name)
    if function is None:
        return f"there is no {kind} named {node.name!r}"
    if node.dyn_args is not None or node.dyn_kwargs is not None:
        return ""
    return _call_fault(kind, node.name, function, [None, *node.args], node.kwargs)


def _call_fault(
    kind: str,
    name: str,
    function: Callable[..., Any],
    args: Sequence[object],
    kwargs: Iterable[nodes.Keyword | nodes.Pair],
) -> str:
    signature = _signature(function)
    if signature is None:
        return ""
    try:
        signature.bind(*args, **{str(keyword.key): None for keyword in kwargs})
    except TypeError as error:
        return f"the {kind} {name!r} can't be called like this: {error}"
    return ""


@cache
def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """How a template calls a filter or test: without what Jinja2 itself hands over first."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return None
    if not hasattr(inspect.unwrap(function), "jinja_pass_arg"):
        return signature
    return signature.replace(parameters=list(signature.parameters.values())[1:])
