"""Names of tools, as MCP clients see them."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SEGMENT = "[a-z0-9]+(?:_[a-z0-9]+)*"
# What can be written with underscores and read back: in other names "__" could be one dot or two underscores.
_REVERSIBLE = re.compile(rf"{_SEGMENT}(?:\.{_SEGMENT})*")


@dataclass(frozen=True, slots=True)
class Names:
    """How MCP clients see the names of tools.

    Attributes:
        underscore: Whether each dot is written as two underscores, ``tools__agenta__api__refine_prompt``, because some
            model APIs reject dots. A name with two underscores in a row, or with one beside a dot, keeps its dots,
            because it couldn't be converted back.
    """

    underscore: bool = False

    def shown(self, name: str) -> str:
        """Return the name by which MCP clients know this tool."""
        return name.replace(".", "__") if self.underscore and _REVERSIBLE.fullmatch(name) else name

    def meant(self, shown: str) -> str:
        """Return the name of the tool that MCP clients know by this name."""
        return shown.replace("__", ".") if self.underscore and "." not in shown else shown
