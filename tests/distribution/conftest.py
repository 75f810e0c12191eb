"""What is published, built once for all tests, and installed into new environments away from the repository."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# uv trusts the machine's certificates, as pip does; and nothing here is found by way of the repository.
OURS = ("AGENTA_AI_", "PYTHON", "VIRTUAL_ENV")
KEPT = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
ENVIRONMENT = {**KEPT, "UV_SYSTEM_CERTS": "1", "GRPC_VERBOSITY": "NONE"}


@dataclass(frozen=True)
class Distributions:
    """The files: the sdist, the wheel made of it, and the wheel made of the repository."""

    sdist: Path
    wheel: Path
    direct_wheel: Path


@dataclass(frozen=True)
class Installation:
    """An environment in which the wheel is installed."""

    bin: Path

    def run(self, program: str, *arguments: str, code: int = 0) -> str:
        """Run one of its programs, and return what it prints."""
        path = {"PATH": f"{self.bin}:{os.environ['PATH']}"}
        done = subprocess.run(
            [self.bin / program, *arguments], cwd=self.bin.parent, env={**ENVIRONMENT, **path}, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout
        return done.stdout

    def python(self, program: str) -> list[str]:
        """Run a program in its Python, and return the words that it prints."""
        return self.run("python", "-c", program).split()


def uv(*arguments: str | Path) -> str:
    done = subprocess.run([BIN / "uv", *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, direct = shared / "dist", shared / "direct"
    # Whoever comes first builds, and the others wait.
    with (shared / "dist.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not direct.exists():
            uv("build", "--out-dir", folder, ROOT)
            uv("build", "--wheel", "--out-dir", direct, ROOT)
    (sdist,), (wheel,), (direct_wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl"), direct.glob("*.whl")
    return Distributions(sdist, wheel, direct_wheel)


@pytest.fixture
def install(distributions: Distributions, tmp_path: Path) -> Callable[..., Installation]:
    """Installs the wheel with these extras, and what else is asked for, into a new environment."""

    def installed(extras: str = "", *more: str) -> Installation:
        folder = tmp_path / "environment"
        uv("venv", "--python", sys.executable, folder)
        wheel = f"agenta-ai{extras} @ {distributions.wheel.as_uri()}"
        uv("pip", "install", "--python", folder, "--constraints", ROOT / "requirements-dev.lock", wheel, *more)
        return Installation(folder / "bin")

    return installed
