"""Writes the scripts that complete the command line: static ones, so that completing starts no Python."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import shtab

from agenta_ai.cli.parser import SHELLS, build

FOLDER = Path(__file__).parents[1] / "client" / "agenta_ai" / "cli" / "completion"


def script(shell: str) -> str:
    """Return the script for a shell."""
    parser = build()
    for action in actions(parser):
        if action.metavar == "FILE":
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    text = shtab.complete(parser, shell=shell)
    return "".join(f"{line.rstrip()}\n" for line in text.strip().splitlines())


def actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the actions of a parser and of its commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from actions(command)


def main() -> None:
    for shell in SHELLS:
        (FOLDER / shell).write_text(script(shell))
    sys.stdout.write(f"Wrote {FOLDER}.\n")


if __name__ == "__main__":
    main()
