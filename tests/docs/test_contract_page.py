"""docs/contract.md: its table of statuses is that of the code."""

from __future__ import annotations

import re
from pathlib import Path

from agenta_ai_server.domain.errors import Reason
from agenta_ai_server.rpc.status import CODES

PAGE = (Path(__file__).parents[2] / "docs/contract.md").read_text()
ROW = re.compile(r"^\| [^|]+ \| ([A-Z_]+)[^|]* \| ([A-Z_]+) \|$", re.MULTILINE)


def test_each_reason_has_a_row_with_its_status() -> None:
    rows = {reason: status for status, reason in ROW.findall(PAGE)}
    assert rows == {reason.value: CODES[reason].name if reason in CODES else "OK" for reason in Reason}
