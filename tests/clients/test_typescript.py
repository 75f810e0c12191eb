"""The TypeScript client's example against the real server: it works, says why not, and waits for a limit."""

from __future__ import annotations

import asyncio
import json
import os
import re
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
def example(typescript: Path) -> Path:
    """The example, as the sources make it."""
    return typescript / "dist/example/refine.js"


@pytest.fixture(autouse=True)
def deprecated_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_OPTIONS", "--throw-deprecation")


@pytest.fixture(scope="session")
def installed(example: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of somebody else that has installed ours, as it would be published."""
    package, consumer = example.parents[2], tmp_path_factory.mktemp("consumer")
    (packed,) = json.loads(made(["npm", "pack", "--json", "--ignore-scripts", "--pack-destination", consumer], package))
    names = {each["path"] for each in packed["files"]}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "package.json", "dist/index.js", "dist/index.d.ts"} <= names
    assert not [name for name in names if re.search("test|conformance|example|dist/api", name)]
    (consumer / "package.json").write_text('{"name": "consumer", "type": "module"}')
    made(["npm", "install", "--prefer-offline", "--no-audit", "--no-fund", consumer / packed["filename"]], consumer)
    return consumer


def made(command: list[str | Path], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_package_can_be_used_by_others(installed: Path) -> None:
    program = installed / "program.js"
    program.write_text(
        "import { Client, Code, ErrorReason } from 'agenta-ai';\n"
        "import { ToolService } from 'agenta-ai/v1';\n"
        "{ const client = new Client('127.0.0.1:1'); client.close(); }\n"
        "console.log(Code.OK, ErrorReason.OUTCOME_UNKNOWN, ToolService.typeName);\n"
    )
    assert made(["node", program], installed) == "0 110 agenta.ai.v1.ToolService\n"


def test_the_types_can_be_used_by_others(example: Path, installed: Path) -> None:
    """Without types of Node, and with the libraries that TypeScript takes by itself."""
    program = installed / "typed.ts"
    program.write_text(
        "import { Client, type ToolResult } from 'agenta-ai';\n"
        "import { ToolService } from 'agenta-ai/v1';\n"
        "interface Arguments { text: string; left?: string }\n"
        "const given: Arguments = { text: 'x' };\n"
        "const client = new Client('127.0.0.1:1');\n"
        "const called: ToolResult<{ count: number }> = await client.callTool<{ count: number }>('t', given);\n"
        "const enabled: boolean = (await client.call(ToolService.method.status, {})).enabled;\n"
        "export const count: number = enabled ? called.result.count : 0;\n"
    )
    tsc = example.parents[2] / "node_modules/.bin/tsc"
    made([tsc, "--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", program], installed)


def test_the_public_types_do_not_name_grpc(installed: Path) -> None:
    """Users of the types see none of grpc-js, whose types differ from version to version."""
    folder = installed / "node_modules/agenta-ai/dist"
    seen: set[Path] = set()
    queue = [folder / "index.d.ts", folder / "v1.d.ts"]
    while queue:
        path = queue.pop()
        if path not in seen:
            seen.add(path)
            text = path.read_text()
            assert "@grpc/" not in text, path
            queue += [path.parent / f"{found}.d.ts" for found in re.findall(r'from "(\./[^"]+)\.js"', text)]
    assert len(seen) > 5


def test_the_readme_has_a_bundle_that_works(example: Path) -> None:
    readme = (PACKAGE / "README.md").read_text()
    (banner,) = re.findall(r'"(--banner:js=.*)"', readme)
    package, bundle = example.parents[2], example.parents[2] / "bundle.mjs"
    options = ["--bundle", "--platform=node", "--format=esm", "--log-level=error", banner]
    made([package / "node_modules/.bin/esbuild", example, *options, f"--outfile={bundle}"], package)
    ended = subprocess.run(
        ["node", bundle], env={**os.environ, "AGENTA_AI_TARGET": "http://x"}, capture_output=True, text=True
    )
    assert "is a web address: give host:port" in ended.stderr


@pytest.mark.parametrize("name", ["refine.ts", "progress.ts"])
def test_the_readme_has_the_example(name: str) -> None:
    source = (PACKAGE / "example" / name).read_text()
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


async def test_the_example_of_progress(example: Path) -> None:
    dev = (sys.executable, "-c", DEV, "dev", "--listen", "127.0.0.1:0", "--")
    code, out, err = await run(*dev, "node", example.with_name("progress.js"))
    assert code == 0
    assert out.strip()
    assert err.strip()  # what was happening


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
    assert re.search("(?m)^send [0-9a-f-]{36} again after 70000 ms: UPSTREAM_RATE_LIMITED: ", err)


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
