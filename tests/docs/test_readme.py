"""README.md and docs/testing.md: what they show of the Python client and the command line runs as written."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from docs.console import ADDRESS, KEY, ROOT, TEST_SECONDS, Command, commands, environment, matches, run, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(TEST_SECONDS)

README = (ROOT / "README.md").read_text()
CALLER = Command(f"export AGENTA_AI_TARGET={ADDRESS} AGENTA_AI_API_KEY={KEY}", "")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[dict[str, str]]:
    """What stands for the address and the key that the documents show."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    with serving("agenta-ai-server dev", tmp_path) as real:
        yield real


def test_the_command_line(served: dict[str, str], tmp_path: Path) -> None:
    shown = list(commands(README.partition("**The command line**")[2].partition("**Go**")[0]))
    assert len(shown) > 5
    for command, printed in run([CALLER, *shown], tmp_path, served):
        expected = re.sub(r"(version|since) .*?(,|$)", r"\1 …\2", command.output, flags=re.MULTILINE)
        assert matches(expected, printed), f"$ {command.text}\n{printed}"


def test_python(served: dict[str, str], tmp_path: Path) -> None:
    code = README.partition("**Python.**")[2].partition("```python\n")[2].partition("```")[0]
    (tmp_path / "example.py").write_text(code.replace(ADDRESS, served[ADDRESS]))
    ((_, _), (_, printed)) = run([CALLER, Command("python example.py", "")], tmp_path, served)
    assert "{'messages': [{'role': 'user', 'content': 'Translate {{text}} to {{language}}" in printed
    assert "+Translate {{text}} to {{language}}" in printed
    assert "STARTED The tool has started." in printed


def test_the_page_about_testing(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/testing.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    for number, code in enumerate(blocks):
        (tmp_path / f"test_example_{number}.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert f"{sum(code.count('def test_') for code in blocks)} passed" in done.stdout
