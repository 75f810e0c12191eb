"""The unit, as systemd itself reads it."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from deploy.conftest import DEPLOY

from agenta_ai_server.settings import load

if TYPE_CHECKING:
    from pathlib import Path

UNIT = DEPLOY / "systemd/agenta-ai-server@.service"


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    """One of its processes, with a program that there is on this machine."""
    path = tmp_path / "agenta-ai-server@1.service"
    path.write_text(UNIT.read_text().replace("/opt/agenta-ai/bin/agenta-ai-server", "/bin/true"))
    return path


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.needs("systemd-analyze")
def test_the_unit_is_valid(instance: Path) -> None:
    found = analyze("verify", "--man=no", instance)
    # For a name that it doesn't know it only warns.
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.needs("systemd-analyze")
def test_the_unit_is_locked_down(instance: Path) -> None:
    # From 0, all closed, to 100.
    found = analyze("security", "--offline=true", "--threshold=15", instance)
    assert found.returncode == 0, found.stdout


def test_the_unit_agrees_with_the_service() -> None:
    pairs = [line.split("=", 1) for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")]
    unit = {name: value for name, value in pairs if name != "Environment"}
    environment = dict(value.split("=", 1) for name, value in pairs if name == "Environment")
    credential = environment.pop("AGENTA_AI_SERVICES_API_KEY_FILE")
    settings, warnings = load(environment | {"AGENTA_AI_GRPC_AUTH": "api_keys"})
    # It is behind a proxy with TLS, or has a certificate by a drop-in.
    assert [warning.partition(" accepts ")[0] for warning in warnings] == ["AGENTA_AI_GRPC_LISTEN: 0.0.0.0:50051"]
    assert credential == f"%d/{unit['LoadCredential'].partition(':')[0]}"
    assert int(unit["TimeoutStopSec"]) >= settings.drain_seconds + settings.shutdown_grace_seconds + 5
    assert int(unit["LimitNOFILE"]) >= 2 * (settings.max_in_flight + settings.max_queued) + 500
