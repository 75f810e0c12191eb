"""Named targets, and the words that need no server."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agenta_ai import __version__, cli
from agenta_ai.cli.parser import SHELLS
from agenta_ai.v1 import tool_pb2
from agenta_ai.v1 import tool_service_pb2 as pb

if TYPE_CHECKING:
    from client.conftest import FakeServer

ROOT = Path(__file__).parents[2]
SECRET = "aai_s3cr3t"


@pytest.fixture(autouse=True)
def file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the targets are kept."""
    for name in (*cli.CREDENTIALS, "AGENTA_AI_TARGET", "AGENTA_AI_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{SECRET}\n".encode())))
    return tmp_path / "config" / "agenta-ai" / "targets.json"


def test_a_target_brings_its_credentials(
    server: FakeServer, file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers(pb.StatusResponse(enabled=True, tools=[pb.ToolStatus(tool=tool_pb2.Tool(name="tools.x.y.z"))]))
    add = ["target", "add", "dev", server.target, "--api-key-file", "-", "--project", "p-1"]
    assert cli.main(add) == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert cli.main(["whoami"]) == 0
    sent = server.service.metadata[0]
    assert (sent["authorization"], sent["x-agenta-project-id"]) == (f"ApiKey {SECRET}", "p-1")
    out = capsys.readouterr().out
    assert f"dev, {server.target}" in out
    assert "the API key of target dev: accepted" in out
    assert SECRET not in out
    # A variable comes first.
    monkeypatch.setenv("AGENTA_AI_TOKEN", "t")
    assert cli.main(["whoami", "--json", "--target", "dev"]) == 0
    assert server.service.metadata[1]["authorization"] == "Bearer t"
    assert json.loads(capsys.readouterr().out)["credentials"] == "AGENTA_AI_TOKEN"


def test_the_credentials_of_a_target_go_nowhere_else(server: FakeServer) -> None:
    server.answers(pb.StatusResponse())
    assert cli.main(["target", "add", "dev", "127.0.0.1:1", "--api-key-file", "-"]) == 0
    assert cli.main(["status", "--target", server.target]) == 0
    assert "authorization" not in server.service.metadata[0]


def test_list_use_and_remove(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    assert cli.main(["target", "list"]) == 0
    assert cli.main(["target", "add", "dev", "127.0.0.1:1", "--no-credentials"]) == 0
    assert cli.main(["target", "add", "staging", "ai.example.com:443", "--api-key-file", "-"]) == 0
    capsys.readouterr()
    assert cli.main(["target", "list"]) == 0
    assert capsys.readouterr().out == "* dev  127.0.0.1:1  none\n  staging  ai.example.com:443  API key\n"
    assert cli.main(["target", "use", "staging"]) == 0
    assert cli.main(["target", "remove", "dev"]) == 0
    capsys.readouterr()
    assert cli.main(["target", "list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row == {"name": "staging", "address": "ai.example.com:443", "credentials": "API key", "current": True}
    assert SECRET in file.read_text()


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["target", "use", "stagin"], "There is no target stagin. Did you mean staging?"),
        (["target", "remove", "other"], "There is no target other. Run agenta-ai target list"),
        (["status", "--target", "stagin"], "There is no target stagin. Did you mean staging?"),
        (["target", "add", "a:b", "127.0.0.1:1"], "'a:b' is not a name"),
        (["target", "add", "x", "http://ai.example.com"], "Give host:port, without http"),
        (["target", "add", "x", "localhost:1", "--api-key-file", "no/such"], "Cannot read no/such"),
        (["target", "add", "x", "ai.example.com:1", "--plaintext", "--api-key-file", "-"], "in plaintext"),
        (["target", "add", "x", "localhost", "--api-key-file", "no.txt"], "target 'localhost': is not an address"),
        (["target", "add", "x", "localhost:1", "--token-file", "/dev/null"], ""),
    ],
)
def test_wrong_targets(argv: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["target", "add", "staging", "127.0.0.1:1", "--no-credentials"]) == 0
    assert cli.main(argv) == (2 if complaint else 0)
    err = capsys.readouterr().err
    assert complaint in err
    assert SECRET not in err


@pytest.mark.parametrize(
    ("content", "mode", "complaint"),
    [("{}", 0o600, "is not a file of targets"), ("{", 0o600, "is not a file of targets"), ("{}", 0o644, "chmod 600")],
)
def test_a_file_that_is_not_used(
    file: Path, content: str, mode: int, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(content)
    file.chmod(mode)
    assert cli.main(["status"]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "shown"), [(["version"], __version__), (["help"], "usage: "), (["help", "refine"], "-g")]
)
def test_words_for_options(argv: list[str], shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(argv)
    assert exit_.value.code == 0
    assert shown in capsys.readouterr().out


@pytest.mark.parametrize("command", ["status", "tools", "whoami", "call", "refine", "target", "completion"])
def test_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    assert f"examples:\n  agenta-ai {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["", "status", "tools", "whoami", "call", "refine", "target", "completion"])
def test_help_fits_an_ordinary_window(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main([*filter(None, [command]), "--help"])
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("argv", [[], ["target"]])
def test_without_a_command_there_is_help(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(argv)
    assert exit_.value.code == 2
    assert "examples:\n  agenta-ai" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "advice"),
    [
        (["statsu"], "There is no command statsu. Did you mean status?"),
        (["xyz"], "There is no command xyz. Choose from status, tools, whoami, call, "),
        (["refine", "a.md", "--guidlines", "x"], "There is no option --guidlines. Did you mean --guidelines?"),
        (["target", "lst"], "There is no action lst. Did you mean list?"),
        (["call", "x", "--json", '{"a": 1}'], "Pass the arguments of a tool with --args."),
        (["help", "refin"], "There is no command refin. Did you mean refine?"),
        (["help", "xyz"], "There is no command xyz. Choose from status, "),
        (["completion", "tcsh"], "There is no shell tcsh. Choose from bash, zsh, fish."),
        (["refine", "a.md", "--diff", "char"], "--diff: can't be char. Choose from line, word."),
        (["status", "--color", "sometimes"], "--color: can't be sometimes. Choose from auto, always, never."),
    ],
)
def test_did_you_mean(argv: list[str], advice: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(argv)
    assert exit_.value.code == 2
    assert advice in capsys.readouterr().err


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_is_up_to_date(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    if sys.version_info[:2] == (3, 11):  # whose argparse it was made with
        code = (
            f"import sys; sys.path.insert(0, 'docs'); import completion; sys.stdout.write(completion.script({shell!r}))"
        )
        environment = {**os.environ, "COLUMNS": "80"}
        made = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
        )
        assert (ROOT / "client/agenta_ai/cli/completion" / shell).read_text() == made.stdout, "run make docs"
    assert cli.main(["completion", shell]) == 0
    assert "refine" in capsys.readouterr().out


@pytest.mark.parametrize("shell", [shell for shell in SHELLS if shutil.which(shell)])
def test_completion_is_understood_by_its_shell(shell: str, tmp_path: Path) -> None:
    script = ROOT / "client/agenta_ai/cli/completion" / shell
    subprocess.run([shell, "-n", script], check=True, cwd=tmp_path)


def test_bash_completes() -> None:
    script = ROOT / "client/agenta_ai/cli/completion/bash"
    words = 'COMP_WORDS=(agenta-ai refine --guid); COMP_CWORD=2; _shtab_agenta_ai; echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", f"source {script}; {words}"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "--guidelines"
