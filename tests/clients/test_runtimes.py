"""The TypeScript client on other runtimes than Node: Bun and Deno, which npm installs."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
import trustme
from clients.conftest import run
from conformance.clients import clients
from conformance.report import failures
from conformance.runner import run as play
from conformance.vectors import load
from conftest import SLOW, settings_for

from agenta_ai_server.commands import serve

if TYPE_CHECKING:
    from pathlib import Path

    from agenta_ai_server.standin.app import StandIn

pytestmark = [
    pytest.mark.needs("npm"),
    pytest.mark.skipif(not SLOW, reason="fetches two runtimes: make test-slow"),
    pytest.mark.timeout(900),
]

PACKAGES = {"bun": "bun@1.4.5", "deno": "deno@2.9.6"}
OPTIONS = {"bun": [], "deno": ["run", "--allow-all"]}


@pytest.fixture(params=PACKAGES)
def runtime(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """The command that runs a program."""
    name: str = request.param
    subprocess.run(["npm", "install", "--no-save", "--prefer-offline", PACKAGES[name]], cwd=tmp_path, check=True)
    return [str(tmp_path / "node_modules/.bin" / name), *OPTIONS[name]]


async def test_the_vectors(runtime: list[str], typescript: Path) -> None:
    vectors, known = load()
    playable = clients()["typescript"].playable(vectors)
    outcomes = await play([*runtime, str(typescript / "dist/conformance.js")], playable, known)
    assert not failures({runtime[0]: outcomes})


async def test_tls_to_an_ip_address(runtime: list[str], typescript: Path, standin: StandIn, tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "server.key")
    for each in certificate.cert_chain_pems:
        each.write_to_path(tmp_path / "server.pem", append=True)
    program = typescript / f"{tmp_path.name}.js"
    program.write_text(
        'import { Client } from "agenta-ai";\n'
        "const client = new Client(process.env.TARGET, { tls: { ca: process.env.CA } });\n"
        "try { console.log((await client.status()).enabled); } finally { client.close(); }\n"
    )
    tls = {
        "AGENTA_AI_GRPC_TLS_CERT_FILE": str(tmp_path / "server.pem"),
        "AGENTA_AI_GRPC_TLS_KEY_FILE": str(tmp_path / "server.key"),
    }
    async with serve.running(settings_for(standin, **tls)) as address:
        assert address.startswith("127.0.0.1:")
        trusted = await run(*runtime, program, TARGET=address, CA=authority.cert_pem.bytes().decode())
        untrusted = await run(*runtime, program, TARGET=address, CA=other.cert_pem.bytes().decode())
    assert trusted[:2] == (0, "true\n"), trusted[2]
    assert untrusted[0] == 1
    assert "Nothing was sent." in untrusted[2]
