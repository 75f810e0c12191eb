"""The client programs: which there are, and how each is made and run. clients.toml lists them."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping  # noqa: TC003  # pydantic wants to know
from typing import TYPE_CHECKING, Annotated

from conformance.vectors import HERE, Part
from pydantic import BeforeValidator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from conformance.vectors import Vector

ROOT = HERE.parents[1]


class Client(Part):
    """A client program.

    Attributes:
        folder: Where its sources are. Without it, there is no such client yet.
        needs: The programs that build and run it, and where they come from.
        build: The commands that make it, if it must be made.
        run: The command that runs it.
        outcomes: Whether its program has the part of the line protocol that is about outcomes.
        streams: Whether its program has the part that is about streams.
        typed: Whether its program has the part that is about typed methods.
    """

    folder: str
    needs: Mapping[str, str] = {}
    build: Annotated[tuple[str, ...], BeforeValidator(tuple)] = ()
    run: str
    outcomes: bool = False
    streams: bool = False
    typed: bool = False

    @property
    def command(self) -> list[str]:
        """What runs it."""
        return [sys.executable if word == "python" else word for word in shlex.split(self.run)]

    @property
    def missing(self) -> list[str]:
        """What it needs and this machine doesn't have."""
        return [f"{program} ({source})" for program, source in self.needs.items() if not shutil.which(program)]

    def playable(self, vectors: Iterable[Vector]) -> list[Vector]:
        """Those that its program can play."""
        return [
            vector
            for vector in vectors
            if (self.outcomes or not vector.needs_outcomes)
            and (self.streams or not vector.needs_streams)
            and (self.typed or not vector.needs_typed)
        ]

    def make(self) -> str:
        """Build it, and return what went wrong: nothing, as a rule."""
        for command in self.build:
            made = subprocess.run(shlex.split(command), cwd=ROOT, capture_output=True, text=True)
            if made.returncode:
                return f"{command}\n{made.stdout}{made.stderr}"
        return ""


def clients() -> dict[str, Client]:
    """Those whose sources are here, by their names."""
    content = tomllib.loads((HERE / "clients.toml").read_text())
    listed = {name: Client.model_validate(client) for name, client in content.items()}
    return {name: client for name, client in listed.items() if (ROOT / client.folder).exists()}
