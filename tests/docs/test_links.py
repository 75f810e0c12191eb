"""Every link from one of our documents to another leads somewhere."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


def ours() -> Iterator[Path]:
    # The links of pages that only the site has are checked when it is built.
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in ("node_modules", "pages")]
        yield from (Path(folder, name) for name in names if name.endswith(".md"))


DOCUMENTS = sorted(ours())
FENCED = re.compile(r"^ *```.*?^ *```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors of a document, as GitHub makes them of its headings."""
    found: list[str] = []
    for heading in HEADING.findall(FENCED.sub("", text)):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return set(found)


def broken(document: Path) -> list[str]:
    links = [link for link in LINK.findall(FENCED.sub("", document.read_text())) if "://" not in link]
    return [link for link in links if not leads_somewhere(document, *link.partition("#")[::2])]


def leads_somewhere(document: Path, path: str, anchor: str) -> bool:
    target = document.parent / path if path else document
    return target.exists() and (not anchor or anchor in anchors(target.read_text()))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links(document: Path) -> None:
    assert broken(document) == []


def test_there_are_documents() -> None:
    assert {path.name for path in DOCUMENTS} >= {"README.md", "architecture.md", "contract.md"}


def test_what_is_broken_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# The `x`, and [more](other.md)\n```\n# no heading\n```\n# Twice\n# Twice\n")
    good = ["other.md", "other.md#the-x-and-more", "other.md#twice-1", "#title", "https://example.com/nothing.md#x"]
    bad = ["nothing.md", "other.md#no-heading", "other.md#the-x", "#no-title"]
    document = tmp_path / "document.md"
    document.write_text("# Title\n" + "".join(f"[link]({link})\n" for link in good + bad))
    assert broken(document) == bad
