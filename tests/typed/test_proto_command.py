"""The command ``tools proto``: what it writes, what it refuses to write, and that the examples' lock is up to date."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typed.buf import PROTOS, buf

from agenta_ai_server.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples"
TOOL = """
[tools."tools.acme.support.classify"]
application = "classify"
description = "Classifies a ticket."
arguments = {{ type = "object", required = [{required}], properties = {{ {properties} }} }}
"""


def write(folder: Path, properties: str, required: str = "") -> Path:
    path = folder / "tools.toml"
    path.write_text(TOOL.format(properties=properties, required=required))
    return path


def proto(path: Path, *options: str) -> int:
    return main(["tools", "proto", "--file", str(path), *options])


def test_files_that_buf_accepts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, 'text = { type = "string" }')
    out = tmp_path / "protos"
    assert proto(path, "--out", str(out)) == 0
    assert capfd.readouterr() == (
        f"+ tools.acme.support.classify: The tool is new.\nWrote 1 .proto file to {out}.\n",
        "",
    )
    shutil.copytree(PROTOS / "agenta/ai/v1", out / "agenta/ai/v1")
    done = buf("lint", str(out))
    assert (done.returncode, done.stdout) == (0, "")
    # The set holds all that it needs.
    assert buf("build", str(out / "tools.binpb"), "-o", "-#format=json").returncode == 0
    assert proto(path) == 0
    assert capfd.readouterr().out == "No changes.\n"


def test_a_breaking_change_is_written_only_if_it_is_allowed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    proto(write(tmp_path, 'text = { type = "string" }'))
    before = (tmp_path / "tools.lock").read_text()
    path = write(tmp_path, 'text = { type = "integer" }, more = { type = "string" }')
    assert proto(path) == 1
    out, err = capfd.readouterr()
    assert "! tools.acme.support.classify: arguments.text: Its type was string and is int64." in out
    assert "Nothing was written" in err
    assert (tmp_path / "tools.lock").read_text() == before
    assert proto(path, "--allow-breaking") == 0
    assert (tmp_path / "tools.lock").read_text() != before


def test_a_tool_without_a_typed_method_is_reported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert proto(write(tmp_path, 'text = { type = "string" }, 1st = { type = "string" }')) == 0
    assert "no typed method, use CallTool: tools.acme.support.classify: arguments.1st: " in capfd.readouterr().err


@pytest.mark.parametrize("content", ["no JSON", "[]", '{"version": 2}', '{"version": 1, "tools": {"x": {}}}'])
def test_a_lock_file_that_is_none(tmp_path: Path, capfd: pytest.CaptureFixture[str], content: str) -> None:
    path = write(tmp_path, 'text = { type = "string" }')
    (tmp_path / "tools.lock").write_text(content)
    assert proto(path) == 2
    assert "Restore it from version control" in capfd.readouterr().err


def test_without_a_tools_file(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGENTA_AI_GRPC_TOOLS_FILE", raising=False)
    assert main(["tools", "proto"]) == 2
    assert "AGENTA_AI_GRPC_TOOLS_FILE: is missing" in capfd.readouterr().err


def test_the_lock_file_of_the_examples_is_up_to_date(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    copy = shutil.copytree(EXAMPLES, tmp_path / "examples")
    assert proto(copy / "tools.toml") == 0
    assert capfd.readouterr() == ("No changes.\n", "")
    assert (copy / "tools.lock").read_text() == (EXAMPLES / "tools.lock").read_text()
