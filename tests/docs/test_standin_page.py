"""docs/standin.md: what it shows of provisioning and of tools runs as written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from docs.console import ROOT, TEST_SECONDS, matches, replay, sections

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(TEST_SECONDS)

SECTIONS = {title: each for title, each in sections(ROOT / "docs/standin.md").items() if each.after}


@pytest.mark.parametrize("title", SECTIONS)
def test_commands_do_as_is_shown(title: str, tmp_path: Path) -> None:
    for command, printed in replay(SECTIONS[title], tmp_path):
        assert matches(command.output, printed), f"$ {command.text}\n{printed}"


def test_it_shows_something() -> None:
    assert set(SECTIONS) == {"Try provisioning", "Turn a deployed prompt into a tool"}
