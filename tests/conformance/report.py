"""What came of the vectors, for people to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from conformance.vectors import Vector


@dataclass(frozen=True)
class Outcome:
    """What came of one vector with one client: what was wrong, if anything."""

    vector: Vector
    wrong: Sequence[str]


def table(outcomes: Mapping[str, Sequence[Outcome]]) -> str:
    """How many vectors of each file passed with each client."""
    rows = [["", *outcomes]]
    themes = sorted({outcome.vector.theme for played in outcomes.values() for outcome in played})
    rows += [
        [theme, *(_passed(each for each in played if each.vector.theme == theme) for played in outcomes.values())]
        for theme in themes
    ]
    rows.append(["all", *(_passed(played) for played in outcomes.values())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def failures(outcomes: Mapping[str, Sequence[Outcome]]) -> str:
    """Each vector that failed, why it is there, and all that was different."""
    lines: list[str] = []
    for client, played in outcomes.items():
        for outcome in played:
            if outcome.wrong:
                lines += ["", f"{client}: {outcome.vector.theme}: {outcome.vector.name}", f"  {outcome.vector.why}"]
                lines += [f"  - {line}" for line in outcome.wrong]
    return "\n".join(lines)


def _passed(played: Iterable[Outcome]) -> str:
    passed = [not outcome.wrong for outcome in played]
    return f"{sum(passed)} ok" if all(passed) else f"{sum(passed)} of {len(passed)}"
