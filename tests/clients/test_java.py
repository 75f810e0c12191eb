"""The Java client against the real server. What it decodes and how it retries, its own tests and the vectors tell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from clients.conftest import assert_refined, run
from conftest import settings_for

from agenta_ai_server.commands import serve

if TYPE_CHECKING:
    from agenta_ai_server.standin.app import StandIn

# For the first build, on a machine that has built nothing yet.
pytestmark = [pytest.mark.needs("mvn"), pytest.mark.timeout(600)]

FOLDER = Path(__file__).parents[2] / "clients/java"


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
    built = subprocess.run(
        [mvn, "-q", "-B", "-P", "release", "package", "-Dmaven.test.skip=true", "-pl", "example", "-am"],
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
