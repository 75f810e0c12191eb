"""Writes the typed methods of our own tools: their lock file, and their part of ``protos/``."""

from __future__ import annotations

import sys
from pathlib import Path

from agenta_ai_server.assembly.tools import described_tools
from agenta_ai_server.typed import lock
from agenta_ai_server.typed.compatibility import changes
from agenta_ai_server.typed.descriptors import files
from agenta_ai_server.typed.source import source
from agenta_ai_server.typed.tools import shapes, typed_tools

PROTOS = Path(__file__).parent
LOCK = Path(lock.__file__).with_name("builtin.lock")


def main() -> None:
    """Write both, unless callers with old stubs would fail."""
    tools = described_tools()
    known = lock.builtin()
    found, faults = shapes(tools)
    broken = [change for change in changes(known, found) if change.breaking]
    if faults or broken:
        sys.exit("\n".join(map(str, [*faults, *broken])))
    updated = lock.updated(known, found)
    LOCK.write_text(lock.dump(updated), encoding="utf-8")
    for file in files(typed_tools(tools, updated)[0]):
        path = PROTOS / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source(file), encoding="utf-8")


if __name__ == "__main__":
    main()
