"""The image's own commands, run without Docker: the build, what comes of it, and the health check."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from addresses import free_address
from conftest import settings_for
from deploy.conftest import DEPLOY

from agenta_ai_server.commands import serve
from agenta_ai_server.settings import load, schema

if TYPE_CHECKING:
    from agenta_ai_server.standin.app import StandIn

SOURCE = DEPLOY.parent
DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", "")


def instructions(name: str) -> list[str]:
    return re.findall(rf"^ *{name} (.*)$", DOCKERFILE, re.MULTILINE)


def copied() -> list[tuple[str, str]]:
    """What is copied from the context, and where to."""
    lines = [line.split() for line in instructions("COPY") if not line.startswith("--from")]
    return [(name, target) for *names, target in lines for name in names]


def build(folder: Path) -> Path:
    """Run the commands of the build in ``folder``, and return what becomes /opt/agenta-ai."""
    for name, target in copied():
        if (SOURCE / name).is_dir():
            shutil.copytree(SOURCE / name, folder / target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(SOURCE / name, folder / target)
    (shell,), (run,) = instructions("SHELL"), instructions("RUN")
    command = re.sub(r"--mount=\S+", "", run).replace("/wheel", f"{folder}/wheel").replace("/opt", f"{folder}/opt")
    # As the Makefile has it, for a machine with certificates of its own.
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "UV_SYSTEM_CERTS": "1"}
    built = subprocess.run([*json.loads(shell), command], cwd=folder, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder / "opt/agenta-ai"


# For the first time, when nothing has been downloaded yet.
@pytest.mark.timeout(300)
def test_the_image_has_the_server_and_nothing_for_development(tmp_path: Path) -> None:
    image = build(tmp_path)
    version = subprocess.check_output([image / "bin/agenta-ai-server", "--version"], text=True)
    assert version.startswith("agenta-ai-server ")
    names = "import importlib.metadata as m; print(*(each.name for each in m.distributions()))"
    installed = set(subprocess.check_output([image / "bin/python", "-c", names], text=True).split())
    assert installed > {"agenta-ai", "grpcio-health-checking", "redis", "uvloop"}
    assert not installed & {"pip", "pytest", "mypy", "rich"}


def test_the_env_file_has_settings_that_are_known() -> None:
    text = (DEPLOY / "server.env").read_text()
    # Also those that are commented out: Docker and systemd would pass on quotes and comments at the end of a line.
    offered = re.findall(r"^#?([A-Z_]+)=([^\s\"'#]+)$", text, re.MULTILINE)
    assert len(offered) == len(re.findall("=", text)) - text.count("NAME=")
    assert {name for name, _ in offered} <= {*schema.names()}
    # As deploy/README.md and the unit of systemd add them.
    files = {"AGENTA_AI_SERVICES_API_KEY": "x", "AGENTA_AI_GRPC_API_KEYS_FILE": "/keys.json"}
    settings, _ = load({**dict(re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE)), **files})
    assert not settings.missing


async def test_the_health_check(standin: StandIn) -> None:
    (check,) = re.findall(r"HEALTHCHECK.*CMD (\[.*\])", DOCKERFILE)

    async def ask(address: str) -> int:
        program, *arguments = json.loads(check.replace("127.0.0.1:50051", address))
        assert program == "python"
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=asyncio.subprocess.DEVNULL)
        return await process.wait()

    # Nobody else listens there afterwards.
    async with serve.running(settings_for(standin, AGENTA_AI_GRPC_LISTEN=free_address())) as address:
        assert await ask(address) == 0
    assert await ask(address) == 1


def test_the_context_has_what_is_copied() -> None:
    kept = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept == {name for name, _ in copied()}
