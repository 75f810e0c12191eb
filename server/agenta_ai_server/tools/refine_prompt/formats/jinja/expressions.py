"""What a Jinja2 expression stands for."""

from __future__ import annotations

from collections import ChainMap, Counter
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Final, TypeAlias

from jinja2 import nodes

from agenta_ai_server.tools.refine_prompt.formats import jsonpath
from agenta_ai_server.tools.refine_prompt.formats.comparison import ASSIGNED, READ
from agenta_ai_server.tools.refine_prompt.formats.jinja import environment as known
from agenta_ai_server.tools.refine_prompt.formats.syntax import TemplateSyntaxError, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

#: Paths that start at an input of the template, as in ``order.items[].sku``; and two other things that are kept with
#: them: what a macro reads, with a mark before it, and ``MACRO`` and the like for what is no input.
Paths: TypeAlias = frozenset[str]
#: What each local name stands for: paths, or none if it was made without any input.
Scope: TypeAlias = ChainMap[str, Paths]

NOTHING: Paths = frozenset()
#: Begins what is no path.
NO_INPUT: Final = "("
_MARKS = READ + ASSIGNED
#: What can be called, and isn't known any better.
MACRO: Final = "(macro)"
NAMESPACE: Final = "(namespace)"

# Jinja2 makes a Python program from a template, and Python nests a hundred blocks and two hundred brackets.
_MAX_DEPTH = 50
# An operator makes one pair of brackets, other expressions up to four.
_OPERATORS_PER_LEVEL = 3
# Bounds on what a template that was made to be expensive can make of its names.
_MAX_PATHS = 200
_MAX_PATH_LENGTH = 1000
_MAX_CHARACTERS = 1_000_000
# What an operator doesn't look further after.
_DECISIVE: Final[Mapping[type[nodes.Node], bool]] = {nodes.And: False, nodes.Or: True}


