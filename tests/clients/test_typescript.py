"""The TypeScript client's example against the real server: it works, says why not, and waits for a limit."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from clients.conftest import assert_refined, run
from conftest import settings_for

from agenta_ai_server.auth.key_file import create_key
from agenta_ai_server.commands import serve

if TYPE_CHECKING:
    from agenta_ai_server.standin.app import StandIn

# For the first installation, on a machine that has fetched nothing yet.
pytestmark = [pytest.mark.needs("npm"), pytest.mark.timeout(600)]

PACKAGE = Path(__file__).parents[2] / "clients/typescript"
DEV = "import sys; from agenta_ai_server.cli import main; sys.exit(main())"


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, as the sources make it and with the dependencies that are pinned."""
    folder = tmp_path_factory.mktemp("typescript") / "package"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("node_modules", "dist"))
    npm = shutil.which("npm")
    assert npm
    for command in (["ci", "--prefer-offline"], ["run", "build"]):
        made = subprocess.run([npm, *command], cwd=folder, capture_output=True, text=True)
        assert made.returncode == 0, made.stdout + made.stderr
    return folder / "dist/example/refine.js"


@pytest.fixture(autouse=True)
def deprecated_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_OPTIONS", "--throw-deprecation")


def test_the_readme_has_the_example() -> None:
    source = (PACKAGE / "example/refine.ts").read_text()
    assert f"```ts\n{source}```\n" in (PACKAGE / "README.md").read_text()


def test_the_lock_file_names_no_registry() -> None:
    packages = json.loads((PACKAGE / "package-lock.json").read_text())["packages"]
    assert len(packages) > 1
    assert not [name for name, package in packages.items() if "resolved" in package]


async def test_the_example(example: Path) -> None:
    dev = (sys.executable, "-c", DEV, "dev", "--listen", "127.0.0.1:0", "--")
    code, out, err = await run(*dev, "node", example)
    assert (code, err) == (0, "")
    assert_refined(out)


async def test_the_example_without_a_server(example: Path, nobody: str) -> None:
    code, out, err = await run("node", example, AGENTA_AI_TARGET=nobody)
    assert (code, out) == (1, "")
    assert err.startswith("not run, so nothing is billed: UNAVAILABLE: ")
    assert err.endswith(". Nothing was sent, so the tool was not run.\n")
    assert err.count("\n") == 1


async def test_what_can_be_tried_again(example: Path) -> None:
    dev = (sys.executable, "-c", DEV, "dev", "--listen", "127.0.0.1:0", "--fault", "status=429 retry-after=70", "--")
    code, out, err = await run(*dev, "node", example)
    assert (code, out) == (1, "")
    assert re.match("send [0-9a-f-]{36} again after 70000 ms: UPSTREAM_RATE_LIMITED: ", err)


async def test_who_calls(example: Path, standin: StandIn, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    key = create_key(keys, user="u", organization="o", project="p", permissions=["edit_workflows"], expires=None)
    settings = settings_for(standin, AGENTA_AI_GRPC_AUTH="api_keys", AGENTA_AI_GRPC_API_KEYS_FILE=str(keys))
    async with serve.running(settings) as address:
        for wrong in ("", f"{key[:-4]}0000"):
            code, out, err = await run("node", example, AGENTA_AI_TARGET=address, AGENTA_AI_API_KEY=wrong)
            assert (code, out) == (1, "")
            assert err.startswith("not run, so nothing is billed: CREDENTIALS_INVALID: ")
        code, out, err = await run("node", example, AGENTA_AI_TARGET=address, AGENTA_AI_API_KEY=key)
    assert (code, err) == (0, "")
    assert_refined(out)
    assert standin.started == 1


async def test_a_limit_is_waited_for(example: Path, standin: StandIn, tmp_path: Path) -> None:
    limits = tmp_path / "limits.toml"
    # A call each second and a half: the backoff of gRPC alone would be too short twice.
    limits.write_text("burst = 1\nper_minute = 40\n")
    settings = settings_for(standin, AGENTA_AI_GRPC_LIMITS="on", AGENTA_AI_GRPC_LIMITS_FILE=str(limits))
    async with serve.running(settings) as address:
        started = [run("node", example, AGENTA_AI_TARGET=address) for _ in range(3)]
        ended = await asyncio.gather(*started)
    for code, out, err in ended:
        assert (code, err) == (0, "")
        assert_refined(out)
    assert standin.started == 3
