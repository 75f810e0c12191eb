"""What a Jinja2 template uses, followed through its loops, assignments and macros. Nothing is rendered or computed."""

from __future__ import annotations

from collections import ChainMap
from typing import TYPE_CHECKING, Final

from jinja2 import nodes

from agenta_ai_server.tools.refine_prompt.formats import jsonpath
from agenta_ai_server.tools.refine_prompt.formats.comparison import ASSIGNED
from agenta_ai_server.tools.refine_prompt.formats.jinja import environment as known
from agenta_ai_server.tools.refine_prompt.formats.jinja.expressions import (
    MACRO,
    NAMESPACE,
    NO_INPUT,
    NOTHING,
    Expressions,
    Paths,
    Scope,
    fault,
    inputs,
    lookup,
    unique,
)
from agenta_ai_server.tools.refine_prompt.formats.syntax import is_blank, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Recorded where something is shown that is no blank; no path.
TEXT: Final = "(text)"

# A loop becomes one of Python's, which nests twenty blocks.
_MAX_LOOPS = 20


class Statements(Expressions):
    """Reads one template: each statement records what it uses, and keeps account of what local names stand for."""

    def __init__(self) -> None:
        super().__init__()
        self._blocks: set[str] = set()
        self._loops = 0

    def run(self, body: Iterable[nodes.Node], scope: Scope) -> Scope:
        """Read statements, one after the other."""
        for node in body:
            self.visit("run", node, scope)
        return scope

    def _run_output(self, node: nodes.Output, scope: Scope) -> Paths:
        self.show(node.nodes, scope)
        self.used.update(TEXT for each in node.nodes if _is_visible(each))
        return NOTHING

    def _run_other(self, node: nodes.Node, scope: Scope) -> Paths:
        """Whatever holds only expressions; and other statements, with a scope of their own."""
        inner = scope.new_child()
        for child in node.iter_child_nodes():
            if isinstance(child, nodes.Stmt):
                self.run([child], inner)
            else:
                self.read([child], scope)
        return NOTHING

    def _run_filterblock(self, node: nodes.FilterBlock, scope: Scope) -> Paths:
        _refuse_jsonpath(node)
        return self._run_other(node, scope)

    def _run_unloadable(self, node: nodes.Node, scope: Scope) -> Paths:
        raise fault("Other templates can't be loaded here: no include, import or extends.", node)

    _run_include = _run_import = _run_fromimport = _run_extends = _run_unloadable

    def _run_if(self, node: nodes.If, scope: Scope) -> Paths:
        """Assignments outlive their branch, so that a name stands for what any branch has made of it."""
        branches: list[Scope] = []
        reached = True
        tests = [(branch.test, branch.body) for branch in (node, *node.elif_)]
        for test, body in [*tests, (nodes.Const(True), node.else_)]:
            branch, truth = scope.new_child(), known.truth(test)
            with self.reached(reached):
                self.read([test], scope)
            with self.reached(reached and truth is not False):
                self.run(body, branch)
            branches += [branch] if reached and truth is not False else []
            reached = reached and truth is not True
        names = set[str]().union(*(branch.maps[0] for branch in branches))
        self.spend(len(names) * len(branches), node)
        for name in names:
            scope[name] = NOTHING.union(*(lookup(name, branch) for branch in branches))
        return NOTHING

    def _run_for(self, node: nodes.For, scope: Scope) -> Paths:
        self._loops += 1
        if self._loops > _MAX_LOOPS:
            raise fault("Loops are nested too deep.", node)
        inner = scope.new_child({"loop": frozenset({MACRO}) if node.recursive else NOTHING})
        elements = self.extended(self.read([node.iter], scope), "[]", node)
        truth = known.truth(node.iter)
        with self.reached(truth is not False):
            self._bind(node.target, elements, inner)
            self.read([node.test], inner)
            self.run(node.body, inner)
        self._loops -= 1
        with self.reached(node.test is not None or truth is not True):
            self.run(node.else_, scope.new_child())
        return NOTHING

    def _run_assign(self, node: nodes.Assign, scope: Scope) -> Paths:
        self._assign(node.target, node.node, scope, scope)
        return NOTHING

    def _assign(self, target: nodes.Node, value: nodes.Node, scope: Scope, into: Scope) -> None:
        if isinstance(target, nodes.Tuple) and isinstance(value, nodes.Literal):
            if not isinstance(value, nodes.Tuple | nodes.List) or len(target.items) != len(value.items):
                raise fault(f"This can't be assigned to {len(target.items)} names.", value)
            inner = scope.new_child()
            for each, item in zip(target.items, value.items, strict=True):
                self._assign(each, item, scope, inner)
            into.update(inner.maps[0])
        else:
            paths = self._values([value], scope)
            # A path that isn't there can raise here, but unless the name is used too, nothing comes of one that is.
            self.record(paths, ASSIGNED)
            self._bind(target, paths, into)

    def _run_assignblock(self, node: nodes.AssignBlock, scope: Scope) -> Paths:
        _refuse_jsonpath(node)
        with self.captured() as used:
            self.read([node.filter], scope)
            self.run(node.body, scope.new_child())
        self.record(frozenset(used) - {TEXT}, ASSIGNED)
        self._bind(node.target, frozenset(used) - {TEXT}, scope)
        return NOTHING

    def _run_with(self, node: nodes.With, scope: Scope) -> Paths:
        inner = scope.new_child()
        for target, value in zip(node.targets, node.values, strict=True):
            self._assign(target, value, scope, inner)
        self.run(node.body, inner)
        return NOTHING

    def _run_block(self, node: nodes.Block, scope: Scope) -> Paths:
        if node.name in self._blocks or node.required:
            raise fault(f"The block {shown(node.name)} is required, or defined twice.", node)
        self._blocks.add(node.name)
        # A block sees what the template has set, but not the loops around it, unless it is scoped.
        self.run(node.body, scope.new_child() if node.scoped else ChainMap({}, scope.maps[-1]))
        return NOTHING

    def _run_macro(self, node: nodes.Macro, scope: Scope) -> Paths:
        """A macro uses nothing before it is called."""
        macro = f"{NO_INPUT}macro {len(self.macros)})"
        self.macros[macro] = known.Macro.of(node)
        scope[node.name] = frozenset({macro})
        with self.captured() as used:
            self._callable("macro", node, scope)
        scope[node.name] = self.extended(frozenset({macro, *used}) - {TEXT}, "", node)
        return NOTHING

    def _run_callblock(self, node: nodes.CallBlock, scope: Scope) -> Paths:
        call = node.call
        kwargs = [*call.kwargs, nodes.Keyword("caller", nodes.Const(None))]
        self.show([nodes.Call(call.node, call.args, kwargs, call.dyn_args, call.dyn_kwargs, lineno=node.lineno)], scope)
        self._callable("caller", node, scope)
        return NOTHING

    def _callable(self, kind: str, node: nodes.Macro | nodes.CallBlock, scope: Scope) -> None:
        """Parameters are known by their place, so that renaming one, or its macro, changes nothing."""
        _refuse_jsonpath(node)
        inner = scope.new_child({"caller": frozenset({MACRO}), "varargs": NOTHING, "kwargs": NOTHING})
        unique((arg.name for arg in node.args), node)
        inner.update((arg.name, frozenset({f"{kind}({place})"})) for place, arg in enumerate(node.args, 1))
        self.read(node.defaults, inner)
        loops, self._loops = self._loops, 0
        self.run(node.body, inner)
        self._loops = loops

    def _bind(self, target: nodes.Node, paths: Paths, scope: Scope) -> None:
        if isinstance(target, nodes.Tuple):
            for place, each in enumerate(target.items):
                self._bind(each, self.extended(paths, f"[{place}]", target), scope)
        elif isinstance(target, nodes.NSRef):
            if NAMESPACE not in scope.get(target.name, NOTHING):
                raise fault(f"{shown(target.name)} is no namespace.", target)
            # What it holds isn't followed, so that it counts as shown.
            self.used |= inputs(paths)
        elif isinstance(target, nodes.Name):
            if target.name == "loop" and "loop" in scope:
                raise fault("A loop can't assign to its own variable loop.", target)
            scope[target.name] = self.extended(paths, "", target)


def _is_visible(node: nodes.Node) -> bool:
    data = node.data if isinstance(node, nodes.TemplateData) else known.constant(node)
    # The mark of a JSONPath is a control character, but stands for a value.
    return not isinstance(data, str) or jsonpath.MARK in data or not is_blank(data)


def _refuse_jsonpath(node: nodes.Node) -> None:
    """Refuse a JSONPath where its text goes through a filter or a name, from which Agenta couldn't tell it again."""
    if any(jsonpath.MARK in each.data for each in node.find_all(nodes.TemplateData)):
        raise fault("A JSONPath can't stand in a filter, a macro or an assignment: Agenta fills it in later.", node)