class Expressions:
    """Reads expressions.

    Each method returns what its expression stands for, which the user of the expression may extend by an attribute
    before it is recorded, and records what is read on the way: an index, a condition, an argument.

    Attributes:
        used: The paths that were recorded: as they are if they are shown, and with ``READ`` or ``ASSIGNED`` before them
            if not.
        macros: The macros so far, by what stands for each.
    """

    def __init__(self) -> None:
        self.used: set[str] = set()
        self.macros: dict[str, known.Macro] = {}
        self._depth = 0
        self._characters = 0

    def show(self, items: Iterable[nodes.Node | None], scope: Scope) -> None:
        """Read expressions and record that what they stand for is shown."""
        self.used |= inputs(self._values(items, scope))

    def read(self, items: Iterable[nodes.Node | None], scope: Scope) -> Paths:
        """Read expressions and record that what they stand for is read, but not shown."""
        paths = self._values(items, scope)
        self.record(paths)
        return paths

    def visit(self, kind: str, node: nodes.Node, scope: Scope) -> Paths:
        """Read a node by the method that is named like it."""
        with self._deeper(1, node):
            name = "binexpr" if isinstance(node, nodes.BinExpr) else type(node).__name__.lower()
            method = getattr(self, f"_{kind}_{name}", None) or getattr(self, f"_{kind}_other")
            paths: Paths = method(node, scope)
            return paths

    def extended(self, paths: Paths, step: str, node: nodes.Node) -> Paths:
        """Each path with one more step at its end."""
        self.spend(sum(len(path) + len(step) for path in paths), node)
        if len(paths) > _MAX_PATHS or any(len(path) + len(step) > _MAX_PATH_LENGTH for path in paths):
            raise fault("This is too complex to follow.", node)
        return frozenset(path if path[0] in _MARKS + NO_INPUT else path + step for path in paths)

    def spend(self, characters: int, node: nodes.Node) -> None:
        """Take account of work that a template makes, which may be far more than it has characters."""
        self._characters += characters
        if self._characters > _MAX_CHARACTERS:
            raise fault("This is too complex to follow.", node)

    @contextmanager
    def captured(self) -> Iterator[set[str]]:
        """Record for a while in another set than ``used``, which is then for the caller to use."""
        kept, self.used = self.used, set()
        try:
            yield self.used
        finally:
            self.used = kept

    def reached(self, condition: bool) -> AbstractContextManager[object]:
        """Record only if a condition holds; what is never reached must be correct, but uses nothing."""
        return nullcontext() if condition else self.captured()

    @contextmanager
    def _deeper(self, levels: int, node: nodes.Node) -> Iterator[None]:
        self._depth += levels
        if self._depth > _MAX_DEPTH:
            raise fault("This is nested too deep.", node)
        yield
        self._depth -= levels

    def record(self, paths: Paths, mark: str = READ) -> None:
        """Record that paths are read, but not shown."""
        self.used.update(path if path[0] in _MARKS else mark + path for path in inputs(paths))

    def _values(self, items: Iterable[nodes.Node | None], scope: Scope) -> Paths:
        return NOTHING.union(*(self._value(node, scope) for node in items if node is not None))

    def _value(self, node: nodes.Node, scope: Scope) -> Paths:
        return self.visit("value", node, scope)

    def _value_other(self, node: nodes.Node, scope: Scope) -> Paths:
        """Literals and the like stand for all that they are made from."""
        return self._values(node.iter_child_nodes(), scope)

    def _value_const(self, node: nodes.Const, scope: Scope) -> Paths:
        if isinstance(node.value, str) and jsonpath.MARK in node.value:
            raise fault("A JSONPath can't stand in an expression: Agenta fills it in later.", node)
        return NOTHING

    def _value_name(self, node: nodes.Name, scope: Scope) -> Paths:
        return lookup(node.name, scope)

    def _value_getattr(self, node: nodes.Getattr, scope: Scope) -> Paths:
        of = self._value(node.node, scope)
        if inputs(of) and node.attr in known.METHODS_OF_OBJECTS:
            reason = f"{node.attr!r} is a method of every object; for the input of that name write ['{node.attr}']"
            _refuse(reason, node)
        return self._attribute(of, node.attr, node)

    def _value_getitem(self, node: nodes.Getitem, scope: Scope) -> Paths:
        of, key = self._value(node.node, scope), known.constant(node.arg)
        if isinstance(key, str):
            return self._attribute(of, key, node)
        if key is not None:
            return self.extended(of, f"[{key!r}]", node)
        self.read([node.arg], scope)
        if isinstance(node.arg, nodes.Slice):
            # The elements are the same, if there are any.
            return self._unshown(of) if known.is_empty(node.arg) else of
        return self.extended(of, "[]", node)

    def _value_binexpr(self, node: nodes.BinExpr, scope: Scope) -> Paths:
        """Operators from left to right; a chain of them is no nesting that anyone would see."""
        chain = []
        first: nodes.Node = node
        while isinstance(first, nodes.BinExpr):
            chain.append(first)
            first = first.left
        with self._deeper(len(chain) // _OPERATORS_PER_LEVEL, node):
            paths = self._value(first, scope)
            for each in reversed(chain):
                paths = self._operator(each, paths, scope)
        return paths

    def _operator(self, node: nodes.BinExpr, left: Paths, scope: Scope) -> Paths:
        truth, decisive = known.truth(node.left), _DECISIVE.get(type(node))
        if isinstance(node, nodes.And):
            left = self._unshown(left)
        reached = truth is None or truth is not decisive
        with self.reached(reached):
            right = self._value(node.right, scope)
        return left | right if reached else left

    def _value_unshown(self, node: nodes.Node, scope: Scope) -> Paths:
        """A yes or no tells nothing of what it was asked about."""
        self.read(node.iter_child_nodes(), scope)
        return NOTHING

    _value_not = _value_compare = _value_unshown

    def _value_condexpr(self, node: nodes.CondExpr, scope: Scope) -> Paths:
        self.read([node.test], scope)
        paths, truth = NOTHING, known.truth(node.test)
        for value, reached in ((node.expr1, truth is not False), (node.expr2, truth is not True)):
            with self.reached(reached):
                found = self._values([value], scope)
            paths |= found if reached else NOTHING
        return paths

    def _value_filter(self, node: nodes.Filter, scope: Scope) -> Paths:
        """Filters may change, so that what was filtered keeps its name."""
        _refuse(known.filter_fault(node), node)
        of = self._values([node.node], scope)
        arguments = self._arguments(node, scope, shown=node.name in known.SHOWING_FILTERS)
        if node.name == "attr":
            # Only attributes, no items: nothing, for an object of JSON.
            return self.extended(of, "|attr", node) | arguments
        if node.name in known.TELLING_FILTERS:
            return self._unshown(of)
        named = known.filtered_attributes(node)
        attributes = NOTHING.union(*(self._attributes(of, steps, node) for steps in named))
        if named and node.name in known.EXTRACTING_FILTERS:
            return attributes
        self.record(attributes)
        return of | arguments

    def _value_test(self, node: nodes.Test, scope: Scope) -> Paths:
        _refuse(known.test_fault(node), node)
        unique((str(keyword.key) for keyword in node.kwargs), node)
        return self._value_unshown(node, scope)

    def _value_call(self, node: nodes.Call, scope: Scope) -> Paths:
        if isinstance(node.node, nodes.Name):
            return self._called(node.node.name, node, scope)
        if isinstance(node.node, nodes.Getattr):
            return self._method(node.node, node, scope)
        raise fault("Only a function, a macro or a method of something can be called.", node)

    def _called(self, name: str, node: nodes.Call, scope: Scope) -> Paths:
        """What a macro returns is what it shows, and its arguments if it shows one; and so for a function."""
        if name in scope:
            return self._called_macro(name, node, scope)
        if name not in known.FUNCTIONS:
            raise fault(f"{shown(name)} can't be called: no input is a function.", node)
        _refuse(known.function_fault(name, node), node)
        arguments = self._arguments(node, scope, shown=name not in known.COUNTING_FUNCTIONS)
        if name == "namespace":
            self.used |= inputs(arguments)
            return frozenset({NAMESPACE})
        return arguments | {MACRO} if name == "joiner" else arguments

    def _called_macro(self, name: str, node: nodes.Call, scope: Scope) -> Paths:
        of = scope[name]
        # The last two are parameters: what is called by these may be a macro.
        if not any(path == MACRO or path in self.macros or path.startswith(("macro(", "caller(")) for path in of):
            raise fault(f"{shown(name)} can't be called: it is no macro.", node)
        for path in of & self.macros.keys():
            _refuse(self.macros[path].fault(node), node)
        return inputs(of) | self._arguments(node, scope, shown=any(path.startswith("macro(") for path in of))

    def _method(self, function: nodes.Getattr, node: nodes.Call, scope: Scope) -> Paths:
        """What a method returns is known by its object, like what a filter returns: ``d.items()``, ``d|items``."""
        of, name = self._value(function.node, scope), function.attr
        _refuse(known.attribute_fault(name), node)
        # Its methods are the template's blocks.
        is_self = isinstance(function.node, nodes.Name) and function.node.name == "self"
        _refuse("" if is_self else known.method_fault(name, function.node), node)
        arguments = self._arguments(node, scope, shown=name in known.SHOWING_METHODS)
        key = known.constant(node.args[0]) if name == "get" and node.args else None
        if name in known.TELLING_METHODS:
            return self._unshown(of)
        return (self._attribute(of, key, node) if isinstance(key, str) else of) | arguments

    def _arguments(self, node: nodes.Filter | nodes.Call, scope: Scope, *, shown: bool) -> Paths:
        if shown:
            return self._values(arguments(node), scope)
        self.read(arguments(node), scope)
        return NOTHING

    def _unshown(self, paths: Paths) -> Paths:
        self.record(paths)
        return NOTHING

    def _attribute(self, paths: Paths, name: str | int, node: nodes.Node) -> Paths:
        _refuse(known.attribute_fault(str(name)), node)
        plain = isinstance(name, str) and name.isidentifier() and name not in known.METHODS_OF_OBJECTS
        return self.extended(paths, f".{name}" if plain else f"[{name!r}]", node)

    def _attributes(self, paths: Paths, steps: Iterable[str | int], node: nodes.Node) -> Paths:
        """What these steps lead to from each element of a list."""
        paths = self.extended(paths, "[]", node)
        for step in steps:
            paths = self._attribute(paths, step, node)
        return paths


def inputs(paths: Paths) -> Paths:
    """The paths among what something stands for."""
    return frozenset(path for path in paths if not path.startswith(NO_INPUT))


def arguments(node: nodes.Filter | nodes.Test | nodes.Call) -> Sequence[nodes.Node | None]:
    """All arguments of a filter, a test or a call."""
    unique((str(keyword.key) for keyword in node.kwargs), node)
    return [*node.args, *node.kwargs, node.dyn_args, node.dyn_kwargs]


def unique(names: Iterable[str], node: nodes.Node) -> None:
    """Refuse arguments of the same name, which Jinja2 leaves to Python to find."""
    if any(count > 1 for count in Counter(names).values()):
        raise fault("An argument is given twice.", node)


def lookup(name: str, scope: Scope) -> Paths:
    """What a name stands for: an input, unless the template has made it."""
    paths = scope.get(name)
    return frozenset({name}) if paths is None else paths


def _refuse(reason: str, node: nodes.Node) -> None:
    if reason:
        raise fault(f"This can't be rendered: {shown(reason, 200)}.", node)


def fault(message: str, node: nodes.Node) -> TemplateSyntaxError:
    """The error at a node, of which Jinja2 only tells the line."""
    return TemplateSyntaxError(message, node.lineno)
