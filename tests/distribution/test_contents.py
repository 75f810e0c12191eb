"""What the published files hold, and what they say of themselves."""

from __future__ import annotations

import re
import tarfile
import zipfile
from email import message_from_string
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from distribution.conftest import ROOT

from agenta_ai import __version__

if TYPE_CHECKING:
    from distribution.conftest import Distributions

PACKAGES = {"client": "agenta_ai", "server": "agenta_ai_server"}
# What else than this gets into a package is no part of it.
SUFFIXES = {".py", ".pyi", ".typed", ".binpb", ".json", ".lock", ".lua", ".toml", "bash", "fish", "zsh"}
FOLDER = f"agenta_ai-{__version__}"
ABOUT = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
BESIDE = {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "PKG-INFO", ".gitignore"}


def sources() -> set[str]:
    """The files of both packages, from their root: ``client/agenta_ai/cli.py``."""
    found = {
        path.relative_to(ROOT).as_posix()
        for source, package in PACKAGES.items()
        for path in (ROOT / source / package).rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }
    assert len(found) > 100
    assert {suffix(name) for name in found} == SUFFIXES
    return found


def suffix(name: str) -> str:
    path = PurePosixPath(name)
    return path.suffix or path.name


def wheel_names(distributions: Distributions) -> set[str]:
    with zipfile.ZipFile(distributions.wheel) as wheel:
        return set(wheel.namelist())


def test_the_wheel_holds_both_packages_and_nothing_else(distributions: Distributions) -> None:
    about = {f"{FOLDER}.dist-info/{name}" for name in ABOUT}
    assert wheel_names(distributions) == {name.partition("/")[2] for name in sources()} | about


def test_the_wheel_has_types_and_descriptors(distributions: Distributions) -> None:
    names = wheel_names(distributions)
    assert {"agenta_ai/py.typed", "agenta_ai_server/py.typed", "agenta_ai/v1/descriptor_set.binpb"} <= names
    generated = {name for name in names if name.startswith("agenta_ai/v1/") and "_pb2" in name and name.endswith(".py")}
    assert len(generated) == 5
    assert {f"{name}i" for name in generated} <= names


def test_the_sdist_holds_what_the_wheel_is_made_of_and_the_contract(distributions: Distributions) -> None:
    with tarfile.open(distributions.sdist) as sdist:
        names = {member.name.removeprefix(f"{FOLDER}/") for member in sdist.getmembers() if member.isfile()}
    protos = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "protos").rglob("*")
        if path.suffix in (".proto", ".py", ".yaml")
    }
    assert names == sources() | protos | BESIDE


def test_the_wheel_is_the_same_whatever_it_is_made_of(distributions: Distributions) -> None:
    assert distributions.wheel.read_bytes() == distributions.direct_wheel.read_bytes()


def test_metadata(distributions: Distributions) -> None:
    with zipfile.ZipFile(distributions.wheel) as wheel:
        about = message_from_string(wheel.read(f"{FOLDER}.dist-info/METADATA").decode())
    assert (about["Name"], about["Version"]) == ("agenta-ai", __version__)
    assert (about["License-Expression"], about["License-File"]) == ("MIT", "LICENSE")
    assert about["Requires-Python"] == ">=3.11"
    assert about["Description-Content-Type"] == "text/markdown"
    links = re.findall(r"\]\(([^)]*)\)", str(about.get_payload()))
    assert len(links) == len(re.findall(r"\]\(", (ROOT / "README.md").read_text())) > 10
    assert all(re.match("https://[a-z.]+(/|$)", link) for link in links)
    assert set(about.get_all("Provides-Extra", [])) == {"cli", "mcp", "redis", "server", "tracing"}
    assert {url.partition(", ")[0] for url in about.get_all("Project-URL", [])} == {"Homepage", "Source", "Changelog"}
    pythons = [line.rpartition(" :: ")[2] for line in about.get_all("Classifier", []) if "Python ::" in line]
    assert pythons == ["3.11", "3.12", "3.13"]
    base = {line.partition(">")[0] for line in about.get_all("Requires-Dist", []) if "extra" not in line}
    assert base == {"grpcio", "grpcio-status", "protobuf"}
