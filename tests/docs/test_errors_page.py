"""docs/errors.md: it has every reason, with the status of the code."""

from __future__ import annotations

import re
from pathlib import Path

from agenta_ai_server.domain.errors import Reason
from agenta_ai_server.rpc.status import CODES

PAGE = (Path(__file__).parents[2] / "docs/errors.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.+?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL))
REFUSED = "The call was refused"
FAILED = "The tool ran and failed"


def rows(section: str) -> dict[str, list[str]]:
    """The cells of each row whose first is a name in code."""
    found = (line.strip("| ").split(" | ") for line in SECTIONS[section].splitlines() if line.startswith("| `"))
    return {first.strip("`"): others for first, *others in found}


def test_each_refusal_has_its_status_and_what_to_do() -> None:
    found = rows(REFUSED)
    assert {reason: cells[0] for reason, cells in found.items()} == {
        reason.value: code.name for reason, code in CODES.items()
    }
    assert {len(cells) for cells in found.values()} == {4}


def test_each_failure_has_what_to_do() -> None:
    found = rows(FAILED)
    assert found.keys() == {reason.value for reason in Reason if reason not in CODES}
    assert {len(cells) for cells in found.values()} == {3}
