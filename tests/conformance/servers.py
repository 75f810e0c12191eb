"""Starts what vectors are played against: services, each with a stand-in for Agenta, and the scripted server."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock
from uuid import uuid4

import jwt
from addresses import refusing_address
from conformance.arrivals import Arrival, Arrivals, new_trace, trace_of
from conformance.scripted import Scripted
from conformance.vectors import FOLDER, NOBODY, UUIDS, Caller, Server, filled
from conftest import settings_for
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from proxy import Proxy

from agenta_ai_server.agenta import completions
from agenta_ai_server.auth.key_file import create_key, make_if_missing, revoke_key
from agenta_ai_server.commands import serve
from agenta_ai_server.standin.app import StandIn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from conformance.vectors import Reply, Vector

    from agenta_ai_server.standin.received import Received

KEYS_FILE, JWKS_FILE = "keys.json", "jwks.json"
ISSUER, AUDIENCE = "https://issuer.example", "agenta-ai"
# The services' margin for their answers is more than what a busy machine may take from all that share this process.
MARGIN_SECONDS = 3.0


@dataclass(frozen=True)
class Place:
    """Where one vector is played.

    Attributes:
        target: Address of the server.
        nobody: An address where nobody listens.
        arrivals: What arrived: at the stand-in, or at the scripted server.
        trace: What the vector's calls are known by.
        values: What its placeholders stand for.
    """

    target: str
    nobody: str
    arrivals: Arrivals
    trace: str
    values: Mapping[str, str]


@asynccontextmanager
async def running(vectors: Iterable[Vector], servers: Mapping[str, Server]) -> AsyncIterator[dict[str, Place]]:
    """Run the servers that the vectors need, each once, and say where each vector is played, by its name."""
    by_server: dict[str, list[str]] = {}
    scripts: dict[str, tuple[Reply, ...]] = {}
    for vector in vectors:
        if vector.script:
            scripts[vector.name] = vector.script
        else:
            by_server.setdefault(vector.server, []).append(vector.name)
    async with AsyncExitStack() as opened:
        opened.enter_context(mock.patch.object(completions, "MARGIN_SECONDS", MARGIN_SECONDS))
        nobody = opened.enter_context(refusing_address())
        places = await opened.enter_async_context(_scripted(scripts, nobody))
        for name, played in by_server.items():
            places |= await opened.enter_async_context(_service(servers[name], played, nobody))
        yield places


@asynccontextmanager
async def _scripted(scripts: Mapping[str, tuple[Reply, ...]], nobody: str) -> AsyncIterator[dict[str, Place]]:
    traces = {name: new_trace() for name in scripts}
    scripted = Scripted({traces[name]: script for name, script in scripts.items()})
    async with scripted.running() as address, AsyncExitStack() as opened:
        targets = dict.fromkeys(scripts, address)
        for name, script in scripts.items():
            if any(reply.cut for reply in script):
                proxy = await opened.enter_async_context(Proxy(address))
                targets[name], scripted.cuts[traces[name]] = proxy.target, proxy.cut
        yield {
            name: Place(targets[name], nobody, scripted.arrivals, trace, _ids() | {NOBODY: nobody})
            for name, trace in traces.items()
        }


@asynccontextmanager
async def _service(server: Server, played: Iterable[str], nobody: str) -> AsyncIterator[dict[str, Place]]:
    arrivals = Arrivals()
    with tempfile.TemporaryDirectory() as folder:
        for name, content in server.files.items():
            (Path(folder) / name).write_text(content)
        credentials = _credentials(server.callers, played, Path(folder))
        settings: dict[str, str] = filled(server.settings, {FOLDER: folder, NOBODY: nobody})
        async with (
            StandIn(respond=partial(_note, arrivals)) as standin,
            serve.running(settings_for(standin, **settings)) as address,
        ):
            yield {
                name: Place(address, nobody, arrivals, new_trace(), _ids() | {NOBODY: nobody} | credentials[name])
                for name in played
            }


def _ids() -> dict[str, str]:
    return {name: str(uuid4()) for name in UUIDS}


async def _note(arrivals: Arrivals, received: Received) -> None:
    """Note a run of the stand-in, whose task ends when it is answered, and is cancelled when it is broken off."""
    arrival = Arrival(method=f"{received.method} {received.path}", request=received.run, metadata=received.headers)
    arrivals.begin(trace_of(received.headers), arrival)
    task = asyncio.current_task()
    assert task
    task.add_done_callback(lambda task: arrivals.end(arrival, closed=task.cancelled()))


def _credentials(callers: Mapping[str, Caller], players: Iterable[str], folder: Path) -> dict[str, dict[str, str]]:
    """A credential for each caller of a server, and for each vector another one: they share no limit and no result."""
    issuer = Ed25519PrivateKey.generate()
    algorithm = jwt.get_algorithm_by_name("EdDSA")
    public = algorithm.to_jwk(issuer.public_key(), as_dict=True)
    (folder / JWKS_FILE).write_text(json.dumps({"keys": [{**public, "kid": "k", "alg": "EdDSA", "use": "sig"}]}))
    make_if_missing(folder / KEYS_FILE)
    return {
        player: {
            name: _api_key(caller, player, folder / KEYS_FILE)
            if caller.kind == "api_key"
            else _token(caller, player, issuer)
            for name, caller in callers.items()
        }
        for player in players
    }


def _api_key(caller: Caller, player: str, file: Path) -> str:
    key = create_key(file, user=player, organization=player, project="p", permissions=caller.permissions, expires=None)
    if caller.revoked:
        revoke_key(file, key.split("_")[1])
    return key


def _token(caller: Caller, player: str, issuer: Ed25519PrivateKey) -> str:
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": player,
        "organization_id": player,
        "permissions": list(caller.permissions),
        "exp": int(time.time()) + (-3600 if caller.expired else 3600),
    }
    return jwt.encode(claims, issuer, algorithm="EdDSA", headers={"kid": "k"})
