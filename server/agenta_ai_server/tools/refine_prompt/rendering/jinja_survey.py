"""Finds out what a Jinja2 template does with its inputs, in all of its branches."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from jinja2 import nodes
from jinja2.runtime import LoopContext
from jinja2.visitor import NodeTransformer

from agenta_ai_server.tools.refine_prompt.rendering.probes import (
    MAX_LENGTH,
    Attribute,
    Elements,
    Origin,
    Pieces,
    Probe,
    either,
    recorded,
    show,
    use_counts,
    use_numbers,
)
from agenta_ai_server.tools.refine_prompt.rendering.sandbox import Sandbox, bounded_range

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from jinja2.runtime import Context

# What filters and tests tell of the value that they are applied to; "through" are those that pass on its elements.
_FILTERS: Final = {
    **dict.fromkeys(("capitalize", "center", "indent", "lower", "replace", "striptags", "title"), "text"),
    **dict.fromkeys(("trim", "truncate", "upper", "urlize", "wordcount", "wordwrap"), "text"),
    **dict.fromkeys(("abs", "filesizeformat", "float", "int", "round"), "number"),
    **dict.fromkeys(("batch", "dictsort", "first", "groupby", "items", "join", "last", "list", "map"), "through"),
    **dict.fromkeys(("max", "min", "reject", "rejectattr", "reverse", "select", "selectattr"), "through"),
    **dict.fromkeys(("slice", "sort", "sum", "unique", "default", "d", "random"), "through"),
    **dict.fromkeys(("length", "count"), "measure"),
}
_KIND_TESTS: Final = {
    "string": "text",
    "mapping": "mapping",
    **dict.fromkeys(("iterable", "sequence"), "list"),
    **dict.fromkeys(("number", "integer", "float"), "number"),
}
_TESTS: Final = _KIND_TESTS | dict.fromkeys(("odd", "even", "divisibleby"), "number")

_COUNTERS: Final = frozenset({"index", "index0", "revindex", "revindex0", "length"})
_COMPARED: Final[dict[str, tuple[Any, ...]]] = {
    "none": (None,),
    "true": (True,),
    "false": (False,),
    "boolean": (True, False),
}


def survey(tree: nodes.Template, inputs: Mapping[str, Probe]) -> None:
    """Run a template with probes as inputs, which record what is done with them.

    Args:
        tree: The template. It is changed.
        inputs: The probes by name.
    """
    tree = _AllBranches().visit(tree)
    template = _SURVEY.from_string(tree)
    try:
        _exhaust(template.root_render_func(template.new_context(dict(inputs))))
    except Exception:
        # Nothing should raise. If something does, it ends only the statement that it is in.
        tree.body = [nodes.Block(f"s{at}", [node], False, False, lineno=1) for at, node in enumerate(tree.body)]
        template = _SURVEY.from_string(tree)
        for block in template.blocks.values():
            with contextlib.suppress(Exception):
                _exhaust(block(template.new_context(dict(inputs))))


def _exhaust(pieces: Iterable[str]) -> None:
    for _ in pieces:
        pass


class _Survey(Sandbox):
    """An environment whose inputs are probes: nothing is decided, and nothing raises.

    What can't be computed is a probe of nothing.
    """

    intercepted_binops = frozenset(Sandbox.default_binop_table)
    intercepted_unops = frozenset(Sandbox.default_unop_table)

    def __init__(self) -> None:
        super().__init__()
        self.undefined = _unknown  # type: ignore[assignment]
        filters = {name: recorded(each, name, _FILTERS.get(name, "")) for name, each in self.filters.items()}
        own: dict[str, Callable[..., Any]] = {
            "items": _items,
            "default": _defaulted,
            "d": _defaulted,
            "__either": either,
            "__both": _both,
        }
        # Nothing is rejected.
        own |= {"reject": filters["select"], "rejectattr": filters["selectattr"]}
        own |= {"__seen": _seen, "__elements": _elements, "__row": _row, "__members": _members, "__item": _item}
        own |= {"__limited": _limited}
        self.filters = _Known(filters | own, lambda name: recorded(_same, name, ""))
        self.tests = _Known({}, _asked)
        self.globals["range"] = _range

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Return what a call gives."""
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, dict) and __obj.__name__ == "get" and args and isinstance(args[0], Probe):
            return either(__self.getitem(owner, args[0]), *args[1:])
        try:
            return super().call(__context, __obj, *args, **kwargs)
        except Exception:
            return Probe()

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Return what an operation gives."""
        if operator == "%" and isinstance(left, str) and not isinstance(left, Probe):
            show(right)
        try:
            return super().call_binop(context, operator, left, right)
        except Exception:
            return Probe()

    def call_unop(self, context: Context, operator: str, arg: Any) -> Any:
        """Return what an operation gives."""
        try:
            return super().call_unop(context, operator, arg)
        except Exception:
            return Probe()

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return what stands for an attribute."""
        return Attribute.of(obj, attribute) if isinstance(obj, Probe) else super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return what stands for an item."""
        if isinstance(obj, dict) and isinstance(argument, Probe):
            # An input that chooses from a constant object is one of its keys.
            for key in obj:
                argument.compare(key)
            return either(*obj.values(), Probe())
        return super().getitem(obj, argument)


class _Known(dict[str, Any]):
    """Filters or tests by name; those that nobody knows as well, which Agenta misses only where they are applied."""

    def __init__(self, known: Mapping[str, Any], make: Callable[[str], Any]) -> None:
        super().__init__(known)
        self._make = make

    def __missing__(self, name: str) -> Any:
        return self._make(name)

    def get(self, name: Any, _default: Any = None) -> Any:
        """Return one."""
        return self[name]


class _AllBranches(NodeTransformer):
    """Makes a template run through all of its branches."""

    def visit_If(self, node: nodes.If) -> Any:  # noqa: N802
        # The first branch comes last, since what it assigns is what is mostly meant.
        node.elif_.reverse()
        self.generic_visit(node)
        return [*_otherwise(node), *node.elif_, nodes.If(_always(node.test), node.body, [], [], lineno=node.lineno)]

    def visit_For(self, node: nodes.For) -> Any:  # noqa: N802
        self.generic_visit(node)
        node.iter = _filter(node.iter, "__elements", [nodes.Const(_width(node.target))])
        if node.test:
            # In the body, since a loop doesn't know the list whose elements a test has picked.
            node.body.insert(0, nodes.ExprStmt(_always(node.test), lineno=node.lineno))
            node.test = None
        after, node.else_ = _otherwise(node), []
        return [node, *after]

    def visit_Assign(self, node: nodes.Assign) -> Any:  # noqa: N802
        self.generic_visit(node)
        if width := _width(node.target):
            node.node = _filter(node.node, "__row", [nodes.Const(width)])
        return node

    def visit_Getattr(self, node: nodes.Getattr) -> Any:  # noqa: N802
        self.generic_visit(node)
        return _filter(node, "__item", [])

    def visit_Call(self, node: nodes.Call) -> Any:  # noqa: N802
        # What is called is a method, and no item.
        called, node.node = node.node, nodes.Const(None)
        self.generic_visit(node)
        if isinstance(called, nodes.Getattr):
            self.generic_visit(called)
            node.node = called
        else:
            node.node = self.visit(called)
        return node

    def visit_Compare(self, node: nodes.Compare) -> Any:  # noqa: N802
        sides: list[nodes.Compare | nodes.Operand] = [node, *node.ops]
        limits = [each for each in sides if not _is_counter(each.expr)]
        self.generic_visit(node)
        if len(limits) < len(sides):
            loop = nodes.Name("loop", "load", lineno=node.lineno)
            node.expr = _filter(node.expr, "__limited", [loop, *(each.expr for each in limits)])
        for each in node.ops:
            if each.op in {"in", "notin"}:
                each.expr = _filter(each.expr, "__members", [])
        return node

    def visit_Import(self, node: nodes.Node) -> Any:  # noqa: N802
        # Agenta has no other templates, and misses them only where they are used.
        return []

    visit_FromImport = visit_Include = visit_Extends = visit_Import  # noqa: N815

    def visit_CondExpr(self, node: nodes.CondExpr) -> Any:  # noqa: N802
        self.generic_visit(node)
        rest = [_always(node.test), *([node.expr2] if node.expr2 else [])]
        return _filter(node.expr1, "__either", rest)

    def visit_And(self, node: Any) -> Any:  # noqa: N802
        self.generic_visit(node)
        return _filter(node.left, "__both", [node.right])

    visit_Or = visit_And  # noqa: N815


def _otherwise(node: nodes.If | nodes.For) -> list[nodes.Node]:
    """Return the branch ``else``. It stays one, as an unknown filter in a branch is no fault until it is applied."""
    return [nodes.If(nodes.Const(True), node.else_, [], [], lineno=node.lineno)] if node.else_ else []


def _is_counter(node: nodes.Expr) -> bool:
    """Whether it is a loop's length, or the place of an element in it."""
    if not isinstance(node, nodes.Getattr) or node.attr not in _COUNTERS:
        return False
    return isinstance(node.node, nodes.Name) and node.node.name == "loop"


