"""The public Python surface against that of the last release, as griffe compares them.

``make baseline`` writes the old one, as stubs, for a release.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import griffe
from distribution.conftest import ROOT

BASELINE = Path(__file__).with_name("public")


def breaking_changes(old: Path, new: Path) -> list[str]:
    changes = griffe.find_breaking_changes(_loaded(old), _loaded(new))
    # Stubs leave out defaults that are no literals.
    kinds = {griffe.BreakageKind.PARAMETER_CHANGED_DEFAULT}
    return [change.explain(griffe.ExplanationStyle.ONE_LINE) for change in changes if change.kind not in kinds]


def _loaded(folder: Path) -> griffe.Object | griffe.Alias:
    return griffe.load("agenta_ai", search_paths=[folder], allow_inspection=False)


def test_nothing_breaks() -> None:
    assert breaking_changes(BASELINE, ROOT / "client") == []


def test_what_breaks_is_found(tmp_path: Path) -> None:
    shutil.copytree(BASELINE, tmp_path / "old")
    errors = tmp_path / "old/agenta_ai/errors.pyi"
    errors.write_text(errors.read_text() + "\nclass Gone(AgentaError): ...\n")
    (change,) = breaking_changes(tmp_path / "old", ROOT / "client")
    assert "Gone" in change
