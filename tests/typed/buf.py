"""buf, the oracle for what is lint-free, formatted and compatible."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenta_ai_server.typed.descriptors import TypedTool, files
from agenta_ai_server.typed.lock import numbered
from agenta_ai_server.typed.source import source

if TYPE_CHECKING:
    from agenta_ai_server.typed.lock import Lock
    from agenta_ai_server.typed.shape import ToolShape

PROTOS = Path(__file__).parents[2] / "protos"
WIRE_JSON = "version: v2\nmodules:\n  - path: .\nbreaking:\n  use:\n    - WIRE_JSON\n"
LINT = "version: v2\nmodules:\n  - path: .\nlint:\n  use:\n    - STANDARD\n    - COMMENTS\n"


def write(folder: Path, shapes: dict[str, ToolShape], lock: Lock, settings: str = LINT) -> Path:
    """Write the contract and the files of these tools."""
    for path in (PROTOS / "agenta/ai/v1").iterdir():
        target = folder / "agenta/ai/v1" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text())
    (folder / "buf.yaml").write_text(settings)
    tools = [
        TypedTool(name, "A tool", "It does\nsomething.", numbered(name, shape, lock)) for name, shape in shapes.items()
    ]
    for file in files(tools):
        path = folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source(file))
    return folder


def buf(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("buf")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=60)


def complaints(old: Path, new: Path) -> list[dict[str, Any]]:
    """What buf calls breaking."""
    done = buf("breaking", str(new), "--against", str(old), "--error-format", "json")
    assert done.returncode in (0, 100), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
