"""Draws what the command line shows on a terminal, from real runs: diff.svg and progress.svg."""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console, Group
from rich.text import Text

from agenta_ai_server.standin.app import in_turn
from agenta_ai_server.standin.faults import Fault
from agenta_ai_server.testing import run_service

if TYPE_CHECKING:
    from collections.abc import Iterable

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COLUMNS = 108
COMMAND = ["agenta-ai", "refine", "examples/support_agent.json", "--guidelines", "Be brief and polite."]
# Without fonts from the network.
SVG = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace(
    "Fira Code", "DejaVu Sans Mono"
)
CLEARED = re.compile(r"\r(?:\x1b\[1A)?\x1b\[2K")
CURSOR = re.compile(r"\x1b\[\?25[lh]")
SPINNER = re.compile(r"^\x1b\[32m.\x1b\[0m ")


def run(faults: Iterable[Fault | None]) -> list[str]:
    """Refine a prompt on a terminal, and return what it showed after each change, the result last."""
    settings = {"AGENTA_AI_GRPC_RETRIES": "1", "AGENTA_AI_GRPC_REPAIRS": "1"}
    with run_service(settings) as service:
        service.standin.respond = in_turn(*faults)
        terminal = pexpect.spawn(
            str(Path(sys.executable).with_name(COMMAND[0])), COMMAND[1:], cwd=str(ROOT), encoding="utf-8",
            env={**os.environ, "AGENTA_AI_TARGET": service.address, "TERM": "xterm-256color"},
            dimensions=(40, COLUMNS),
        )  # fmt: skip
        terminal.expect(pexpect.EOF)
    return CLEARED.split(CURSOR.sub("", terminal.before or "").replace("\r\n", "\n"))


def draw(name: str, *lines: str) -> None:
    """Write the picture of a terminal on which the command has printed these lines."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    texts = [Text.from_ansi(line.rstrip()) for line in lines]
    console.print(Group(Text(f"$ {shlex.join(COMMAND)}", style="bold"), *texts, ""))
    console.save_svg(str(HERE / name), title="agenta-ai", code_format=SVG, unique_id=name.partition(".")[0])


def draw_diff() -> None:
    *_, result = run(faults=[None])
    draw("diff.svg", result)


def draw_progress() -> None:
    """The stages of a call whose first request fails and whose first answer has to be repaired."""
    faults = [Fault(status=503, delay=0.5), Fault(answer="fewer", delay=0.5), Fault(delay=0.5)]
    *frames, _ = run(faults=faults)
    # Each stage once, with the form that the spinner had when it came.
    stages = {SPINNER.sub("", frame.strip()): frame.strip() for frame in reversed(frames)}
    draw("progress.svg", *reversed(stages.values()))


if __name__ == "__main__":
    draw_diff()
    draw_progress()
