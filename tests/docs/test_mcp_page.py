"""docs/mcp.md: what it shows runs as written, and its sentences hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from docs.console import ROOT, TEST_SECONDS, matches, replay, sections

from agenta_ai.mcp import body, caller_check, connections, progress, sessions

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(TEST_SECONDS)

PAGE = ROOT / "docs/mcp.md"
SECTIONS = {title: each for title, each in sections(PAGE).items() if each.after}


@pytest.mark.parametrize("title", SECTIONS)
def test_commands_do_as_is_shown(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for command, printed in replay(SECTIONS[title], tmp_path):
        assert matches(command.output, printed), f"$ {command.text}\n{printed}"


def test_its_numbers_are_those_of_the_code() -> None:
    text = " ".join(PAGE.read_text().split())
    assert f"remembers for {caller_check.REMEMBERED_SECONDS:.0f} seconds" in text
    assert f"at most {body.MAX_REQUEST_BYTES >> 20} MiB" in text
    assert f"at most {connections.MAX_CONNECTIONS:,} connections (fewer if it can open few files)" in text
    assert f"and {sessions.MAX_SESSIONS:,} sessions" in text
    assert f"isn't read within {progress.SECONDS:.0f} seconds" in text
    assert sessions.SESSION_SECONDS == 600
