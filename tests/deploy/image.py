"""The image, built by Podman and run as deploy/README.md shows. For ``make deploy-check``, not for every run."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from calls import TEMPLATE
from deploy.conftest import DEPLOY

from agenta_ai import Client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenta_ai_server.standin.app import StandIn

ROOT = DEPLOY.parent
WORK = ROOT / ".tools/image"
# A store of its own: the base has a name that isn't ours to give.
PODMAN = [
    "podman",
    "--root",
    str(WORK / "store"),
    "--runroot",
    str(WORK / "run"),
    "--cgroup-manager",
    "cgroupfs",
    "--runtime",
    "runc",
]
CERTIFICATES = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
# Podman's own health checks need systemd, and its own limits more rights than a container may have.
FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
HERE = [
    "--health-interval=disable", f"--ulimit=nofile={FILES}:{FILES}", "--ulimit=nproc=1000:1000",
    "--network=host",
]  # fmt: skip
NAME = f"agenta-ai-server-{os.getpid()}"
USER = 65532
MIB = 2**20


def podman(*arguments: str | Path, stdin: bytes | None = None) -> str:
    done = subprocess.run([*PODMAN, *arguments], cwd=ROOT, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def documented(beginning: str) -> list[str]:
    """The arguments of the command in deploy/README.md that begins so, after the word "docker"."""
    text = (DEPLOY / "README.md").read_text().replace("\\\n", "")
    (command,) = re.findall(rf"^\$ docker ({beginning}.*)$", text, re.MULTILINE)
    return shlex.split(command)


@pytest.fixture(scope="module")
def image() -> str:
    """The image's name."""
    podman("import", WORK / "base.tar", "docker.io/library/python:3.13-slim")
    uv = WORK / "uv"
    uv.mkdir(exist_ok=True)
    shutil.copy(Path(sys.executable).with_name("uv"), uv)
    podman("build", "-f", "-", "-t", "ghcr.io/astral-sh/uv:0.13", uv, stdin=b"FROM scratch\nCOPY uv /uv\n")
    build, *arguments = documented("build")
    certificates = f"--secret=id=certificates,src={CERTIFICATES}"
    podman(build, "--isolation=chroot", "--pull=never", "--format=docker", certificates, *arguments)
    return "agenta-ai-server"


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """The folder that the image's user can read, with our key in Agenta."""
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    key = folder / "agenta-key"
    key.write_text("standin-key\n")
    key.chmod(0o400)
    for path in (folder, key):
        os.chown(path, USER, USER)
    return folder


@pytest.fixture
def removed() -> Iterator[None]:
    yield
    podman("rm", "--force", "--ignore", "--time=0", NAME)


def test_the_size(image: str) -> None:
    base, whole = (
        int(podman("image", "inspect", "--format={{.Size}}", name))
        for name in ("docker.io/library/python:3.13-slim", image)
    )
    sys.stdout.write(f"\nThe image has {whole / MIB:.0f} MiB, {(whole - base) / MIB:.0f} MiB without its base.\n")
    assert whole - base < 150 * MIB


async def test_it_serves_as_it_is_documented(image: str, standin: StandIn, secrets: Path, removed: None) -> None:
    mount = "./secrets:"
    create = [each.replace(mount, f"{secrets}:") for each in documented("run --rm")]
    key = await asyncio.to_thread(podman, create[0], *HERE, *create[1:])
    run, *arguments = [each.replace(mount, f"{secrets}:") for each in documented("run --read-only")]
    del arguments[arguments.index("-p") : arguments.index("-p") + 2]
    ours = [f"-e=AGENTA_AI_SERVICES_API_URL={standin.url}", "-e=AGENTA_AI_GRPC_LISTEN=127.0.0.1:50051"]
    await asyncio.to_thread(podman, run, *HERE, "--detach", f"--name={NAME}", *ours, *arguments)
    await healthy()

    async with Client("127.0.0.1:50051", api_key=key) as client:
        refined = await client.refine_prompt(TEMPLATE, guidelines="Be brief.")
        assert refined.template != TEMPLATE

        await asyncio.to_thread(check_confinement)

        # A call that runs when SIGTERM comes is answered, and then the server has stopped by itself.
        call = asyncio.create_task(client.refine_prompt(TEMPLATE, guidelines="standin: delay=3"))
        await standin.when(lambda: standin.in_flight == 1)
        await asyncio.to_thread(podman, "stop", NAME)
        assert (await call).template
    assert podman("inspect", "--format={{.State.ExitCode}} {{.State.OOMKilled}}", NAME) == "0 false"


async def healthy() -> None:
    """Return when the image's own health check says so."""
    check = [*PODMAN, "healthcheck", "run", NAME]
    for _ in range(60):
        process = await asyncio.create_subprocess_exec(*check, stdout=asyncio.subprocess.DEVNULL)
        if await process.wait() == 0:
            return
        await asyncio.sleep(0.5)
    raise AssertionError(podman("logs", NAME))


def check_confinement() -> None:
    """It isn't root, has no capabilities, can't get any, and can't write."""
    status = Path(f"/proc/{podman('inspect', '--format={{.State.Pid}}', NAME)}/status").read_text()
    assert re.search(rf"^Uid:\s+{USER}\s+{USER}\s", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    write = [*PODMAN, "exec", NAME, "python", "-c", "open('/opt/agenta-ai/x', 'w')"]
    refused = subprocess.run(write, capture_output=True, text=True, check=False)
    assert "Read-only file system" in refused.stderr
