"""Builds everything that a release publishes, and checks it. Publishes nothing.

Writes the packages of all languages, the chart, a bill of materials (CycloneDX) and SHA256SUMS to dist/. Exit code 1:
at least one line is a failure.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable  # noqa: TC003  # of the list below
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
BIN = Path(sys.executable).parent
RELEASE_BIN = ROOT / ".tools/release/venv/bin"
VERSIONS = {
    "client/agenta_ai/version.py": r'__version__ = "(.+)"',
    "clients/go/agentaai/dial.go": r'const Version = "(.+)"',
    "clients/typescript/package.json": r'"version": "(.+)"',
    "clients/java/pom.xml": r"<version>(.+)</version>",
    "clients/rust/Cargo.toml": r'\nversion = "(.+)"',
    "deploy/helm/agenta-ai/Chart.yaml": r"\nversion: (.+)",
}
CHANGELOGS = [
    "CHANGELOG.md",
    *(f"clients/{language}/CHANGELOG.md" for language in ("go", "typescript", "java", "rust")),
]


class Fault(Exception):
    """Something isn't fit for a release. The message says what, and what to do."""


def run(*command: str | Path, folder: Path = ROOT, **environment: str) -> str:
    """Run a program, and return what it printed.

    Raises:
        Fault: It isn't installed, or it failed.
    """
    try:
        done = subprocess.run(
            command, cwd=folder, env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise Fault(f"{command[0]} isn't installed.") from None
    if done.returncode:
        raise Fault(f"{' '.join(map(str, command))} failed:\n{done.stdout[-3000:]}")
    return done.stdout


def target(name: str) -> Path:
    """Return the folder for a kind of package, since an npm package and a chart can have the same name."""
    folder = DIST / name
    folder.mkdir(exist_ok=True)
    return folder


def listed(folder: Path) -> str:
    return ", ".join(sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")))


def version() -> str:
    return found(next(iter(VERSIONS)))


def found(path: str) -> str:
    match = re.search(VERSIONS[path], (ROOT / path).read_text())
    if not match:
        raise Fault(f"{path} has no version.")
    return match[1]


def versions() -> str:
    """Every package has the same version, which isn't a snapshot."""
    wrong = {path: found(path) for path in VERSIONS if found(path) != version()}
    if wrong:
        raise Fault(f"These don't have the version {version()}: {wrong}. Set it there.")
    return version()


def changelogs() -> str:
    """Every changelog has a dated section for the version."""
    wrong = [
        path for path in CHANGELOGS
        if not re.search(rf"^## {re.escape(version())}, \d{{4}}-\d\d-\d\d$", (ROOT / path).read_text(), re.MULTILINE)
    ]  # fmt: skip
    if wrong:
        raise Fault(f"No section '## {version()}, YYYY-MM-DD' in {', '.join(wrong)}. Write the date of the release.")
    return "dated"


def clean() -> str:
    """What is released is what is committed."""
    if changes := run("git", "status", "--porcelain"):
        raise Fault(f"There are uncommitted changes:\n{changes}")
    return run("git", "rev-parse", "--short", "HEAD").strip()


def python() -> str:
    """The wheel and the sdist are valid, and the wheel works in an environment of its own."""
    folder = target("python")
    run(BIN / "uv", "build", "-q", "--out-dir", folder, ROOT)
    wheel, sdist = folder / f"agenta_ai-{version()}-py3-none-any.whl", folder / f"agenta_ai-{version()}.tar.gz"
    run(RELEASE_BIN / "twine", "check", "--strict", wheel, sdist)
    with environment(f"agenta-ai[server,cli,redis,tracing] @ {wheel.as_uri()}") as installed:
        for program in ("agenta-ai", "agenta-ai-server"):
            if version() not in run(f"{installed}/bin/{program}", "--version"):
                raise Fault(f"{program} --version doesn't say {version()}.")
        printed = run(f"{installed}/bin/agenta-ai-server", "dev", "--", f"{installed}/bin/agenta-ai", "status")
    if "serving" not in printed:
        raise Fault(f"agenta-ai status says: {printed}")
    return listed(folder)


def environment(*packages: str) -> tempfile.TemporaryDirectory[str]:
    """Install packages, in the versions of the lock file, into a new environment."""
    folder = tempfile.TemporaryDirectory(prefix="agenta-ai-")
    run(BIN / "uv", "venv", "-q", "--clear", "--python", sys.executable, folder.name)
    run(BIN / "uv", "pip", "install", "-q", "-p", folder.name, "-c", ROOT / "requirements.lock", *packages)
    return folder


def bill_of_materials() -> str:
    """The bill of materials lists every package that the server and its extras install."""
    path = target("sbom") / f"agenta-ai-{version()}.cdx.json"
    with environment("-r", str(ROOT / "requirements.lock")) as folder:
        run(
            RELEASE_BIN / "cyclonedx-py", "environment", "--pyproject", ROOT / "pyproject.toml",
            "--output-reproducible", "--validate", "-o", path, f"{folder}/bin/python",
        )  # fmt: skip
        installed = normalized(run(BIN / "uv", "pip", "freeze", "-p", folder))
    document = json.loads(path.read_text())
    document["metadata"]["component"]["version"] = version()
    path.write_text(json.dumps(document, indent=2) + "\n")
    components = normalized("\n".join(f"{each['name']}=={each['version']}" for each in document["components"]))
    if missing := installed - components:
        raise Fault(f"{path.name} lacks {', '.join(sorted(missing))}.")
    undeclared = sorted(each["name"] for each in document["components"] if not each.get("licenses"))
    note = f", without a declared license: {', '.join(undeclared)}" if undeclared else ""
    return f"{path.name}, {len(components)} packages{note}"


def normalized(requirements: str) -> set[str]:
    """Return the pinned packages, named as in an index: ``pydantic-core==2.33.2``."""
    pinned = re.findall(r"^([\w.-]+)==([^\s;]+)", requirements, re.MULTILINE)
    return {f"{re.sub('[-_.]+', '-', name).lower()}=={release}" for name, release in pinned}


def go() -> str:
    """The module builds without anything that isn't committed; its tag is its release."""
    archive = target("go") / f"agenta-ai-go-{version()}.zip"
    run("git", "archive", "--format=zip", f"--output={archive}", "HEAD:clients/go")
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
        run("go", "build", "./...", folder=Path(folder))
        run("go", "vet", "./...", folder=Path(folder))
    return f"{archive.name}, to be tagged clients/go/v{version()}"


def typescript() -> str:
    """The package can be installed and imported."""
    folder = ROOT / "clients/typescript"
    run("npm", "ci", "--silent", folder=folder)
    archive = target("npm") / f"agenta-ai-{version()}.tgz"
    run("npm", "pack", "--silent", f"--pack-destination={archive.parent}", folder=folder)
    with tempfile.TemporaryDirectory() as empty:
        run("npm", "install", "--silent", archive, folder=Path(empty))
        program = "import { Client } from 'agenta-ai'; new Client('localhost:1').close()"
        run("node", "--input-type=module", "-e", program, folder=Path(empty))
    return archive.name


def java() -> str:
    """The library is built, and holds its module."""
    run("mvn", "-q", "-B", "-DskipTests", "package", "-pl", "agenta-ai", folder=ROOT / "clients/java")
    (jar,) = (
        path for path in (ROOT / "clients/java/agenta-ai/target").glob("agenta-ai-*.jar")
        if not path.stem.endswith(("-sources", "-javadoc", "-tests"))
    )  # fmt: skip
    with zipfile.ZipFile(jar) as packed:
        if b"Automatic-Module-Name: ai.agenta.ai" not in packed.read("META-INF/MANIFEST.MF"):
            raise Fault(f"{jar.name} isn't the module ai.agenta.ai.")
    shutil.copy(jar, target("java"))
    return jar.name


def rust() -> str:
    """The crate builds from its package alone."""
    folder = ROOT / "clients/rust"
    run("cargo", "package", "-q", "--locked", "--allow-dirty", "-p", "agenta-ai", folder=folder)
    crate = folder / f"target/package/agenta-ai-{version()}.crate"
    with tarfile.open(crate) as packed:
        if not any(name.endswith("/src/lib.rs") for name in packed.getnames()):
            raise Fault(f"{crate.name} has no src/lib.rs.")
    shutil.copy(crate, target("rust"))
    return crate.name


def chart() -> str:
    """The chart can be packaged."""
    run("helm", "lint", "--strict", "deploy/helm/agenta-ai")
    folder = target("helm")
    run("helm", "package", "-d", folder, "deploy/helm/agenta-ai")
    return listed(folder)


def checksums() -> str:
    files = sorted(path for path in DIST.rglob("*") if path.is_file() and not path.name.startswith("."))
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(DIST)}\n" for path in files]
    (DIST / "SHA256SUMS").write_text("".join(lines))
    return f"{len(files)} files"


STEPS: list[Callable[[], str]] = [
    versions, changelogs, clean, python, bill_of_materials, go, typescript, java, rust, chart, checksums,
]  # fmt: skip


def main() -> int:
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    failed = False
    for step in STEPS:
        try:
            print(f"ok      {step.__name__.replace('_', ' '):18} {step()}", flush=True)
        except Fault as fault:
            failed = True
            print(f"failed  {step.__name__.replace('_', ' '):18} {fault}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
