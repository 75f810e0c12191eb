"""What the tests of the clients in other languages share: their programs, run against the real server."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from addresses import refusing_address
from conftest import SLOW

if TYPE_CHECKING:
    from collections.abc import Iterator

# In CI, "make clients" has built most of it already.
slow_to_build = pytest.mark.skipif(
    not (SLOW or os.environ.get("CI")), reason="takes minutes to build: make test-slow, or CI=1 make test"
)

TYPESCRIPT = Path(__file__).parents[2] / "clients/typescript"


async def run(*command: str | Path, **environment: str) -> tuple[int | None, str, str]:
    """Runs a program, by nobody's key unless told otherwise, and returns its exit code and what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *command, env={**os.environ, "AGENTA_AI_API_KEY": "", **environment},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def assert_refined(out: str) -> None:
    """The prompt of the examples came back, as the stand-in refines it."""
    (message,) = json.loads(out)["messages"]
    assert message["role"] == "user"
    assert message["content"].startswith("Translate {{text}}")


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address where nobody listens."""
    with refusing_address() as address:
        yield address


@pytest.fixture(scope="session")
def typescript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the TypeScript package, built with the dependencies that are pinned."""
    # A copy, for another worker may be building the same.
    folder = tmp_path_factory.mktemp("typescript") / "package"
    shutil.copytree(TYPESCRIPT, folder, ignore=shutil.ignore_patterns("node_modules", "dist"))
    npm = shutil.which("npm")
    assert npm
    for command in (["ci", "--prefer-offline"], ["run", "build"]):
        made = subprocess.run([npm, *command], cwd=folder, capture_output=True, text=True)
        assert made.returncode == 0, made.stdout + made.stderr
    return folder
