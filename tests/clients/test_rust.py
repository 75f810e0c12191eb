"""The Rust client against the real server. What it decodes and how it retries, its own tests and the vectors tell."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tarfile
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme
from clients.conftest import assert_refined, run, slow_to_build
from conftest import SLOW, settings_for

from agenta_ai_server.commands import serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agenta_ai_server.standin.app import StandIn

# For the first build, on a machine that has built nothing yet.
pytestmark = [pytest.mark.needs("cargo"), pytest.mark.timeout(600), slow_to_build]

FOLDER = Path(__file__).parents[2] / "clients/rust"


@pytest.fixture(scope="session")
def example() -> Path:
    """The example's program, as the sources make it and with the dependencies that are pinned."""
    cargo = shutil.which("cargo")
    assert cargo
    # All of it, as for the vectors: a part alone has other features of its dependencies, and is built anew.
    built = subprocess.run(
        [cargo, "build", "-q", "--locked", "--workspace", "--all-targets"], cwd=FOLDER, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    return FOLDER / "target/debug/examples/refine"


async def test_the_example(example: Path, address: str) -> None:
    code, out, err = await run(example, AGENTA_AI_TARGET=address)
    assert (code, err) == (0, "")
    assert_refined(out)


async def test_the_example_of_progress(example: Path, address: str) -> None:
    code, out, err = await run(example.with_name("progress"), AGENTA_AI_TARGET=address)
    assert code == 0
    assert out.strip()
    assert err.strip()  # what was happening


async def test_the_example_is_told_why(example: Path, standin: StandIn) -> None:
    async with serve.running(settings_for(standin, AGENTA_AI_SERVICES_API_KEY="")) as address:
        code, out, err = await run(example, AGENTA_AI_TARGET=address)
    assert (code, out) == (1, "")
    assert err.startswith("SERVICE_DISABLED: ")


async def test_the_example_without_a_server(example: Path, nobody: str) -> None:
    code, out, err = await run(example, AGENTA_AI_TARGET=nobody)
    assert (code, out) == (1, "")
    assert err.startswith("Unavailable: no connection: Connection refused ")
    assert err.endswith(". Is agenta-ai-server running? Nothing was sent, so the tool was not run.\n")


async def test_the_example_over_tls_through_a_proxy(example: Path, standin: StandIn, tmp_path: Path) -> None:
    """The name is known to the proxy alone."""
    authority = trustme.CA()
    certificate = authority.issue_cert("agenta.test")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "server.key")
    for each in certificate.cert_chain_pems:
        each.write_to_path(tmp_path / "server.pem", append=True)
    tls = {
        "AGENTA_AI_GRPC_TLS_CERT_FILE": str(tmp_path / "server.pem"),
        "AGENTA_AI_GRPC_TLS_KEY_FILE": str(tmp_path / "server.key"),
    }
    async with serve.running(settings_for(standin, **tls)) as address, connect_proxy(address) as (proxy, asked):
        environment = {
            "AGENTA_AI_TARGET": "agenta.test:443",
            "HTTPS_PROXY": f"http://u:p@{proxy}",
            "SSL_CERT_FILE": str(tmp_path / "ca.pem"),
        }
        code, out, err = await run(example, **environment, NO_PROXY="")
        refused = await run(example, **environment, NO_PROXY="agenta.test")
        untrusted = await run(example, **{**environment, "SSL_CERT_FILE": str(tmp_path / "server.pem")}, NO_PROXY="")
    assert (code, err) == (0, "")
    assert_refined(out)
    assert refused[0] == 1
    assert "cannot find the addresses of agenta.test:443" in refused[2]
    assert untrusted[2].endswith("Nothing was sent, so the tool was not run.\n")
    assert set(asked) == {("CONNECT agenta.test:443 HTTP/1.1", "basic dTpw")}


@asynccontextmanager
async def connect_proxy(behind: str) -> AsyncIterator[tuple[str, list[tuple[str, str]]]]:
    """An HTTP proxy whose only way leads to one address. Yields its own, and what was asked, and by whom."""
    asked: list[tuple[str, str]] = []

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        secret = next((line.split(": ")[1] for line in head if line.lower().startswith("proxy-authorization: ")), "")
        asked.append((head[0], secret.replace("Basic", "basic")))
        host, port = behind.rsplit(":", 1)
        there = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with suppress(ConnectionError):
            await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
    writer.close()


def test_the_package_is_complete() -> None:
    """That it builds from what would be published alone, make clients sees."""
    cargo = shutil.which("cargo")
    assert cargo
    packed = subprocess.run(
        [cargo, "package", "-q", "--locked", "--allow-dirty", "--no-verify", "-p", "agenta-ai"],
        cwd=FOLDER, capture_output=True, text=True,
    )  # fmt: skip
    assert packed.returncode == 0, packed.stderr
    (crate,) = (FOLDER / "target/package").glob("agenta-ai-*.crate")
    with tarfile.open(crate) as files:
        names = {name.split("/", 1)[1] for name in files.getnames()}
        licensed = files.extractfile(f"{crate.stem}/LICENSE")
        assert licensed
        assert licensed.read() == (FOLDER.parents[1] / "LICENSE").read_bytes()
    assert {"CHANGELOG.md", "README.md", "src/service_config.json"} <= names
    assert not [name for name in names if name.startswith(("tests/", "conformance/", "generate/"))]
    metadata = (FOLDER / "Cargo.toml").read_text()
    for key in "description", "repository", "documentation", "readme", "keywords", "categories":
        assert f"\n{key} = " in metadata


@pytest.mark.skipif(not SLOW, reason="takes minutes: make test-slow")
@pytest.mark.timeout(1800)
def test_the_public_api_is_compatible(tmp_path: Path) -> None:
    """With that of the last release, baseline.crate, as cargo-semver-checks compares them: what breaks it is found."""
    with tarfile.open(FOLDER / "baseline.crate") as files:
        files.extractall(tmp_path, filter="data")
    (baseline,) = tmp_path.iterdir()
    compared = semver_checks(baseline)
    assert compared.returncode == 0, compared.stdout + compared.stderr
    library = baseline / "src/lib.rs"
    library.write_text(library.read_text() + "/// Gone since.\npub fn gone() {}\n")
    broken = semver_checks(baseline)
    assert broken.returncode != 0
    assert "function agenta_ai::gone" in broken.stdout


def semver_checks(baseline: Path) -> subprocess.CompletedProcess[str]:
    tools = FOLDER.parents[1] / ".tools/bin"
    command = ["cargo", "semver-checks", "-p", "agenta-ai", "--release-type", "minor", f"--baseline-root={baseline}"]
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(command, cwd=FOLDER, env={**os.environ, "PATH": path}, capture_output=True, text=True)


@pytest.mark.parametrize("name", ["refine.rs", "progress.rs"])
def test_the_readme_has_the_example(name: str) -> None:
    source = (FOLDER / "examples" / name).read_text()
    assert f"```rust\n{source}```\n" in (FOLDER / "README.md").read_text()
