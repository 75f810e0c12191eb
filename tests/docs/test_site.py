"""The source of the site: the repository's documents, with links that hold there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("assemble", ROOT / "docs/site/assemble.py")
assert SPEC
assert SPEC.loader
site = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(site)

LINKS = [
    ("README.md", "[a](docs/limits.md)", "[a](limits.md)"),
    ("README.md", "[a](docs/limits.md#the-file)", "[a](limits.md#the-file)"),
    ("README.md", "[a](#try-it)", "[a](#try-it)"),
    ("README.md", "[a](https://example.com/x.md)", "[a](https://example.com/x.md)"),
    ("README.md", "[a](examples/limits.toml)", "[a](files/examples/limits.toml)"),
    ("README.md", "see [the `a` folder](clients/go)", "see the `a` folder"),
    ("README.md", "[![a](bench/plots/cpu.png)](bench/README.md)", "[![a](files/bench/plots/cpu.png)](bench.md)"),
    ("README.md", "```\n[a](docs/limits.md)\n```", "```\n[a](docs/limits.md)\n```"),
    ("README.md", "`[a](docs/limits.md)`", "`[a](docs/limits.md)`"),
    ("docs/limits.md", "[a](../README.md#run-it)", "[a](index.md#run-it)"),
    ("clients/go/README.md", "[a](../../docs/contract.md)", "[a](../contract.md)"),
    ("clients/go/README.md", "[a](../../protos/buf.yaml)", "[a](../files/protos/buf.yaml)"),
]


@pytest.mark.parametrize(("document", "text", "expected"), LINKS)
def test_a_link(document: str, text: str, expected: str, tmp_path: Path) -> None:
    assert site.with_links(text, Path(document), site.pages(), tmp_path) == expected
    copied = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in copied] == [
        (ROOT / path.relative_to(tmp_path / "files")).read_bytes() for path in copied
    ]
    assert bool(copied) == ("files/" in expected)


def test_every_page_is_in_the_navigation(tmp_path: Path) -> None:
    site.assemble(tmp_path / "source")
    assert (tmp_path / "source/index.md").read_text().startswith("# Agenta AI services over gRPC\n")
    assert (tmp_path / "zensical.toml").is_file()


def test_a_page_that_is_missing_in_the_navigation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(site, "navigation", lambda _: iter(["index.md", "nowhere.md"]))
    with pytest.raises(SystemExit, match=r"differ: .*limits\.md.*nowhere\.md"):
        site.assemble(tmp_path / "source")


def test_the_example_for_browsers_is_shown_as_it_is() -> None:
    assert f"```ts\n{(ROOT / 'examples/browser/refine.ts').read_text()}```" in (ROOT / "docs/browser.md").read_text()


def test_every_diagram_keeps_its_lines() -> None:
    """A diagram that was wrapped like prose can't be drawn: Mermaid's first line names only the kind of diagram."""
    text = "".join(path.read_text() for path in (ROOT / "docs").glob("*.md"))
    first_lines = re.findall(r"^```mermaid\n(.*)$", text, re.MULTILINE)
    assert set(first_lines) == {"flowchart LR", "flowchart TD", "sequenceDiagram", "stateDiagram-v2"}
