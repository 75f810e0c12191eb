from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from google.rpc import error_details_pb2, status_pb2

from agenta_ai import cli
from agenta_ai.v1 import tool_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from client.conftest import FakeServer

Code = grpc.StatusCode
COMMAND = [sys.executable, "-m", "agenta_ai.cli"]
OLD = [{"role": "system", "content": "Answer in {{language}}."}]
NEW = [{"role": "system", "content": "Answer briefly in {{language}}."}]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGENTA_AI_TARGET", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def prompt(tmp_path: Path) -> Path:
    path = tmp_path / "prompt.json"
    path.write_text(json.dumps({"messages": OLD}), encoding="utf-8-sig")
    return path


@pytest.fixture
def refined(server: FakeServer, answer: Callable[..., pb.CallToolResponse]) -> pb.CallToolResponse:
    content = {
        "messages": NEW,
        "summary": "Briefer. \x1b[2J",
        "prompt_template_json": json.dumps({"messages": NEW, "name": "é"}),
    }
    meta = {"traceId": "ab", "warnings": ["A setting is old."]}
    response = answer(content=[{"text": "Briefer."}], structuredContent=content, meta=meta)
    server.answers(response)
    return response


def test_status(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    limit = {"burst": 10, "refillPerMinute": 30, "remaining": 0, "nextCallDelay": "2s"}
    tools = [{"tool": {"name": "tools.x.y.z"}, "rateLimit": limit}, {"tool": {"name": "tools.x.y.zz"}}]
    fields = {"enabled": True, "serverVersion": "1.2.3", "startTime": "2026-11-21T10:00:00Z", "tools": tools}
    server.answers(ParseDict(fields, pb.StatusResponse()))
    assert cli.main(["status", "--target", server.target]) == 0
    assert capsys.readouterr().out.split("\n") == [
        "serving, version 1.2.3, since 2026-11-21 10:00:00 UTC",
        "tools.x.y.z  0 of 10 calls left, 30 more a minute, next call in 2 s",
        "tools.x.y.zz  no limit",
        "",
    ]
    assert cli.main(["--target", server.target, "status", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["start_time"] == "2026-11-21T10:00:00+00:00"
    assert printed["tools"][0]["rate_limit"]["next_call_delay"] == 2


def test_status_of_a_service_that_is_off(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.answers(pb.StatusResponse(state=pb.SERVICE_STATE_DISABLED, missing_settings=["A", "B"]))
    assert cli.main(["status", "--target", server.target]) == 0
    assert capsys.readouterr().out == "disabled, version unknown\nnot enabled; missing settings: A, B\n"


def test_tools(server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTA_AI_TARGET", server.target)
    tool = {"name": "tools.x.y.z", "title": "A tool", "description": "Does it."}
    server.answers(ParseDict({"tools": [tool]}, pb.ListToolsResponse()))
    assert cli.main(["tools"]) == 0
    assert capsys.readouterr().out == "tools.x.y.z  A tool\n    Does it.\n"
    assert cli.main(["tools", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["annotations"]["destructive"] is True


def test_call(server: FakeServer, refined: pb.CallToolResponse, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["call", "tools.x.y.z", "--json", '{"n": 1}', "--request-id", "r", "--target", server.target]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["content"], printed["request_id"]) == ([{"text": "Briefer.", "kind": "text"}], "r")
    assert dict(server.service.requests[0].arguments) == {"n": 1}


def test_arguments_from_standard_input(
    server: FakeServer, refined: pb.CallToolResponse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"n": 2}')))
    assert cli.main(["call", "tools.x.y.z", "--json", "-", "--target", server.target]) == 0
    assert dict(server.service.requests[0].arguments) == {"n": 2}


def test_refine(
    server: FakeServer,
    refined: pb.CallToolResponse,
    prompt: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out.json"
    asked = ["refine", str(prompt), "-g", "Be brief.", "-c", "A shop.", "-o", str(output), "--target", server.target]
    assert cli.main(asked) == 0
    out, err = capsys.readouterr()
    assert out.split("\n") == [
        "--- old messages[0] system",
        "+++ new messages[0] system",
        "@@ -1 +1 @@",
        "-Answer in {{language}}.",
        "+Answer briefly in {{language}}.",
        r"Briefer. \x1b[2J",
        "",
    ]
    assert err == "warning: A setting is old.\n"
    assert json.loads(output.read_text(encoding="utf-8")) == {"messages": NEW, "name": "é"}
    assert "é" in output.read_text(encoding="utf-8")
    assert dict(server.service.requests[0].arguments) == {
        "prompt_template_json": json.dumps({"messages": OLD}),
        "guidelines": "Be brief.",
        "context": "A shop.",
    }


def test_refine_for_scripts(
    server: FakeServer,
    refined: pb.CallToolResponse,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps({"messages": OLD}).encode())))
    assert cli.main(["refine", "-", "--json", "--target", server.target]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == ["template", "messages", "summary", "trace_id", "meta"]
    assert printed["messages"] == NEW


@pytest.mark.parametrize(
    ("code", "reason", "exit_code", "line"),
    [
        (Code.INVALID_ARGUMENT, "ARGUMENTS_INVALID", 2, None),
        (Code.NOT_FOUND, "TOOL_NOT_FOUND", 2, None),
        (Code.UNAUTHENTICATED, "CREDENTIALS_INVALID", 3, None),
        (Code.PERMISSION_DENIED, "PERMISSION_DENIED", 3, None),
        (Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", 4, "agenta-ai: rate limited: try again in 12 s"),
        (Code.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT", 5, None),
        (Code.ABORTED, "REQUEST_ID_REUSED", 5, None),
        (Code.INTERNAL, "", 5, None),
    ],
)
def test_exit_codes(
    server: FakeServer,
    refused: Callable[..., status_pb2.Status],
    capsys: pytest.CaptureFixture[str],
    code: Code,
    reason: str,
    exit_code: int,
    line: str | None,
) -> None:
    retry = error_details_pb2.RetryInfo(retry_delay={"seconds": 12})
    server.answers(refused(code, reason, "It\nis so", retry))
    assert cli.main(["call", "tools.x.y.z", "--target", server.target]) == exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (line or "agenta-ai: It is so; try again in 12 s") + "\n"


def test_a_tool_that_failed(
    server: FakeServer, answer: Callable[..., pb.CallToolResponse], prompt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers(answer(content=[{"text": "No model."}], isError=True, error={"reason": 108}))
    assert cli.main(["refine", str(prompt), "--target", server.target]) == 1
    assert capsys.readouterr() == ("", "agenta-ai: No model.\n")
    assert cli.main(["call", "tools.x.y.z", "--target", server.target]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["reason"] == "UPSTREAM_UNAVAILABLE"
    assert err == "agenta-ai: No model.\n"


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["refine", "no/such/file"], "cannot read no/such/file: No such file"),
        (["refine", "."], "cannot read .: Is a directory"),
        (["refine", "{prompt}", "-o", "no/such/file"], "cannot write no/such/file"),
        (["refine", "{prompt}", "-o", "."], "cannot write ."),
        (["refine", sys.executable], "it is no text in UTF-8"),
        (["refine", __file__], "is no JSON: Expecting value: line 1"),
        (["call", "x", "--json", "[1]"], "the arguments are no JSON object"),
        (["call", "x", "--json", "{"], "the arguments are no JSON: Expecting"),
        (["call", "x", "--json", '{"n": NaN}'], "arguments.n: nan is no JSON value"),
        (["--timeout", "0", "status"], "timeout: 0.0"),
        (["status", "--target", "http://x"], "write it as host:port"),
    ],
)
def test_wrong_usage(argv: list[str], complaint: str, prompt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([part.format(prompt=prompt) if part == "{prompt}" else part for part in argv]) == 2
    err = capsys.readouterr().err
    assert complaint in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("argv", [[], ["nothing"], ["call"], ["status", "--tls", "--plaintext"]])
def test_wrong_words(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(argv)
    assert exit_.value.code == 2
    assert "usage: agenta-ai" in capsys.readouterr().err


def test_nobody_is_there() -> None:
    done = subprocess.run([*COMMAND, "--target", "127.0.0.1:1", "status"], capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert done.stderr.startswith("agenta-ai: cannot reach 127.0.0.1:1: is agenta-ai-server running?")
    assert done.stderr.count("\n") == 1


def test_help_waits_for_nothing_heavy() -> None:
    code = (
        "import sys; from agenta_ai import cli\n"
        "try: cli.main(['refine', '--help'])\n"
        "except SystemExit: print(sorted({'grpc', 'google.protobuf', 'rich', 'asyncio'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    assert "--guidelines" in done.stdout


def test_control_c(server: FakeServer) -> None:
    server.answers(None)
    running = subprocess.Popen([*COMMAND, "status", "--target", server.target], stderr=subprocess.PIPE)
    assert server.service.asked.wait(10)
    running.send_signal(signal.SIGINT)
    assert running.communicate(timeout=10)[1] == b""
    assert running.returncode == 130


def test_a_reader_that_went_away(server: FakeServer) -> None:
    server.answers(pb.StatusResponse())
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "status", "--target", server.target], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def on_a_terminal(command: list[str], **variables: str) -> str:
    """What the command draws on a terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "40", **variables}
    subprocess.run(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, check=True, timeout=20)
    os.close(theirs)
    drawn = b""
    try:
        while chunk := os.read(ours, 65536):
            drawn += chunk
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    return drawn.decode().replace("\r\n", "\n")


RED, GREEN = "\x1b[31m-", "\x1b[32m+"


@pytest.mark.usefixtures("refined")
def test_colours_on_a_terminal(server: FakeServer, prompt: Path) -> None:
    command = [*COMMAND, "refine", str(prompt), "--target", server.target]
    drawn = on_a_terminal(command)
    assert RED in drawn
    assert GREEN + "Answer briefly in {{language}}." in drawn
    assert "refining" in drawn
    plain = on_a_terminal(command, NO_COLOR="1")
    assert RED not in plain
    assert "+Answer briefly in {{language}}." in plain


@pytest.mark.usefixtures("refined")
def test_plain_text_without_rich(server: FakeServer, prompt: Path) -> None:
    code = "import sys; sys.modules['rich'] = None; sys.modules['rich.console'] = None; from agenta_ai import cli; "
    code += "sys.exit(cli.main())"
    drawn = on_a_terminal([sys.executable, "-c", code, "refine", str(prompt), "--target", server.target])
    assert "\n+Answer briefly in {{language}}.\n" in drawn
    assert "\x1b" not in drawn


def test_json_of_everything() -> None:
    with pytest.raises(TypeError, match="object"):
        cli._jsonable(object())
    assert cli._jsonable(b"\0\1") == "AAE="
