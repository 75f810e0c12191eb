"""The manifests: valid by Kubernetes' own schemas, and in agreement with the service and with each other."""

from __future__ import annotations

import subprocess
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import kubernetes_validate
import pytest
import yaml
from deploy.conftest import DEPLOY

from agenta_ai_server.rpc.status import SERVICE
from agenta_ai_server.settings import load

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = DEPLOY / "kubernetes"
OLDEST, NEWEST = "1.30", kubernetes_validate.latest_version()
SECRETS = "/run/secrets/agenta-ai/"
TLS = "/run/secrets/agenta-ai-tls/"


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


NAMES = sorted(path.name for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml")
POD = read("deployment.yaml")["spec"]["template"]
CONTAINER = POD["spec"]["containers"][0]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_is_valid(name: str, version: str) -> None:
    kubernetes_validate.validate(read(name), version, strict=True)


def test_a_misspelt_field_would_be_found() -> None:
    wrong = deepcopy(read("deployment.yaml"))
    wrong["spec"]["template"]["spec"]["terminationGracePeriodSecond"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


def test_all_are_applied_but_the_example() -> None:
    assert sorted(read("kustomization.yaml")["resources"]) == [name for name in NAMES if "example" not in name]


@pytest.fixture
def mounted(tmp_path: Path) -> dict[str, str]:
    """The settings, with the files of the Secret in a folder of the test."""
    for name, content in read("secret.example.yaml")["stringData"].items():
        (tmp_path / name).write_text(content)
    return {name: value.replace(SECRETS, f"{tmp_path}/") for name, value in read("configmap.yaml")["data"].items()}


def test_the_settings_enable_the_service(mounted: dict[str, str]) -> None:
    settings, warnings = load(mounted)
    assert not warnings
    assert not settings.missing
    assert settings.redis_url
    assert settings.api_keys_file
    assert settings.api_keys_file.exists()


def test_the_pod_lives_longer_than_its_calls(mounted: dict[str, str]) -> None:
    settings, _ = load(mounted)
    assert settings.shutdown_grace_seconds >= settings.max_call_seconds
    assert POD["spec"]["terminationGracePeriodSeconds"] >= settings.drain_seconds + settings.shutdown_grace_seconds + 5
    ready = CONTAINER["readinessProbe"]
    assert settings.drain_seconds > ready["periodSeconds"] * (ready["failureThreshold"] + 1)


def test_the_probes_ask_for_what_is_served() -> None:
    port, _ = CONTAINER["ports"]
    probes = [CONTAINER[f"{kind}Probe"]["grpc"] for kind in ("startup", "readiness", "liveness")]
    assert {probe["port"] for probe in probes} == {port["containerPort"]}
    assert {probe.get("service", "") for probe in probes} == {"", SERVICE}
    assert read("service.yaml")["spec"]["ports"][0]["targetPort"] == port["name"]


def test_the_metrics_are_where_they_are_looked_for(mounted: dict[str, str]) -> None:
    settings, _ = load(mounted)
    _, port = CONTAINER["ports"]
    assert settings.metrics_listen == f"0.0.0.0:{port['containerPort']}"
    allowed = [each["ports"] for each in read("networkpolicy.yaml")["spec"]["ingress"]]
    assert [{"port": port["containerPort"]}] in allowed


def test_every_selector_finds_the_pods() -> None:
    labels = POD["metadata"]["labels"]
    selectors = [
        read("service.yaml")["spec"]["selector"],
        *(read(name)["spec"]["selector"]["matchLabels"] for name in ("deployment.yaml", "poddisruptionbudget.yaml")),
        read("networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"],
        *(each["labelSelector"]["matchLabels"] for each in POD["spec"]["topologySpreadConstraints"]),
    ]
    assert all(selector == labels for selector in selectors)


@pytest.mark.needs("kustomize")
def test_tls_is_added_by_its_component(tmp_path: Path) -> None:
    up = "../" * len(tmp_path.parts)
    overlay = {"resources": [f"{up}{FOLDER}"], "components": [f"{up}{FOLDER}/tls"]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    built = subprocess.run(["kustomize", "build", tmp_path], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    found = {each["kind"]: each for each in yaml.safe_load_all(built.stdout)}
    for each in found.values():
        kubernetes_validate.validate(each, NEWEST, strict=True)
    container = found["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    # Kubernetes speaks no TLS to gRPC: by the old probes no pod would ever be ready.
    for kind in ("startup", "readiness", "liveness"):
        assert container[f"{kind}Probe"]["tcpSocket"] == {"port": "grpc"}
        assert "grpc" not in container[f"{kind}Probe"]
    data = found["ConfigMap"]["data"]
    assert [data[f"AGENTA_AI_GRPC_TLS_{each}_FILE"] for each in ("CERT", "KEY")] == [f"{TLS}tls.crt", f"{TLS}tls.key"]
    assert data.keys() > read("configmap.yaml")["data"].keys()
    assert {each["mountPath"] + "/" for each in container["volumeMounts"]} == {SECRETS, TLS}
