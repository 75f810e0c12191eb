"""Replays the ``console`` blocks of a document, section by section, against real servers.

A command begins with ``$``, and goes on with ``>``. One that starts a server is run in the background, on a port and
with a key of its own, which stand where the document has its own. In what a command prints ``…`` stands for any part of
a line, or, alone, for any number of lines.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
ADDRESS, KEY, STANDIN = "127.0.0.1:50051", "aai_…", "http://127.0.0.1:…"
DEFAULT_SERVER = "agenta-ai-server dev"
STARTS_SERVER = re.compile(r"(?:[A-Z_]+=\S+ )*agenta-ai-server (?:dev|serve)\b")
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MARK = "\x1e"
# What a session may take: its commands start a Python each, which takes a busy machine seconds. And what its test may.
SESSION_SECONDS, TEST_SECONDS = 300, 600
ANY_LINES = r"(?:.*\n)*?"


@dataclass(frozen=True)
class Command:
    text: str
    output: str


@dataclass(frozen=True)
class Section:
    """What is run before the server, what starts the server, and what is run then."""

    before: list[Command]
    server: str
    after: list[Command]


def sections(path: Path) -> dict[str, Section]:
    """The sections of a document, by their titles."""
    introduction, *parts = re.split(r"^## ", path.read_text(), flags=re.MULTILINE)
    first = list(commands(introduction))
    return {part.partition("\n")[0]: section(first, list(commands(part))) for part in parts}


def commands(text: str) -> Iterator[Command]:
    for block in BLOCK.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            first, *lines = part.splitlines()
            more = [line[2:] for line in takewhile(lambda line: f"{line} ".startswith("> "), lines)]
            yield Command("\n".join([first, *more]), "\n".join(lines[len(more) :]).strip("\n"))


def section(first: list[Command], own: list[Command]) -> Section:
    starts = [number for number, command in enumerate(own) if STARTS_SERVER.match(command.text)]
    if not starts:
        return Section([], DEFAULT_SERVER, [*first, *own])
    (start,) = starts
    return Section(own[:start], own[start].text, [*first, *own[start + 1 :]])


def replay(section: Section, folder: Path) -> Iterator[tuple[Command, str]]:
    """Each command, and what it printed."""
    for name in ("client", "examples", "protos"):
        (folder / name).symlink_to(ROOT / name)
    yield from run(section.before, folder)
    with serving(section.server, folder) as real:
        yield from run(section.after, folder, real)


def run(session: list[Command], folder: Path, real: dict[str, str] | None = None) -> Iterator[tuple[Command, str]]:
    """Run commands in one shell, with what is ``real`` in place of what the document says."""
    # The mark leaves $? as it is.
    script = "".join(f"{command.text}\n(code=$?; printf '{MARK}'; exit $code)\n" for command in session)
    for said, meant in (real or {}).items():
        script = script.replace(said, meant)
    printed = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=SESSION_SECONDS, check=False,
    ).stdout  # fmt: skip
    for said, meant in (real or {}).items():
        printed = printed.replace(meant, said)
    return zip(session, printed.split(MARK), strict=False)


@contextmanager
def serving(starter: str, folder: Path) -> Iterator[dict[str, str]]:
    """Run a server, and tell what stands for its address and its key, and for the address of its stand-in."""
    starter = starter.replace("agenta-ai-server", "exec agenta-ai-server", 1)
    with subprocess.Popen(
        ["bash", "-c", starter], cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        lines: Queue[str] = Queue()
        # To its end, because what it logs would fill the pipe.
        reader = Thread(target=lambda: deque(map(lines.put, process.stdout or ()), maxlen=0))
        reader.start()
        try:
            real = {ADDRESS: said(lines, r"(?:services|listening) on ([\d.:]+)")}
            if " dev" in starter:
                real[KEY] = said(lines, r"AGENTA_AI_API_KEY=(\w+)")
                real[STANDIN] = said(lines, r"AGENTA_AI_SERVICES_API_URL=(\S+)")
            yield real
        finally:
            process.kill()
            reader.join()


def said(lines: Queue[str], pattern: str) -> str:
    while True:
        if found := re.search(pattern, lines.get(timeout=120)):
            return found[1]


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENTA_AI_")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "AGENTA_AI_GRPC_LISTEN": "127.0.0.1:0", "AGENTA_AI_GRPC_DRAIN_SECONDS": "0"}


def matches(expected: str, printed: str) -> bool:
    lines = (ANY_LINES if line == "…" else re.escape(line).replace("…", ".+?") + "\n" for line in tidied(expected))
    return re.fullmatch("".join(lines), "".join(f"{line}\n" for line in tidied(printed))) is not None


def tidied(text: str) -> list[str]:
    """The lines without what nobody sees: tabs that could be spaces, and space at the ends."""
    return [line.replace("\t", " ").rstrip() for line in text.rstrip().lstrip("\n").splitlines()]
