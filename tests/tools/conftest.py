"""Services with a tools file, and a stand-in that has its prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agenta_ai_server.commands.tools.canned import canned_prompt
from agenta_ai_server.tools.tools_file.read import read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agenta_ai_server.standin.app import StandIn

    Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, standin: StandIn) -> Write:
    """Writes the tools file, and deploys the prompts of its tools."""

    def write(text: str) -> Path:
        path = tmp_path / "tools.toml"
        new = path.with_suffix(".new")
        new.write_text(text)
        standin.offer(canned_prompt(tool) for tool in read(new))
        new.replace(path)
        return path

    return write
