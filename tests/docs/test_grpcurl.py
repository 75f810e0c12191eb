"""docs/grpcurl.md: each of its commands prints what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from docs.console import ROOT, TEST_SECONDS, Section, matches, replay, sections

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(TEST_SECONDS)

DOCUMENT = ROOT / "docs/grpcurl.md"
PROGRAMS = {"Generate load with ghz": "ghz"}
SECTIONS = [
    pytest.param(section, id=title, marks=pytest.mark.needs(PROGRAMS.get(title, "grpcurl")))
    for title, section in sections(DOCUMENT).items()
]


@pytest.mark.parametrize("section", SECTIONS)
def test_it_prints_what_the_document_says(section: Section, tmp_path: Path) -> None:
    for command, printed in replay(section, tmp_path):
        assert matches(command.output, printed), f"$ {command.text}\n{printed}"


def test_no_command_is_left_out() -> None:
    written = [line.removeprefix("$ ") for line in DOCUMENT.read_text().splitlines() if line.startswith("$ ")]
    run = [
        command.split("\n")[0]
        for section in sections(DOCUMENT).values()
        for command in (*(one.text for one in (*section.before, *section.after)), section.server)
    ]
    assert set(written) <= set(run)
    assert len(written) > 30


@pytest.mark.parametrize(
    ("expected", "printed", "is_same"),
    [
        ("", "", True),
        ("", "Warning: no", False),
        ("a", "a\n", True),
        ("a", "b", False),
        ("a", "a\nb", False),
        ("in … ms", "in\t7.5 ms ", True),
        ("in … ms", "in ms", False),
        ("a\n…\nd", "a\nb\nc\nd", True),
        ("a\n…\nd", "a\nd", True),
        ("a\n…\nd", "a\nb", False),
        ("{x}.*", "{x}.*", True),
        ("{x}.*", "{x}.,", False),
    ],
)
def test_what_counts_as_the_same(expected: str, printed: str, is_same: bool) -> None:
    assert matches(expected, printed) is is_same