def _width(target: nodes.Node) -> int:
    return len(target.items) if isinstance(target, nodes.Tuple) else 0


def _filter(node: nodes.Node, name: str, args: list[nodes.Expr]) -> nodes.Filter:
    return nodes.Filter(node, name, args, [], None, None, lineno=node.lineno)


def _always(test: Any) -> nodes.Expr:
    return _filter(test, "__seen", [])


def _seen(value: Any) -> bool:
    bool(value)
    return True


def _both(*values: Any) -> Any:
    for value in values:
        bool(value)
    return either(*values)


def _defaulted(value: Any, default: Any = "", *_args: Any, **_kwargs: Any) -> Any:
    if isinstance(value, Probe):
        for shape in value.shapes:
            shape.decides = True
    return either(value, default) if value is not None else default


def _asked(name: str) -> Callable[..., bool]:
    """A test that records what is asked of a probe."""

    def ask(value: Any, *args: Any) -> bool:
        if isinstance(value, Probe):
            for shape in value.shapes:
                shape.decides = True
            value.use(_TESTS.get(name, ""))
            # What is tested for one kind may be of another.
            value.use("text" if name in _KIND_TESTS else "")
            others = args[0] if name == "in" and args and isinstance(args[0], list | tuple | dict) else args
            for other in _COMPARED.get(name, others):
                value.compare(other)
        use_numbers(name, args, {})
        if name == "in" and args and isinstance(args[0], Probe):
            args[0].search(value)
        return True

    return ask


