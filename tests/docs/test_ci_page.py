"""docs/ci.md: what it shows runs as written, and its pipelines name real commands and options."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from docs.console import ROOT, TEST_SECONDS, matches, replay, sections

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.timeout(TEST_SECONDS)

PAGE = ROOT / "docs/ci.md"
SECTIONS = {title: each for title, each in sections(PAGE).items() if each.after}


@pytest.mark.parametrize("title", SECTIONS)
def test_commands_do_as_is_shown(title: str, tmp_path: Path) -> None:
    for command, printed in replay(SECTIONS[title], tmp_path):
        assert matches(command.output, printed), f"$ {command.text}\n{printed}"


def pipelines() -> Iterator[str]:
    """The lines of all pipelines that run something."""
    for text in re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        for job in [*yaml.safe_load(text).get("jobs", {}).values(), *yaml.safe_load(text).values()]:
            if isinstance(job, dict):
                yield from (step["run"] for step in job.get("steps", ()) if "run" in step)
                yield from job.get("script", ())


@pytest.mark.parametrize("line", sorted({line for line in pipelines() if line.startswith("agenta-ai-server")}))
def test_a_pipeline_names_options_that_exist(line: str) -> None:
    command = re.split(r" -", line)[0].split()[1:]
    options = {word for word in line.partition(" -- ")[0].split() if word.startswith("--")}
    printed = subprocess.run(
        [Path(sys.executable).with_name("agenta-ai-server"), *command, "--help"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert {option for option in options if not re.search(rf"{option}\b", printed)} == set()


def test_there_are_pipelines() -> None:
    assert len(list(pipelines())) > 5
