"""The chart: valid by Helm's and Kubernetes' own checks, and equal to the plain manifests."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml
from deploy.conftest import DEPLOY
from deploy.test_kubernetes import NAMES, NEWEST, OLDEST, read

from agenta_ai import __version__
from agenta_ai_server.settings import load, schema

CHART = DEPLOY / "helm/agenta-ai"
# The name of the plain manifests.
RELEASE = "agenta-ai-server"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
# What a chart adds to each of its resources.
OF_HELM = {"app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart"}
ALL = (
    "tls.enabled=true",
    "tls.clientCertificates=true",
    "metrics.serviceMonitor.enabled=true",
    "autoscaling.callsInFlight=2000",
    "metrics.serviceMonitor.labels.release=prometheus",
    "podAnnotations.a=b",
    "podLabels.a=b",
    "nodeSelector.a=b",
    "priorityClassName=high",
    "imagePullSecrets[0].name=registry",
    "tolerations[0].operator=Exists",
    "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].key=a",
    "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchFields[0].operator=Exists",
    "extraEnv[0].name=OTEL_EXPORTER_OTLP_HEADERS",
    "extraEnv[0].valueFrom.secretKeyRef.name=otel",
    "extraEnv[0].valueFrom.secretKeyRef.key=headers",
    "serviceAccount.annotations.a=b",
)
NOTHING = (
    "redis.enabled=false",
    "metrics.enabled=false",
    "autoscaling.enabled=false",
    "podDisruptionBudget.enabled=false",
    "networkPolicy.enabled=false",
    "topologySpread=false",
    "serviceAccount.name=other",
)

pytestmark = pytest.mark.needs("helm")


def helm(*arguments: str, values: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    given = [word for value in values for word in ("--set", value)]
    return subprocess.run(["helm", *arguments, *given], capture_output=True, text=True, check=False)


def template(*values: str, version: str = NEWEST) -> subprocess.CompletedProcess[str]:
    return helm("template", RELEASE, str(CHART), f"--kube-version={version}", values=values)


def render(*values: str, version: str = NEWEST) -> dict[str, Any]:
    """The resources by these values, each by its kind."""
    done = template(*values, version=version)
    assert done.returncode == 0, done.stderr
    return {each["kind"]: each for each in yaml.safe_load_all(done.stdout) if each}


def pod(resources: dict[str, Any]) -> Any:
    return resources["Deployment"]["spec"]["template"]["spec"]


def plain(value: Any) -> Any:
    """Leave out what Helm adds, which says nothing of how the service runs."""
    match value:
        case dict():
            kept = {key: plain(each) for key, each in value.items() if key not in {*OF_HELM, "checksum/settings"}}
            return {key: each for key, each in kept.items() if key not in {"labels", "annotations"} or each}
        case list():
            return [plain(each) for each in value]
    return value


@pytest.mark.parametrize("values", [(), ALL, NOTHING], ids=["default", "all", "nothing"])
def test_helm_finds_no_fault(values: tuple[str, ...]) -> None:
    done = helm("lint", "--strict", str(CHART), values=values)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("values", [(), ALL, NOTHING], ids=["default", "all", "nothing"])
def test_the_resources_are_valid(values: tuple[str, ...], version: str) -> None:
    for kind, resource in render(*values, version=version).items():
        if kind != "ServiceMonitor":  # not one of Kubernetes' own
            kubernetes_validate.validate(resource, version, strict=True)


def test_the_plain_manifests_are_what_the_chart_gives() -> None:
    rendered = plain(render())
    manifests = {each["kind"]: each for name in NAMES if "example" not in name for each in [read(name)]}
    # By its kustomization each has this label, and the image its name.
    for each in manifests.values():
        each["metadata"]["labels"] = {"app.kubernetes.io/name": RELEASE}
    container = pod(rendered)["containers"][0]
    assert container["image"] == f"{RELEASE}:{yaml.safe_load((CHART / 'Chart.yaml').read_text())['appVersion']}"
    container["image"] = RELEASE
    del container["imagePullPolicy"]
    assert rendered == manifests


def test_the_version_is_the_service_s() -> None:
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (about["version"], about["appVersion"]) == (__version__, __version__)


def test_everything() -> None:
    found = render(*ALL)
    data = found["ConfigMap"]["data"]
    assert data["AGENTA_AI_GRPC_TLS_CLIENT_CA_FILE"] == "/run/secrets/agenta-ai-tls/ca.crt"
    (container,) = pod(found)["containers"]
    # Kubernetes speaks no TLS to gRPC: by the other probes no pod would ever be ready.
    for kind in ("startup", "readiness", "liveness"):
        assert container[f"{kind}Probe"]["tcpSocket"] == {"port": "grpc"}
        assert "grpc" not in container[f"{kind}Probe"]
    assert {volume["name"] for volume in pod(found)["volumes"]} == {"secrets", "tls"}
    assert [metric["type"] for metric in found["HorizontalPodAutoscaler"]["spec"]["metrics"]] == ["Resource", "Pods"]
    monitor = found["ServiceMonitor"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= found["Service"]["metadata"]["labels"].items()
    ports = {port["name"] for port in found["Service"]["spec"]["ports"]}
    assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


def test_nothing_that_can_be_left_out() -> None:
    found = render(*NOTHING)
    assert found.keys() == {"ConfigMap", "Deployment", "Service"}
    assert not {"AGENTA_AI_GRPC_REDIS_URL_FILE", "AGENTA_AI_GRPC_METRICS_LISTEN"} & found["ConfigMap"]["data"].keys()
    assert found["Deployment"]["spec"]["replicas"] == VALUES["replicaCount"]
    assert [port["name"] for port in pod(found)["containers"][0]["ports"]] == ["grpc"]


def test_longer_stops_get_more_time() -> None:
    found = render("drainSeconds=20", "shutdownGraceSeconds=600", "settings.AGENTA_AI_GRPC_MAX_CALL_SECONDS=590")
    data = {name: value for name, value in found["ConfigMap"]["data"].items() if not name.endswith("_FILE")}
    settings, _ = load({**data, "AGENTA_AI_GRPC_AUTH": "none", "AGENTA_AI_GRPC_ALLOW_NO_AUTH": "true"})
    assert (settings.drain_seconds, settings.max_call_seconds) == (20, 590)
    assert pod(found)["terminationGracePeriodSeconds"] > settings.drain_seconds + settings.shutdown_grace_seconds


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("image.reposytory=x", "reposytory"),
        ("settings.AGENTA_AI_GRPC_LISTEN=0.0.0.0:1", "AGENTA_AI_GRPC_LISTEN"),
        ("settings.PORT=1", "PORT"),
        ("drainSeconds=soon", "drainSeconds"),
        ("autoscaling.cpuUtilization=0", "autoscaling needs a target"),
        *((f"settings.{name}=x", name) for name in schema.secrets()),
    ],
)
def test_wrong_values_are_refused(value: str, said: str) -> None:
    done = template(value)
    assert done.returncode != 0
    assert said in done.stderr


def test_a_monitor_without_metrics_is_refused() -> None:
    done = template("metrics.enabled=false", "metrics.serviceMonitor.enabled=true")
    assert "needs metrics.enabled=true" in done.stderr


def test_settings_are_known() -> None:
    refused = yaml.safe_load((CHART / "values.schema.json").read_text())
    names = refused["properties"]["settings"]["propertyNames"]["not"]["enum"]
    known = {*schema.names(), *(f"{name}_FILE" for name in schema.secrets())}
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    assert {*names, *VALUES["settings"], *re.findall(r"\bAGENTA_AI_[A-Z_]+", templates)} <= known
