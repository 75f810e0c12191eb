"""What somebody meets who has just cloned the repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from deploy.conftest import DEPLOY

ROOT = DEPLOY.parent
# Networks of their own are not given to everybody, and not in every container.
NO_LOOPBACK = ["unshare", "--map-root-user", "--net"]


def may_unshare() -> bool:
    try:
        return subprocess.run([*NO_LOOPBACK, "true"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def pins(name: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))


def test_development_uses_the_versions_of_the_image() -> None:
    runtime, development = pins("requirements.lock"), pins("requirements-dev.lock")
    assert runtime
    assert runtime.items() < development.items()
    assert "pytest" in development.keys() - runtime.keys()


@pytest.mark.skipif(not may_unshare(), reason="needs the permission to make a network namespace: unshare -rn")
def test_a_machine_without_a_loopback_is_told() -> None:
    dev = "import sys; from agenta_ai_server.cli import main; sys.exit(main())"
    done = subprocess.run(
        [*NO_LOOPBACK, sys.executable, "-c", dev, "dev", "--", "true"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "127.0.0.1" in done.stderr
    assert "ip link set lo up" in done.stderr


@pytest.mark.skipif(not may_unshare(), reason="needs the permission to make a network namespace: unshare -rn")
def test_a_machine_with_an_ipv6_loopback_alone_is_enough() -> None:
    only_ipv6 = 'ip link set lo up && ip addr del 127.0.0.1/8 dev lo && exec "$@"'
    folder = os.path.dirname(sys.executable)
    program = [f"{folder}/agenta-ai-server", "dev", "--", f"{folder}/agenta-ai", "whoami"]
    done = subprocess.run(
        [*NO_LOOPBACK, "sh", "-c", only_ipv6, "sh", *program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "[::1]:" in done.stdout