def _unknown(*_args: Any, **_kwargs: Any) -> Probe:
    return Probe()


def _same(value: Any, *_args: Any, **_kwargs: Any) -> Any:
    return value


def _range(*args: Any) -> list[Any]:
    if any(isinstance(each, Probe) for each in args):
        use_counts(args)
        return [Probe(origin=Origin.CALCULATED)]
    return list(bounded_range(*args))[:MAX_LENGTH]


def _item(value: Any) -> Any:
    if isinstance(value, Attribute):
        _ = value.shapes  # they are there from now on, whatever is done with the item
    return value


def _items(value: Any) -> Any:
    return value.items() if isinstance(value, Probe | dict) else []


def _members(value: Any) -> Any:
    return list(value) if isinstance(value, dict) else value


def _elements(value: Any, width: int) -> Sequence[Any]:
    """Return what a loop goes through, whose target has so many names."""
    try:
        found = list(value)
    except Exception:
        found = [Probe()]
    source = _source(value)
    if not found and not isinstance(source, Probe):
        found = [Probe()]  # what is gone through seldom is surveyed as well
    rows = [_row(each, width) for each in found] if width else found
    return Elements(rows, source) if isinstance(source, Probe) else rows


def _source(elements: Any) -> Any:
    return elements.source if isinstance(elements, Elements) else elements


def _limited(value: Any, loop: Any, *limits: Any) -> Any:
    """Record what the places in a loop are compared with, as that limits a list as its length does."""
    source = _source(loop._iterable) if isinstance(loop, LoopContext) else None
    for shape in source.shapes if isinstance(source, Probe) else ():
        shape.sizes.update(each for each in limits if type(each) is int)
    return value


def _row(value: Any, width: int) -> Sequence[Any]:
    """Return so many parts of a value."""
    if isinstance(value, Pieces):
        value.are_so_many(width)
    for shape in value.shapes if isinstance(value, Probe) else ():
        shape.least = max(shape.least, width)
        shape.uses.add("indexed")
    try:
        parts = list(value)
    except Exception:
        parts = []
    rest = parts[-1] if isinstance(value, Probe) and parts else Probe()
    return (parts + [rest] * width)[:width]


_SURVEY: Final = _Survey()
