"""What a refinement lost and what it invented: for most formats, what one set of names has and the other hasn't.

The names in the results are written as they are shown to people.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, TypeAlias

from agenta_ai_server.tools.refine_prompt.formats.syntax import Demand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Set

    Compare: TypeAlias = Callable[[Set[str], Set[str]], tuple[Set[str], Set[str]]]

#: Jinja2: stands before a path that decides what is shown, but isn't shown itself.
READ: Final = "?"
#: Jinja2: stands before a path that is given another name, and has to be there for that.
ASSIGNED: Final = "="

# The elements of a list at the end of a path of Jinja2, and where a step begins.
_ELEMENTS = re.compile(r"(?:\[\])+$")
_STEP = re.compile(r"[.\[|]|$")
# The last step of a path of mustache, if it is an inverted section.
_INVERTED = re.compile(r"\^(?=[^/]*$)")


def plain(old: Set[str], new: Set[str]) -> tuple[Set[str], Set[str]]:
    """Names that one has and the other hasn't. A value of which less is demanded is no worse off."""
    return {name for name in old - new if not isinstance(name, Demand)}, new - old


def mustache(old: Set[str], new: Set[str]) -> tuple[Set[str], Set[str]]:
    """To say something where a known list is empty, ``{{^items}}none{{/items}}``, asks for nothing new."""
    known = {name for name in new if old & {_INVERTED.sub(kind, name) for kind in ("#", "")}}
    return old - new, new - old - known


def jinja2(old: Set[str], new: Set[str]) -> tuple[Set[str], Set[str]]:
    """What was shown must be shown, and what was read must be read or shown, be it as the start of a longer path.

    What is new may read whatever the old text came by, and show what the old text did anything with.
    """
    lost = (_shown(old) - _shown(new)) | (_paths(old, READ) - _beginnings(_shown(new) | _paths(new, READ)))
    known = _shown(old) | _paths(old, READ) | _paths(old, ASSIGNED)
    read = _paths(new, READ) | _paths(new, ASSIGNED)
    return lost, (_shown(new) - known) | (read - _beginnings(known))


def _shown(names: Iterable[str]) -> set[str]:
    return {_list(name) for name in names if not name.startswith((READ, ASSIGNED))}


def _paths(names: Iterable[str], mark: str) -> set[str]:
    return {_list(name.removeprefix(mark)) for name in names if name.startswith(mark)}


def _list(path: str) -> str:
    """A list is shown by ``{{ xs|join }}`` as it is by ``{% for x in xs %}{{ x }}``, that is, ``xs`` by ``xs[]``."""
    return _ELEMENTS.sub("", path)


def _beginnings(paths: Iterable[str]) -> set[str]:
    """The paths themselves, and all that they go through."""
    return {path[: step.start()] for path in paths for step in _STEP.finditer(path)}
