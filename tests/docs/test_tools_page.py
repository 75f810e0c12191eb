"""docs/tools.md: a newcomer's first tool, and what stands in tables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from docs.console import ROOT, TEST_SECONDS, matches, replay, sections

from agenta_ai_server.tools.tools_file.read import parse
from agenta_ai_server.tools.tools_file.tables import KEYS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(TEST_SECONDS)

DOCUMENT = ROOT / "docs/tools.md"


@pytest.mark.needs("grpcurl")
def test_a_tool_in_a_minute(tmp_path: Path) -> None:
    section = sections(DOCUMENT)["A tool in a minute"]
    commands = list(replay(section, tmp_path))
    assert len(commands) > 6
    for command, printed in commands:
        assert matches(command.output, printed), f"$ {command.text}\n{printed}"


def test_each_key_has_a_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(KEYS)


def test_what_stands_there_is_a_tools_file(tmp_path: Path) -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```$", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    assert [tool.kind for block in blocks for tool in parse(block.encode(), tmp_path)] == ["chat"]
