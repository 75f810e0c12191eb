"""``agenta-ai mcp config``: what it prints is what each client reads, without a secret."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from bridge.conftest import COMMAND, clean_environment

from agenta_ai import cli
from agenta_ai.cli import mcp as command

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "aai_secret"
KEY = {
    "claude": "${AGENTA_AI_API_KEY}",
    "cursor": "${env:AGENTA_AI_API_KEY}",
    "vscode": "${input:agenta-ai-key}",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*cli.CREDENTIALS, "AGENTA_AI_TARGET", "AGENTA_AI_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("AGENTA_AI_API_KEY", SECRET)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, Any], str]:
    assert cli.main(["mcp", "config", *words]) == 0
    out, notes = capsys.readouterr()
    assert SECRET not in out + notes
    return json.loads(out), notes


@pytest.mark.parametrize("client", KEY)
def test_the_key_is_passed_on_where_there_is_no_target(client: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings, notes = printed(capsys, client)
    server = (settings["servers"] if client == "vscode" else settings["mcpServers"])["agenta-ai"]
    assert server["command"].startswith("/")
    assert server["args"] == ["mcp"]
    assert server["env"] == {"AGENTA_AI_API_KEY": KEY[client]}
    assert (client == "vscode") == (server.get("type") == "stdio") == ("inputs" in settings)
    assert "agenta-ai target add" in notes
    assert ("Claude Desktop can't" in notes) == (client == "claude")


@pytest.mark.parametrize("client", KEY)
def test_a_target_has_its_own_key(client: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key").write_text(SECRET)
    add = ["target", "add", "staging", "ai.example.com:443", "--api-key-file", str(tmp_path / "key")]
    assert cli.main(add) == 0
    capsys.readouterr()
    settings, _ = printed(capsys, client, "--names", "underscore")
    server = (settings["servers"] if client == "vscode" else settings["mcpServers"])["agenta-ai"]
    assert server["args"] == ["mcp", "--target", "staging", "--names", "underscore"]
    assert "env" not in server
    assert "inputs" not in settings
    assert printed(capsys, client, "--target", "127.0.0.1:1")[0] != settings


def test_what_it_prints_starts_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    settings, _ = printed(capsys, "cursor", "--target", "127.0.0.1:1")
    words = settings["mcpServers"]["agenta-ai"]["args"]
    begin = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    message = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": begin}
    with subprocess.Popen(
        [*COMMAND[:-1], *words], env=clean_environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        process.stdin.close()
    assert answer["result"]["serverInfo"]["name"] == "agenta-ai"
    assert answer["result"]["capabilities"] == {"tools": {"listChanged": True}}


def test_the_extra_is_named_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "find_spec", lambda _: None)
    assert cli.main(["mcp"]) == 2
    assert (
        capsys.readouterr().err == "agenta-ai: agenta-ai mcp needs the MCP SDK, version 2. "
        "Install the extra 'mcp': in a clone, pip install '.[mcp]'.\n"
    )
