"""What somebody meets who has just cloned the repository."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from deploy.conftest import DEPLOY

ROOT = DEPLOY.parent
SERVER = [sys.executable, "-c", "import sys; from agenta_ai_server.cli import main; sys.exit(main())"]
ANYBODY = {"AGENTA_AI_GRPC_AUTH": "none", "AGENTA_AI_GRPC_ALLOW_NO_AUTH": "true"}
# Networks of their own are not given to everybody, and not in every container.
NO_LOOPBACK = ["unshare", "--map-root-user", "--net"]
ONLY_IPV6 = [*NO_LOOPBACK, "sh", "-c", 'ip link set lo up; ip addr del 127.0.0.1/8 dev lo; exec "$@"', "sh"]


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


needs_networks = pytest.mark.skipif(
    not may_unshare() or not shutil.which("ip"), reason="needs the permission to make a network namespace: unshare -rn"
)


@needs_networks
def test_a_machine_without_a_loopback_is_told() -> None:
    done = subprocess.run([*NO_LOOPBACK, *SERVER, "dev", "--", "true"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "127.0.0.1" in done.stderr
    assert "ip link set lo up" in done.stderr


@needs_networks
def test_check_does_not_blame_a_server_that_it_has_no_way_to() -> None:
    listening = (
        "import socket, subprocess, sys; taken = socket.create_server(('0.0.0.0', 50551)); "
        "sys.exit(subprocess.run(sys.argv[1:]).returncode)"
    )
    environment = {**os.environ, "AGENTA_AI_GRPC_LISTEN": "0.0.0.0:50551", **ANYBODY}
    done = subprocess.run(
        [*ONLY_IPV6, sys.executable, "-c", listening, *SERVER, "check", "--json"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    [address] = [each for each in json.loads(done.stdout)["findings"] if each["part"] == "address"]
    assert address["state"] == "warning"
    assert "can't be reached from here" in address["said"]
