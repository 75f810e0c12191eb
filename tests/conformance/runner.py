"""Plays the vectors with the clients, and prints what came of it: python -m conformance.runner --help."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import sys
import time
from typing import TYPE_CHECKING

from conformance import servers
from conformance.clients import ROOT, clients
from conformance.playing import play
from conformance.program import Pool, ProgramError
from conformance.report import Outcome, failures, table
from conformance.vectors import VectorError, load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from conformance.clients import Client
    from conformance.servers import Place
    from conformance.vectors import Server, Vector

# How many vectors are played at the same time. Most of them wait.
PROGRAMS = 8
# Eight programs that start at once may take a busy machine half a minute.
ANSWER_SECONDS = 120.0


async def run(
    command: Sequence[str],
    vectors: Sequence[Vector],
    known: Mapping[str, Server],
    *,
    programs: int = PROGRAMS,
    limit: float = ANSWER_SECONDS,
) -> list[Outcome]:
    """Play the vectors with one client, on servers of their own.

    Args:
        command: What runs its program.
        vectors: Which vectors.
        known: The servers that they name.
        programs: How many programs run at the same time.
        limit: Seconds in which a program must have answered.
    """
    pool = Pool(command, ROOT, max([programs, *map(width, vectors)]))
    async with servers.running(vectors, known) as places:
        outcomes = await asyncio.gather(*(_played(vector, places[vector.name], pool, limit) for vector in vectors))
        if faults := await pool.stop():
            # Nothing tells which vector it was.
            outcomes[-1] = Outcome(outcomes[-1].vector, [*outcomes[-1].wrong, *faults])
    return outcomes


def width(vector: Vector) -> int:
    """How many calls of the vector run at the same time."""
    return max(map(len, vector.steps))


async def _played(vector: Vector, place: Place, pool: Pool, limit: float) -> Outcome:
    try:
        async with pool.taken(width(vector)) as programs:
            return Outcome(vector, await play(vector, place, programs, limit))
    except (ProgramError, OSError) as error:
        return Outcome(vector, str(error).splitlines())


def main() -> int:
    """The command. Returns 1 if any vector fails with any client, or a client can't be built."""
    parser = argparse.ArgumentParser(prog="conformance", description="Play the vectors with the clients.")
    parser.add_argument("--client", action="append", help="only this one; may be repeated")
    parser.add_argument("--vector", default="", metavar="REGEX", help="only those whose 'file: name' holds it")
    parser.add_argument("--no-build", action="store_true", help="take the programs as they are")
    arguments = parser.parse_args()
    # The servers warn of what the vectors bring about, a Redis that is down among it.
    logging.basicConfig(level=logging.ERROR)
    logging.getLogger("agenta_ai_server.idempotency.redis").setLevel(logging.CRITICAL)
    try:
        vectors, known = load()
    except VectorError as error:
        print(error)
        return 1
    vectors = [vector for vector in vectors if re.search(arguments.vector, f"{vector.theme}: {vector.name}")]
    chosen = {name: client for name, client in clients().items() if name in (arguments.client or [name])}
    if not vectors or not chosen:
        parser.error(f"no {'client' if vectors else 'vector'} is called that")
    ready, ok = _ready(chosen, build=not arguments.no_build)
    outcomes: dict[str, list[Outcome]] = {}
    for name, client in ready.items():
        began = time.monotonic()
        playable = client.playable(vectors)
        outcomes[name] = asyncio.run(run(client.command, playable, known)) if playable else []
        print(f"{name}: {len(playable)} vectors in {time.monotonic() - began:.1f} s", flush=True)
    print(f"\n{table(outcomes)}{failures(outcomes)}")
    return 0 if ok and not any(outcome.wrong for played in outcomes.values() for outcome in played) else 1


def _ready(chosen: Mapping[str, Client], *, build: bool) -> tuple[dict[str, Client], bool]:
    """The clients that can be run, and whether that is all that must be: in CI nothing may be left out."""
    ready, ok = {}, True
    for name, client in chosen.items():
        if client.missing:
            print(f"{name} is left out, for lack of {', '.join(client.missing)}")
            ok = ok and not os.environ.get("CI")
        elif build and (fault := client.make()):
            print(f"{name} can't be built: {fault}")
            ok = False
        else:
            ready[name] = client
    return ready, ok


if __name__ == "__main__":
    sys.exit(main())
