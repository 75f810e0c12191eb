"""Clients that others wrote, each against the bridge as a program, over both transports and in both revisions.

The TypeScript SDK over HTTP is for every run; all others, and the suite of conformance, for ``make test-slow``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bridge.conftest import ARGUMENTS, COMMAND, REFINE, REVISIONS, clean_environment, over_http
from bridge.suite import suite_service
from conftest import SLOW

from agenta_ai_server.standin.app import StandIn
from agenta_ai_server.standin.faults import Fault
from agenta_ai_server.testing import run_service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenta_ai_server.testing import LocalService

# For the first installation, on a machine that has fetched nothing yet.
pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
FOREIGN = Path(__file__).parent / "foreign"
# What fails of the scenarios that pass otherwise.
PARTLY = {
    "caching": {
        "sep-2549-prompts-list-caching-hints",
        "sep-2549-resources-list-caching-hints",
        "sep-2549-resources-templates-list-caching-hints",
    },
    "server-stateless": {
        "sep-2575-http-server-no-independent-requests-on-stream",
        "sep-2575-missing-capability-http-400",
        "sep-2575-server-rejects-undeclared-capability",
    },
}
slow = pytest.mark.skipif(not SLOW, reason="another SDK: make test-slow")


@pytest.fixture(scope="module")
def service() -> Iterator[LocalService]:
    """A service whose answers take a moment: the TypeScript SDK drops progress that comes together with the result."""
    with run_service(standin=StandIn(fault=Fault(delay=1))) as running:
        yield running


@pytest.fixture(scope="module")
def url(service: LocalService) -> Iterator[str]:
    with over_http(service.address) as url:
        yield url


def made(folder: Path, *command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env={**clean_environment(), **environment}, capture_output=True, text=True, timeout=500,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def node_modules(name: str, to: Path) -> Path:
    """Install the packages of a folder, by its lock file if it has one, and return where."""
    npm = shutil.which("npm")
    assert npm
    shutil.copytree(FOREIGN / name, to)
    # The Inspector has a dependency without a version, which npm writes into no lock file that it accepts.
    install = "ci" if (to / "package-lock.json").exists() else "install"
    made(to, npm, install, "--prefer-offline", "--no-audit", "--no-fund")
    return to


@pytest.fixture(scope="module")
def typescript(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = node_modules("typescript", tmp_path_factory.mktemp("foreign") / "typescript")
    return ["node", str(folder / "client.mjs")]


@pytest.fixture(scope="module")
def python_1(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("foreign") / "python"
    made(ROOT, sys.executable, "-m", "uv", "venv", "-q", folder)
    made(ROOT, sys.executable, "-m", "uv", "pip", "install", "-q", "-p", folder, "mcp>=1.28,<2")
    return [str(folder / "bin/python"), str(FOREIGN / "python_1.py")]


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    program = tmp_path_factory.mktemp("foreign") / "client"
    made(FOREIGN / "go", "go", "build", "-o", program, ".")
    return [str(program)]


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the programs of the suite and of the Inspector, and of the Node that they need."""
    return node_modules("slow", tmp_path_factory.mktemp("foreign") / "slow") / "node_modules/.bin"


def assert_understands(client: list[str], revision: str, *server: str) -> None:
    report = json.loads(made(ROOT, *client, revision, *server).splitlines()[-1])
    assert "The tool has started." in report.pop("progress")
    assert report == {
        "tools": [REFINE],
        "messages": [{"role": "user", "content": "Translate {{text}}"}],
        "wrong": [True, "arguments.prompt_template_json: Input should be a valid string."],
        "unknown": -32602,
    }


@pytest.mark.needs("npm")
def test_typescript_over_http(typescript: list[str], url: str) -> None:
    for revision in REVISIONS:
        assert_understands(typescript, revision, url)


@slow
@pytest.mark.needs("npm")
def test_typescript_over_stdio(typescript: list[str], service: LocalService) -> None:
    for revision in REVISIONS:
        assert_understands(typescript, revision, *COMMAND, "--target", service.address)


@slow
def test_version_1_of_the_python_sdk(python_1: list[str], service: LocalService, url: str) -> None:
    assert_understands(python_1, REVISIONS[1], url)
    assert_understands(python_1, REVISIONS[1], *COMMAND, "--target", service.address)


@slow
@pytest.mark.needs("go")
def test_go(go: list[str], service: LocalService, url: str) -> None:
    assert_understands(go, REVISIONS[0], url)
    assert_understands(go, REVISIONS[0], *COMMAND, "--target", service.address)


@slow
@pytest.mark.needs("npm")
def test_the_inspector(tools: Path, service: LocalService, url: str) -> None:
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    inspector = [str(tools / "inspector"), "--cli"]
    for server in ([url], [*COMMAND, "--target", service.address]):
        listed = json.loads(made(ROOT, *inspector, *server, "--method", "tools/list", PATH=path))
        assert [tool["name"] for tool in listed["tools"]] == [REFINE]
        # It reads values as JSON.
        template = f"prompt_template_json={json.dumps(ARGUMENTS['prompt_template_json'])}"
        call = ["--method", "tools/call", "--tool-name", REFINE, "--tool-arg", template]
        called = json.loads(made(ROOT, *inspector, *server, *call, PATH=path))
        assert called["structuredContent"]["messages"] == [{"role": "user", "content": "Translate {{text}}"}]


def exceptions(revision: str) -> dict[str, str]:
    """Return the scenarios that docs/mcp.md lists as exceptions in a revision, and the reason for each."""
    rows = re.findall(r"^\| `([\w,` -]+)` \| ([^|]+) \| ([^|]+) \|$", (ROOT / "docs/mcp.md").read_text(), re.MULTILINE)
    return {name: why for names, which, why in rows if revision in which for name in re.split(r"`, `", names)}


@slow
@pytest.mark.needs("npm")
@pytest.mark.parametrize("revision", REVISIONS)
def test_the_suite_of_conformance(tools: Path, revision: str, tmp_path: Path) -> None:
    expected = exceptions(revision)
    (tmp_path / "expected.yml").write_text("".join(["server:\n", *(f"  - {name}\n" for name in expected)]))
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    with suite_service() as target, over_http(target) as url:
        # It fails if a scenario fails that isn't listed, and if one that is listed doesn't.
        printed = made(
            tmp_path, tools / "conformance", "server", "--url", url, "--requirements", revision,
            "--expected-failures", tmp_path / "expected.yml", "-o", tmp_path / "results", PATH=path,
        )  # fmt: skip
    assert "tools-list" in printed
    assert {name: failed_checks(tmp_path / "results", name) for name in expected if name in PARTLY} == {
        name: PARTLY[name] for name in expected if name in PARTLY
    }


def failed_checks(results: Path, scenario: str) -> set[str]:
    (checks,) = results.glob(f"server-{scenario}-2*/checks.json")
    return {check["id"] for check in json.loads(checks.read_text()) if check["status"] == "FAILURE"}


def test_every_exception_has_a_reason() -> None:
    found: dict[str, Any] = {revision: exceptions(revision) for revision in REVISIONS}
    assert all(found.values())
    assert all(why.strip() for each in found.values() for why in each.values())
    for lock in FOREIGN.glob("*/package-lock.json"):
        assert '"resolved"' not in lock.read_text(), f"{lock} names a registry"
