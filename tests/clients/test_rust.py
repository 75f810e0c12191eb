"""The Rust client against the real server. What it decodes and how it retries, its own tests and the vectors tell."""

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
pytestmark = [pytest.mark.needs("cargo"), pytest.mark.timeout(600)]

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


async def test_the_example_is_told_why(example: Path, standin: StandIn) -> None:
    async with serve.running(settings_for(standin, AGENTA_AI_SERVICES_API_KEY="")) as address:
        code, out, err = await run(example, AGENTA_AI_TARGET=address)
    assert (code, out) == (1, "")
    assert err.startswith("not run, so nothing to pay: SERVICE_DISABLED: ")


async def test_the_example_without_a_server(example: Path, nobody: str) -> None:
    code, out, err = await run(example, AGENTA_AI_TARGET=nobody)
    assert (code, out) == (1, "")
    said = "it may have run: Unavailable: no connection, is agenta-ai-server running? Connection refused "
    assert err.startswith(said)


def test_the_readme_has_the_example() -> None:
    source = (FOLDER / "examples/refine.rs").read_text()
    assert f"```rust\n{source}```\n" in (FOLDER / "README.md").read_text()
