"""What a Jinja2 expression stands for."""

from __future__ import annotations

from collections import ChainMap, Counter
from typing import TYPE_CHECKING, TypeAlias

from jinja2 import nodes

from agenta_ai_server.tools.refine_prompt.formats.jinja import environment as known
from agenta_ai_server.tools.refine_prompt.formats.syntax import TemplateSyntaxError, shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Paths that start at an input of the template, as in ``order.items[].sku``.
Paths: TypeAlias = frozenset[str]
#: What each local name stands for: paths, or none if it was made without any input.
Scope: TypeAlias = ChainMap[str, Paths]

NOTHING: Paths = frozenset()

# Jinja2 makes a Python program from a template, and Python nests a hundred blocks and two hundred brackets.
_MAX_DEPTH = 50
# Bounds on what a template that was made to be expensive can make of its names.
_MAX_PATHS = 200
_MAX_PATH_LENGTH = 1000


class Expressions:
    """Reads expressions.

    Each method returns what its expression stands for, which the user of the expression may extend by an attribute
    before it is recorded, and records what is read on the way: an index, a condition, an argument.

    Attributes:
        used: The paths that were recorded.
    """

    def __init__(self) -> None:
        self.used: set[str] = set()
        self._depth = 0

    def use(self, items: Iterable[nodes.Node | None], scope: Scope) -> Paths:
        """Read expressions and record what they stand for."""
        paths = self._values(items, scope)
        self.used |= paths
        return paths

    def visit(self, kind: str, node: nodes.Node, scope: Scope) -> Paths:
        """Read a node by the method that is named like it."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise fault("This is nested too deep.", node)
        method = getattr(self, f"_{kind}_{type(node).__name__.lower()}", None) or getattr(self, f"_{kind}_other")
        paths: Paths = method(node, scope)
        self._depth -= 1
        return paths

    def _values(self, items: Iterable[nodes.Node | None], scope: Scope) -> Paths:
        return NOTHING.union(*(self._value(node, scope) for node in items if node is not None))

    def _value(self, node: nodes.Node, scope: Scope) -> Paths:
        return self.visit("value", node, scope)

    def _value_other(self, node: nodes.Node, scope: Scope) -> Paths:
        """Operators, literals and the like stand for all that they are made from."""
        return self._values(node.iter_child_nodes(), scope)

    def _value_name(self, node: nodes.Name, scope: Scope) -> Paths:
        return lookup(node.name, scope)

    def _value_getattr(self, node: nodes.Getattr, scope: Scope) -> Paths:
        return _attribute(self._value(node.node, scope), node.attr, node)

    def _value_getitem(self, node: nodes.Getitem, scope: Scope) -> Paths:
        of, key = self._value(node.node, scope), known.constant(node.arg)
        if isinstance(key, str):
            return _attribute(of, key, node)
        if key is not None:
            return extended(of, f"[{key!r}]", node)
        self.use([node.arg], scope)
        # A slice has the same elements.
        return of if isinstance(node.arg, nodes.Slice) else extended(of, "[]", node)

    def _value_condexpr(self, node: nodes.CondExpr, scope: Scope) -> Paths:
        self.use([node.test], scope)
        return self._values([node.expr1, node.expr2], scope)

    def _value_filter(self, node: nodes.Filter, scope: Scope) -> Paths:
        """Filters may change, so that what was filtered keeps its name."""
        _refuse(known.filter_fault(node), node)
        of = self._values([node.node], scope)
        self.use(_arguments(node), scope)
        name = known.filtered_attribute(node)
        if name is None:
            return of
        if node.name == "attr":
            return _attribute(of, name, node)
        self.used |= extended(of, f"[].{name}", node)
        return of

    def _value_test(self, node: nodes.Test, scope: Scope) -> Paths:
        _refuse(known.test_fault(node), node)
        self.use(_arguments(node), scope)
        return self._value(node.node, scope)

    def _value_call(self, node: nodes.Call, scope: Scope) -> Paths:
        """What a method returns is known by its object, like what a filter returns: ``d.items()``, ``d|items``."""
        function = node.node
        if isinstance(function, nodes.Name):
            if function.name not in scope and function.name not in known.FUNCTIONS:
                raise fault(f"{shown(function.name)} can't be called: no input is a function.", node)
            return scope.get(function.name, NOTHING) | self.use(_arguments(node), scope)
        if not isinstance(function, nodes.Getattr):
            return self._value(function, scope) | self.use(_arguments(node), scope)
        of = self._value(function.node, scope)
        if of:
            _refuse(known.method_fault(function.attr), node)
        _refuse(known.attribute_fault(function.attr), node)
        key = known.constant(node.args[0]) if function.attr == "get" and node.args else None
        self.use(_arguments(node), scope)
        return _attribute(of, key, node) if isinstance(key, str) else of


def _arguments(node: nodes.Filter | nodes.Test | nodes.Call) -> Sequence[nodes.Node | None]:
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


def _attribute(paths: Paths, name: str, node: nodes.Node) -> Paths:
    _refuse(known.attribute_fault(name), node)
    return extended(paths, f".{name}" if name.isidentifier() else f"[{name!r}]", node)


def extended(paths: Paths, step: str, node: nodes.Node) -> Paths:
    """Each path with one more step at its end."""
    if len(paths) > _MAX_PATHS or any(len(path) + len(step) > _MAX_PATH_LENGTH for path in paths):
        raise fault("This is too complex to follow.", node)
    return frozenset(path + step for path in paths) if step else paths


def _refuse(reason: str, node: nodes.Node) -> None:
    if reason:
        raise fault(f"This can't be rendered: {shown(reason, 200)}.", node)


def fault(message: str, node: nodes.Node) -> TemplateSyntaxError:
    """The error at a node, of which Jinja2 only tells the line."""
    return TemplateSyntaxError(message, node.lineno)
