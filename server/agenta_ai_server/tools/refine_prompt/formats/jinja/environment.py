"""What Agenta's Jinja2 knows: filters, tests, functions and methods, and how each may be called."""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING, Final

from jinja2 import nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

ENVIRONMENT: Final = ImmutableSandboxedEnvironment()
FUNCTIONS: Final = frozenset(ENVIRONMENT.globals)

# Inputs are JSON, so these are the only things that can be called on one; the last two are those of a cycler.
_METHODS = frozenset(
    name for kind in (str, int, float, list, tuple, dict) for name in dir(kind) if not name.startswith("_")
) | {"next", "reset"}

# Filters that take the name of another filter or test, and the place of that name among their arguments.
_INDIRECT = {
    "map": (ENVIRONMENT.filters, 0),
    "select": (ENVIRONMENT.tests, 0),
    "reject": (ENVIRONMENT.tests, 0),
    "selectattr": (ENVIRONMENT.tests, 1),
    "rejectattr": (ENVIRONMENT.tests, 1),
}
_TAKES_ATTRIBUTE = frozenset({"attr", "groupby", "selectattr", "rejectattr", "sum"})


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


def method_fault(name: str) -> str:
    """Why calling this method of an input raises, or nothing."""
    return "" if name in _METHODS else f"no input has a method {name!r}"


def attribute_fault(name: str) -> str:
    """Why the sandbox refuses this attribute of anything, or nothing."""
    forbidden = name.startswith("__") and name.endswith("__")
    return f"the sandbox doesn't give access to {name!r}" if forbidden else ""


def filtered_attribute(node: nodes.Filter) -> str | None:
    """The attribute that a filter reads from each element, as in ``map(attribute="sku")``."""
    named = [keyword.value for keyword in node.kwargs if keyword.key == "attribute"]
    if node.name in _TAKES_ATTRIBUTE:
        named += node.args[:1]
    name = constant(named[0]) if named else None
    return name if isinstance(name, str) else None


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
    signature = _signature(function)
    if signature is None or node.dyn_args is not None or node.dyn_kwargs is not None:
        return ""
    try:
        signature.bind(None, *node.args, **{str(keyword.key): None for keyword in node.kwargs})
    except TypeError as error:
        return f"the {kind} {node.name!r} can't be called like this: {error}"
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
