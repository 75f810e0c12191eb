"""What a Jinja2 template uses, followed through its loops, assignments and macros. Nothing is rendered or computed."""

from __future__ import annotations

from collections import ChainMap
from typing import TYPE_CHECKING

from jinja2 import nodes

from agenta_ai_server.tools.refine_prompt.formats.jinja.expressions import (
    NOTHING,
    Expressions,
    Paths,
    Scope,
    extended,
    fault,
    lookup,
    unique,
)
from agenta_ai_server.tools.refine_prompt.formats.syntax import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

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

    def _run_other(self, node: nodes.Node, scope: Scope) -> Paths:
        """Output and whatever else holds only expressions; and other statements, with a scope of their own."""
        inner = scope.new_child()
        for child in node.iter_child_nodes():
            if isinstance(child, nodes.Stmt):
                self.run([child], inner)
            else:
                self.use([child], scope)
        return NOTHING

    def _run_unloadable(self, node: nodes.Node, scope: Scope) -> Paths:
        raise fault("Other templates can't be loaded here: no include, import or extends.", node)

    _run_include = _run_import = _run_fromimport = _run_extends = _run_unloadable

    def _run_if(self, node: nodes.If, scope: Scope) -> Paths:
        """Assignments outlive their branch, so that a name stands for what any branch has made of it."""
        branches = []
        for branch in (node, *node.elif_):
            self.use([branch.test], scope)
            branches.append(self.run(branch.body, scope.new_child()))
        branches.append(self.run(node.else_, scope.new_child()))
        for name in set().union(*(branch.maps[0] for branch in branches)):
            scope[name] = NOTHING.union(*(lookup(name, branch) for branch in branches))
        return NOTHING

    def _run_for(self, node: nodes.For, scope: Scope) -> Paths:
        self._loops += 1
        if self._loops > _MAX_LOOPS:
            raise fault("Loops are nested too deep.", node)
        inner = scope.new_child({"loop": NOTHING})
        _bind(node.target, extended(self.use([node.iter], scope), "[]", node), inner)
        self.use([node.test], inner)
        self.run(node.body, inner)
        self._loops -= 1
        self.run(node.else_, scope.new_child())
        return NOTHING

    def _run_assign(self, node: nodes.Assign, scope: Scope) -> Paths:
        self._assign(node.target, node.node, scope, scope)
        return NOTHING

    def _assign(self, target: nodes.Node, value: nodes.Node, scope: Scope, into: Scope) -> None:
        if isinstance(target, nodes.Tuple) and isinstance(value, nodes.Tuple) and len(target.items) == len(value.items):
            inner = scope.new_child()
            for each, item in zip(target.items, value.items, strict=True):
                self._assign(each, item, scope, inner)
            into.update(inner.maps[0])
        else:
            _bind(target, self.use([value], scope), into)

    def _run_assignblock(self, node: nodes.AssignBlock, scope: Scope) -> Paths:
        self.use([node.filter], scope)
        self.run(node.body, scope.new_child())
        _bind(node.target, NOTHING, scope)
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
        scope[node.name] = NOTHING
        self._callable("macro", node, scope)
        return NOTHING

    def _run_callblock(self, node: nodes.CallBlock, scope: Scope) -> Paths:
        self.use([node.call], scope)
        self._callable("caller", node, scope)
        return NOTHING

    def _callable(self, kind: str, node: nodes.Macro | nodes.CallBlock, scope: Scope) -> None:
        """Parameters are known by their place, so that renaming one, or its macro, changes nothing."""
        inner = scope.new_child(dict.fromkeys(("caller", "varargs", "kwargs"), NOTHING))
        unique((arg.name for arg in node.args), node)
        inner.update((arg.name, frozenset({f"{kind}({place})"})) for place, arg in enumerate(node.args, 1))
        self.use(node.defaults, inner)
        loops, self._loops = self._loops, 0
        self.run(node.body, inner)
        self._loops = loops


def _bind(target: nodes.Node, paths: Paths, scope: Scope) -> None:
    if isinstance(target, nodes.Tuple):
        for place, each in enumerate(target.items):
            _bind(each, extended(paths, f"[{place}]", target), scope)
    elif isinstance(target, nodes.NSRef):
        if target.name not in scope:
            raise fault(f"{shown(target.name)} is no namespace.", target)
    elif isinstance(target, nodes.Name):
        if target.name == "loop" and "loop" in scope:
            raise fault("A loop can't assign to its own variable loop.", target)
        scope[target.name] = extended(paths, "", target)
