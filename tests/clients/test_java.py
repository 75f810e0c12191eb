"""The Java client against the real server. What it decodes and how it retries, its own tests and the vectors tell."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from clients.conftest import assert_refined, run
from conftest import settings_for

from agenta_ai_server.commands import serve

if TYPE_CHECKING:
    from agenta_ai_server.standin.app import StandIn

# For the first build, on a machine that has built nothing yet.
pytestmark = [pytest.mark.needs("mvn"), pytest.mark.timeout(600)]

FOLDER = Path(__file__).parents[2] / "clients/java"


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's archive, as the sources make it and with the dependencies that are pinned."""
    # A copy, for another worker may be building the same.
    sources = tmp_path_factory.mktemp("java") / "clients/java"
    shutil.copytree(FOLDER, sources, ignore=shutil.ignore_patterns("target"))
    shutil.copytree(FOLDER.parents[1] / "protos", sources.parents[1] / "protos")
    mvn = shutil.which("mvn")
    assert mvn
    built = subprocess.run(
        [mvn, "-q", "-B", "package", "-DskipTests", "-pl", "example", "-am"],
        cwd=sources, capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    return sources / "example/target/example.jar"


async def test_the_example(example: Path, address: str) -> None:
    code, out, err = await run("java", "-jar", example, AGENTA_AI_TARGET=address)
    assert (code, err) == (0, "")
    assert_refined(out)


async def test_the_example_is_told_why(example: Path, standin: StandIn) -> None:
    async with serve.running(settings_for(standin, AGENTA_AI_SERVICES_API_KEY="")) as address:
        code, out, err = await run("java", "-jar", example, AGENTA_AI_TARGET=address)
    assert (code, out) == (1, "")
    assert err.startswith("Not run, so nothing to pay: SERVICE_DISABLED: ")


async def test_the_example_without_a_server(example: Path, nobody: str) -> None:
    code, out, err = await run("java", "-jar", example, AGENTA_AI_TARGET=nobody)
    assert (code, out) == (1, "")
    assert err.startswith("It may have run: UNAVAILABLE: no connection, is agenta-ai-server running? ")
    assert "refused" in err


def test_the_readme_has_the_example() -> None:
    source = (FOLDER / "example/src/main/java/ai/agenta/ai/example/Example.java").read_text()
    assert f"```java\n{source}```\n" in (FOLDER / "README.md").read_text()
