"""Gathers the documents of the repository into the source of the site, and turns their links to fit.

A document keeps its links to the files beside it, so that it can be read in the repository too. On the site, a link to
another page leads to that page, and one to any other file to a copy of it.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
FILES = Path("files")

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
CODE = re.compile(r"^( *)```.*?^\1```$|`[^`\n]*`", re.DOTALL | re.MULTILINE)
# Documents whose page isn't named as they are.
ELSEWHERE = {
    "README.md": "index.md",
    "deploy/README.md": "deploy.md",
    "bench/README.md": "bench.md",
    "tests/conformance/README.md": "conformance.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "release/README.md": "release.md",
    **{f"clients/{language}/README.md": f"clients/{language}.md" for language in ("go", "typescript", "java", "rust")},
}


def pages() -> dict[Path, Path]:
    """Return the page of each document, both relative: to the repository and to the site."""
    guides = {document.relative_to(ROOT): Path(document.name) for document in (ROOT / "docs").glob("*.md")}
    return guides | {Path(document): Path(page) for document, page in ELSEWHERE.items()}


def assemble(target: Path) -> None:
    """Write the source of the site into the folder ``target``, which is made anew, and its settings beside it.

    Raises:
        SystemExit: A page is not in the navigation, or the navigation names one that there is not.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(HERE / "pages", target)
    known = pages()
    for document, page in known.items():
        write(target / page, with_links((ROOT / document).read_text(), document, known, target))
    (target / "assets").mkdir()
    shutil.copy(HERE / "zensical.toml", target.parent)
    made = {path.relative_to(target).as_posix() for path in target.rglob("*.md") if FILES.name not in path.parts}
    named = set(navigation(tomllib.loads((HERE / "zensical.toml").read_text())["project"]["nav"]))
    if made != named:
        sys.exit(f"docs/site/zensical.toml: the navigation and the pages differ: {', '.join(sorted(made ^ named))}")


def with_links(text: str, document: Path, known: dict[Path, Path], target: Path) -> str:
    """Return the text of a document with links that hold on the site; what they lead to is copied."""
    code = [match.span() for match in CODE.finditer(text)]

    def turned(match: re.Match[str]) -> str:
        mark, label, link = match.groups()
        path, _, anchor = link.partition("#")
        if "://" in link or not path or any(start <= match.start() < end for start, end in code):
            return match.group()
        label = with_links(label, document, known, target)
        leads_to = Path(os.path.normpath(document.parent / path))
        if (ROOT / leads_to).is_dir():
            return label
        if leads_to not in known:
            copy(leads_to, known, target)
        page = known.get(leads_to, FILES / leads_to)
        there = os.path.relpath(page, known[document].parent)
        return f"{mark}[{label}]({there}{'#' if anchor else ''}{anchor})"

    return LINK.sub(turned, text)


def copy(document: Path, known: dict[Path, Path], target: Path) -> None:
    """Copy a file to which a page links. The links of a document have to hold there too."""
    content = (ROOT / document).read_bytes()
    if document.suffix == ".md":
        here = known | {document: FILES / document}
        write(target / FILES / document, with_links(content.decode(), document, here, target))
    else:
        write(target / FILES / document, content)


def navigation(entries: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the pages of the navigation."""
    for entry in entries:
        for value in entry.values():
            yield from navigation(value) if isinstance(value, list) else [value]


def write(path: Path, content: str | bytes) -> None:
    """Write a file, and make its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


if __name__ == "__main__":
    assemble(Path(sys.argv[1]))
