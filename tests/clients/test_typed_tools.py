"""The three tools of examples/tools.toml, called by typed code in each language, from stubs that are generated here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SLOW

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "examples/tools.toml"
EXAMPLES = ROOT / "examples/typed"
PRINTED = "billing, urgency 2\n2 mug, 1 teapot for Ada Lovelace, London\nThe meeting is on Tuesday at ten.\n"
BIN = Path(sys.executable).parent

compiled = pytest.mark.skipif(not SLOW, reason="takes minutes: make clients, or make test-slow")
# For the first build, on a machine that has built nothing yet.
pytestmark = pytest.mark.timeout(600)


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """Runs a program, and returns what it prints."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, "PATH": path, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def served(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """Runs a program against a server that has the three tools, and returns what it prints."""
    server = ("agenta-ai-server", "dev", "--listen", "127.0.0.1:0", "--tools", TOOLS, "--")
    return run(*server, *command, cwd=cwd, AGENTA_AI_API_KEY="", **environment)


def proto(tmp_path: Path, out: Path, *options: str) -> None:
    """Writes the files of the three tools."""
    copy = shutil.copytree(ROOT / "examples", tmp_path / "examples")
    run("agenta-ai-server", "tools", "proto", "--file", copy / "tools.toml", "--out", out, *options)


def test_python(tmp_path: Path) -> None:
    proto(tmp_path, tmp_path / "code", "--python")
    printed = served(sys.executable, EXAMPLES / "python/main.py", PYTHONPATH=str(tmp_path / "code"))
    assert printed == PRINTED


@pytest.mark.needs("go")
@compiled
def test_go(tmp_path: Path) -> None:
    client = ROOT / "clients/go"
    module = shutil.copytree(EXAMPLES / "go", tmp_path / "module")
    proto(tmp_path, module / "protos")
    run("go", "mod", "edit", f"-replace=github.com/Agenta-AI/agenta-ai-grpc/clients/go={client}", cwd=module)
    run(BIN / "buf", "generate", cwd=module)
    assert run("gofmt", "-l", "main.go", cwd=module) == ""
    run("go", "vet", ".", cwd=module)
    run("go", "build", "-o", tmp_path / "typed", ".", cwd=module)
    assert served(tmp_path / "typed") == PRINTED


@pytest.mark.needs("npm")
@compiled
def test_typescript(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("node_modules", "dist")
    package = shutil.copytree(ROOT / "clients/typescript", tmp_path / "package", ignore=ignored)
    run("npm", "ci", "--prefer-offline", cwd=package)
    run("npm", "run", "build", cwd=package)
    # In the folder of the package, "agenta-ai" and what development needs are found.
    module = shutil.copytree(EXAMPLES / "typescript", package / "typed")
    (module / "package.json").unlink()
    (module / "node_modules").symlink_to(package / "node_modules")
    proto(tmp_path, module / "protos")
    run(BIN / "buf", "generate", cwd=module)
    run("npx", "tsc", "-p", "typed", cwd=package)
    assert served("node", module / "dist/main.js") == PRINTED


@pytest.mark.needs("mvn")
@compiled
def test_java(tmp_path: Path) -> None:
    # A copy, for another worker may be building the same.
    ignored = shutil.ignore_patterns("target")
    sources = shutil.copytree(ROOT / "clients/java", tmp_path / "clients/java", ignore=ignored)
    shutil.copytree(ROOT / "protos", tmp_path / "protos")
    module = shutil.copytree(EXAMPLES / "java", sources / "typed")
    for pom, old, new in (
        (module / "pom.xml", "../../../clients/java/pom.xml", "../pom.xml"),
        (sources / "pom.xml", "<module>example</module>", "<module>typed</module>"),
    ):
        pom.write_text(pom.read_text().replace(old, new))
    proto(tmp_path, module / "protos")
    run("mvn", "-q", "-B", "package", "-Dmaven.test.skip=true", "-pl", "typed", "-am", cwd=sources)
    assert served("java", "-jar", module / "target/typed.jar") == PRINTED


@pytest.mark.needs("cargo")
@compiled
def test_rust(tmp_path: Path) -> None:
    client = ROOT / "clients/rust"
    module = shutil.copytree(EXAMPLES / "rust", tmp_path / "module")
    manifest = module / "Cargo.toml"
    manifest.write_text(manifest.read_text().replace("../../../clients/rust", str(client)))
    # The versions that are pinned.
    shutil.copy(client / "Cargo.lock", module)
    proto(tmp_path, module / "protos")
    run("cargo", "fmt", "--check", "--", "--config-path", client, cwd=module)
    target = client / "target"  # of the client's own builds, which has compiled most of it already
    run("cargo", "build", "-q", cwd=module, CARGO_TARGET_DIR=str(target))
    assert served(target / "debug/typed") == PRINTED
