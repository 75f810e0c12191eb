from __future__ import annotations

import io
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import unicodedata
from typing import TYPE_CHECKING

import grpc
import pytest
from client.conftest import BOOTSTRAP
from google.protobuf.json_format import ParseDict
from google.rpc import error_details_pb2, status_pb2

from agenta_ai import CallFailed, cli
from agenta_ai.cli import streams, waits
from agenta_ai.v1 import tool_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from client.conftest import Certificates, FakeServer

Code = grpc.StatusCode
COMMAND = [sys.executable, "-m", "agenta_ai.cli"]
OLD = [{"role": "system", "content": "Answer in {{language}}."}]
NEW = [{"role": "system", "content": "Answer briefly in {{language}}."}]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*cli.CREDENTIALS, "AGENTA_AI_TARGET", "AGENTA_AI_PROJECT", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


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
    tool = {"name": "tools.x.y.z", "title": "A tool", "description": "Does it.\n\nWell."}
    server.answers(ParseDict({"tools": [tool, {"name": "tools.x.y.zz"}]}, pb.ListToolsResponse()))
    assert cli.main(["tools"]) == 0
    assert capsys.readouterr().out == "tools.x.y.z  A tool\n    Does it.\n    \n    Well.\ntools.x.y.zz\n"
    assert cli.main(["tools", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["annotations"]["destructive"] is True


def test_call(server: FakeServer, refined: pb.CallToolResponse, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        cli.main(
            ["call", "tools.x.y.z", "--args", '{"n": 1}', "--json", "--request-id", "r", "--target", server.target]
        )
        == 0
    )
    printed = json.loads(capsys.readouterr().out)
    assert (printed["content"], printed["request_id"]) == ([{"text": "Briefer.", "kind": "text"}], "r")
    assert dict(server.service.requests[0].arguments) == {"n": 1}


def test_arguments_from_standard_input(
    server: FakeServer, refined: pb.CallToolResponse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"n": 2}')))
    assert cli.main(["call", "tools.x.y.z", "--args", "-", "--target", server.target]) == 0
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
    assert list(printed) == ["template", "messages", "summary", "trace_id", "meta", "request_id", "call_id"]
    assert printed["messages"] == NEW


@pytest.mark.parametrize(
    ("code", "reason", "exit_code", "line"),
    [
        (Code.INVALID_ARGUMENT, "ARGUMENTS_INVALID", 2, None),
        (
            Code.UNAUTHENTICATED,
            "CREDENTIALS_INVALID",
            3,
            "agenta-ai: The server requires credentials. Set AGENTA_AI_API_KEY, or use a target that has them.",
        ),
        (Code.PERMISSION_DENIED, "PERMISSION_DENIED", 3, None),
        (Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", 4, "agenta-ai: Rate limited. Try again in 12 s."),
        (Code.DEADLINE_EXCEEDED, "DEADLINE_TOO_SHORT", 5, None),
        (Code.ABORTED, "REQUEST_ID_REUSED", 5, None),
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
    argv = ["call", "tools.x.y.z", "--json", "--request-id", "r", "--retries", "0", "--target", server.target]
    assert cli.main(argv) == exit_code
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "code": code.name,
        "reason": reason,
        "message": "It\nis so",
        "field_violations": [],
        "retry_delay": 12,
        "request_id": "r",
        "call_id": "call-7",
        "tool_was_run": False,
    }
    assert err == (line or "agenta-ai: It is so; try again in 12 s") + "\n"


SAYS_WHO_CALLS = {
    "AGENTA_AI_API_KEY": "ApiKey s3cr3t",
    "AGENTA_AI_API_KEY_FILE": "ApiKey s3cr3t",
    "AGENTA_AI_TOKEN": "Bearer s3cr3t",
}


def set_secret(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "key").write_text("s3cr3t\n")
    monkeypatch.setenv(name, str(folder / "key") if name.endswith("_FILE") else "s3cr3t")


@pytest.mark.parametrize("name", SAYS_WHO_CALLS)
def test_the_environment_says_who_calls(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for other in SAYS_WHO_CALLS:
        monkeypatch.setenv(other, "")
    set_secret(name, tmp_path, monkeypatch)
    monkeypatch.setenv("AGENTA_AI_PROJECT", "p-1")
    server.answers(pb.StatusResponse())
    assert cli.main(["status", "--target", server.target]) == 0
    sent = server.service.metadata[0]
    assert (sent["authorization"], sent["x-agenta-project-id"]) == (SAYS_WHO_CALLS[name], "p-1")


@pytest.mark.parametrize("reason", ["CREDENTIALS_INVALID", "CREDENTIALS_EXPIRED"])
@pytest.mark.parametrize("name", SAYS_WHO_CALLS)
def test_credentials_that_are_not_accepted(
    server: FakeServer,
    refused: Callable[..., status_pb2.Status],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    reason: str,
) -> None:
    set_secret(name, tmp_path, monkeypatch)
    server.answers(refused(Code.UNAUTHENTICATED, reason, "Send one."))
    assert cli.main(["status", "--target", server.target, "--json"]) == 3
    out, err = capsys.readouterr()
    assert err == f"agenta-ai: The server does not accept {name} (or no longer does). Set a valid one.\n"
    assert json.loads(out)["message"] == "Send one."
    assert "s3cr3t" not in out + err


@pytest.mark.parametrize(
    ("environment", "argv", "complaint"),
    [
        (
            {"AGENTA_AI_API_KEY": "s3cr3t", "AGENTA_AI_TOKEN": "s3cr3t"},
            [],
            "AGENTA_AI_API_KEY and AGENTA_AI_TOKEN are set. Keep one of them.",
        ),
        ({"AGENTA_AI_API_KEY_FILE": "no/such/file"}, [], "Cannot read no/such/file: No such file"),
        ({"AGENTA_AI_API_KEY_FILE": "/dev/null"}, [], "ai: AGENTA_AI_API_KEY_FILE: must be 1 to 8192 visible"),
        ({"AGENTA_AI_API_KEY": "s3cr3t "}, [], "ai: AGENTA_AI_API_KEY: must be"),
        ({"AGENTA_AI_TOKEN": "s3cr3t\n"}, [], "ai: AGENTA_AI_TOKEN: must be"),
        ({"AGENTA_AI_PROJECT": "a b"}, [], "ai: AGENTA_AI_PROJECT: must be"),
        (
            {"AGENTA_AI_API_KEY": "s3cr3t"},
            ["--plaintext", "--target", "ai.example.com:1"],
            "AGENTA_AI_API_KEY: credentials are not sent to another machine in plaintext. Nothing was sent. Use TLS",
        ),
        ({}, ["--ca", "no/such/file"], "Cannot read no/such/file: No such file"),
        ({}, ["--ca", __file__], "must contain certificates in PEM format"),
        ({}, ["--ca", "-"], "must contain certificates in PEM format"),
        ({}, ["--plaintext", "--ca", "{ca}"], "--plaintext can't be combined with --ca, --cert or --key"),
        ({}, ["--cert", "{caller}"], "--cert and --key belong together"),
        ({}, ["--key", "{caller_key}"], "--cert and --key belong together"),
        ({}, ["--cert", "{caller}", "--key", "{server_key}"], "must be a certificate and its private key"),
    ],
)
def test_wrong_credentials(
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: dict[str, str],
    argv: list[str],
    complaint: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    files = {name: str(path) for name, path in vars(certificates).items()}
    assert cli.main(["status", *(files.get(word.strip("{}"), word) for word in argv)]) == 2
    err = capsys.readouterr().err
    assert complaint in err
    assert err.count("\n") == 1
    assert "s3cr3t" not in err


def test_certificates(
    tls_server: FakeServer,
    certificates: Certificates,
    refused: Callable[..., status_pb2.Status],
    capsys: pytest.CaptureFixture[str],
) -> None:
    tls_server.answers(pb.StatusResponse(), refused(Code.UNAUTHENTICATED, "CREDENTIALS_INVALID", "Send one."))
    files = ["--ca", certificates.ca, "--cert", certificates.caller, "--key", certificates.caller_key]
    argv = ["status", "--target", tls_server.target, *map(str, files)]
    assert cli.main(argv) == 0
    assert cli.main(argv) == 3
    assert (
        capsys.readouterr().err
        == "agenta-ai: The server does not accept --cert (or no longer does). Set a valid one.\n"
    )


def test_plaintext_to_a_server_with_tls(tls_server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--target", tls_server.target]) == 5
    assert capsys.readouterr().err == (
        f"agenta-ai: Cannot reach {tls_server.target} without TLS: the server closes the connection. Nothing was sent. "
        "Does it require TLS? Then pass --tls.\n"
    )


def test_help_names_no_option_for_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*SAYS_WHO_CALLS, "AGENTA_AI_PROJECT"))
    assert "--api-key" not in shown
    assert "--token" not in shown


@pytest.mark.parametrize("wait", [True, False])
def test_waiting_for_a_limit(
    server: FakeServer,
    refined: pb.CallToolResponse,
    refused: Callable[..., status_pb2.Status],
    prompt: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    wait: bool,
) -> None:
    retry = error_details_pb2.RetryInfo(retry_delay={"nanos": 1_000_000})
    server.answers(refused(Code.RESOURCE_EXHAUSTED, "RATE_LIMITED", "No.", retry), refined)
    argv = ["refine", str(prompt), "--target", server.target, *(["--wait"] if wait else [])]
    assert cli.main(argv) == (0 if wait else 4)
    assert len(server.service.requests) == (2 if wait else 1)
    assert ("Rate limited. Try again in 1 s." in capsys.readouterr().err) is not wait


@pytest.mark.parametrize("words", [["status"], ["tools"], ["refine", "{prompt}"]])
def test_what_was_refused_as_json(
    server: FakeServer,
    refused: Callable[..., status_pb2.Status],
    prompt: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    bad = error_details_pb2.BadRequest(field_violations=[{"field": "f", "description": "is wrong"}])
    server.answers(refused(Code.INVALID_ARGUMENT, "REQUEST_INVALID", "No", bad))
    argv = [*(word.format(prompt=prompt) for word in words), "--target", server.target]
    assert cli.main(argv) == 2
    assert capsys.readouterr() == ("", "agenta-ai: No; f: is wrong\n")
    assert cli.main([*argv, "--json"]) == 2
    out, err = capsys.readouterr()
    printed = json.loads(out)
    assert (printed["code"], printed["reason"], printed["message"]) == ("INVALID_ARGUMENT", "REQUEST_INVALID", "No")
    assert printed["field_violations"] == [{"field": "f", "description": "is wrong"}]
    assert err == "agenta-ai: No; f: is wrong\n"


@pytest.mark.parametrize("words", [["call", "tools.x.y.z"], ["refine", "{prompt}"]])
def test_a_request_id_is_passed_on(
    server: FakeServer,
    refined: pb.CallToolResponse,
    refused: Callable[..., status_pb2.Status],
    prompt: Path,
    words: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    server.answers(refined, refused(Code.INVALID_ARGUMENT, "REQUEST_INVALID", "request_id: no UUID"))
    argv = [*(word.format(prompt=prompt) for word in words), "--target", server.target, "--request-id", "abc"]
    assert cli.main(argv) == 0
    assert cli.main(argv) == 2
    assert [request.request_id for request in server.service.requests] == ["abc", "abc"]
    assert capsys.readouterr().err.endswith("agenta-ai: --request-id: no UUID\n")


NEW_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@pytest.mark.parametrize("words", [["call", "tools.x.y.z"], ["refine", "{prompt}"]])
def test_who_got_no_answer_is_told_how_to_get_it(
    server: FakeServer,
    refined: pb.CallToolResponse,
    prompt: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    # An answer that gRPC doesn't repeat the call for.
    server.answers(status_pb2.Status(code=13, message="Cut off."), refined)
    argv = [*(word.format(prompt=prompt) for word in words), "--target", server.target]
    assert cli.main(argv) == 5
    told = re.search(
        rf"may have been billed\. To get its result, run the command again with --request-id ({NEW_ID})\.\n",
        capsys.readouterr().err,
    )
    assert told
    assert cli.main([*argv, "--request-id", told[1]]) == 0
    assert [request.request_id for request in server.service.requests] == [told[1]] * 2


def test_who_is_to_try_again_with_the_same_id_is_told_it(
    server: FakeServer, refused: Callable[..., status_pb2.Status], capsys: pytest.CaptureFixture[str]
) -> None:
    retry = error_details_pb2.RetryInfo(retry_delay={"seconds": 2})
    unknown = refused(Code.UNAVAILABLE, "REPLAY_STORE_UNAVAILABLE", "Not known: try again, with the same one.", retry)
    server.answers((unknown, -1))
    assert cli.main(["call", "tools.x.y.z", "--target", server.target]) == 5
    (request,) = server.service.requests
    same = f"Not known: try again in 2 s, with the same one. Use --request-id {request.request_id}."
    assert capsys.readouterr().err == f"agenta-ai: {same}\n"


def test_a_server_lost_in_mid_call(server: FakeServer) -> None:
    server.answers(None)
    argv = [*COMMAND, "call", "tools.x.y.z", "--target", server.target]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as running:
        assert server.service.asked.wait(30)
        server.cut()
        err = running.communicate(timeout=20)[1]
    (request,) = server.service.requests
    assert err.startswith(
        f"agenta-ai: Cannot reach {server.target} without TLS: connection refused. Is agenta-ai-server"
    )
    assert err.endswith(f"To get its result, run the command again with --request-id {request.request_id}.\n")


def test_each_call_has_a_new_id(server: FakeServer, refined: pb.CallToolResponse) -> None:
    for _ in range(2):
        assert cli.main(["call", "tools.x.y.z", "--target", server.target]) == 0
    first, second = (request.request_id for request in server.service.requests)
    assert first != second
    assert re.fullmatch(NEW_ID, first)


def test_a_bug_of_the_server(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    status = status_pb2.Status(code=13, message="Internal error: see the log.")
    status.details.add().Pack(error_details_pb2.RequestInfo(request_id="7f3c"))
    server.answers(status)
    assert cli.main(["status", "--target", server.target]) == 5
    assert (
        capsys.readouterr().err
        == "agenta-ai: INTERNAL: Internal error: see the log. The server logged it as call 7f3c.\n"
    )


def test_a_tool_that_failed(
    server: FakeServer, answer: Callable[..., pb.CallToolResponse], prompt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers(answer(content=[{"text": "No model."}], isError=True, error={"reason": 108}))
    assert cli.main(["refine", str(prompt), "--target", server.target]) == 1
    assert capsys.readouterr() == ("", "agenta-ai: No model.\n")
    assert cli.main(["refine", str(prompt), "--json", "--target", server.target]) == 1
    out, err = capsys.readouterr()
    printed = json.loads(out)
    assert list(printed)[:6] == ["reason", "message", "retryable", "retry_delay", "field_violations", "meta"]
    assert list(printed)[6:] == ["request_id", "call_id"]
    assert (printed["reason"], printed["message"]) == ("UPSTREAM_UNAVAILABLE", "No model.")
    assert printed["meta"]["trace_id"] == ""
    assert err == "agenta-ai: No model.\n"
    assert cli.main(["call", "tools.x.y.z", "--json", "--target", server.target]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["reason"] == "UPSTREAM_UNAVAILABLE"
    assert err == "agenta-ai: No model.\n"


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["refine", "no/such/file"], "Cannot read no/such/file: No such file"),
        (["refine", "."], ". is a folder. Use a pattern"),
        (["refine", "{prompt}", "-o", "no/such/file"], "Cannot write no/such/file"),
        (["refine", sys.executable], "it is not text in UTF-8"),
        (["refine", __file__, "--format", "json"], "is not JSON: Expecting value: line 1"),
        (["call", "x", "--args", "[1]"], "The arguments are not a JSON object"),
        (["call", "x", "--args", "{"], "The arguments are not JSON: Expecting"),
        (["call", "x", "--args", '{"n": NaN}'], "arguments.n: nan is not a JSON value"),
        (["--timeout", "0", "status"], "--timeout: must be a number of seconds"),
        (["--timeout", "1e10", "status"], "at most 31536000"),
        (["call", "a\udcff"], "name: character 1"),
        (["status", "--target", "http://x"], "is a web address. Give host:port"),
        (["status", "--target", "localhost"], "is not an address that this client can connect to. Give host:port"),
        (["refine", "/dev/null"], "/dev/null is empty"),
        (["call", "x", "--args", ""], "The arguments are not JSON: they are empty"),
        (["refine", "{prompt}", "--json", "-o", "-"], "--output - and --json both write to standard output"),
        (["refine", "{prompt}", "--request-id", ""], "--request-id: is empty"),
        (["call", "x", "--request-id", ""], "--request-id: is empty"),
        (["call", "x", "--retries", "-1"], "--retries: must be an integer"),
        (["refine", "{prompt}", "-j", "0"], "--jobs must be at least 1"),
        (["refine", "-", "-i"], "--in-place cannot write standard input back"),
        (["refine", "no-such-*.md"], "No file matches no-such-*.md."),
        (["refine", "{prompt}", "--interactive", "--json"], "--interactive can't be combined"),
        (["refine", "{prompt}", "--interactive"], "--interactive needs a terminal"),
        (["status", "--target", "nowhere"], "is not an address"),
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
    assert done.stderr.startswith(
        "agenta-ai: Cannot reach 127.0.0.1:1 without TLS: connection refused. Nothing was sent. Is"
    )
    assert done.stderr.count("\n") == 1


FULL = "Cannot write to standard output: No space left on device."


@pytest.mark.usefixtures("refined")
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("refine - <&-", "Cannot read standard input: it is closed."),
        ("refine prompt.json >&-", "Cannot write to standard output: it is closed."),
        ("refine prompt.json --json --request-id r >/dev/full", f"{FULL} To get the result again, use --request-id r."),
        ("refine prompt.json --request-id r >/dev/full", f"{FULL} To get the result again, use --request-id r."),
        ("refine prompt.json -o - --request-id r >/dev/full", f"{FULL} To get the result again, use --request-id r."),
        (
            "refine prompt.json --request-id r -o /dev/full >/dev/null",
            "Cannot write /dev/full: No space left on device. To get the refined prompt again, use --request-id r.",
        ),
    ],
)
def test_streams_that_fail(server: FakeServer, prompt: Path, words: str, complaint: str) -> None:
    line = shlex.join([*COMMAND, "--target", server.target]) + " " + words
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, cwd=prompt.parent)
    assert done.returncode == 2
    # The summary and the warning may come before.
    assert done.stderr.split("\n")[-2:] == [f"agenta-ai: {complaint}", ""]
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert len(server.service.requests) == (0 if "closed" in complaint else 1)


@pytest.mark.usefixtures("refined")
def test_results_of_several_files_that_cannot_be_printed(server: FakeServer, prompt: Path) -> None:
    (prompt.parent / "other.json").write_bytes(prompt.read_bytes())
    line = shlex.join([*COMMAND, "--target", server.target, "refine", "prompt.json", "other.json", "--json"])
    done = subprocess.run(
        ["sh", "-c", f"{line} >/dev/full"], capture_output=True, text=True, check=False, cwd=prompt.parent
    )
    assert done.returncode == 2
    ids = {request.request_id for request in server.service.requests}
    told = re.findall(r"(\w+\.json) --request-id ([0-9a-f-]{36})", done.stderr)
    assert ({file for file, _ in told}, {told_id for _, told_id in told}) == ({"prompt.json", "other.json"}, ids)


@pytest.mark.usefixtures("refined")
def test_standard_error_may_be_closed(server: FakeServer, prompt: Path) -> None:
    line = shlex.join([*COMMAND, "--target", server.target, "refine", str(prompt), "--json"]) + " 2>&-"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert json.loads(done.stdout)["messages"] == NEW
    line = shlex.join([*COMMAND, "--target", "127.0.0.1:1", "status"]) + " 2>&-"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (5, "")


@pytest.mark.usefixtures("refined")
def test_what_was_paid_for_is_kept_where_standard_output_fails(server: FakeServer, prompt: Path) -> None:
    line = shlex.join([*COMMAND, "--target", server.target, "refine", str(prompt), "-o", "out.json"]) + " >/dev/full"
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=False, cwd=prompt.parent)
    assert done.returncode == 2
    assert json.loads((prompt.parent / "out.json").read_text(encoding="utf-8"))["messages"] == NEW


@pytest.mark.usefixtures("refined")
def test_output_to_standard_output(server: FakeServer, prompt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["refine", str(prompt), "-o", "-", "--target", server.target]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"messages": NEW, "name": "é"}
    assert err == "Briefer. \\x1b[2J\nwarning: A setting is old.\n"
    assert not (prompt.parent / "-").exists()


def test_no_tricks_with_the_terminal(
    server: FakeServer,
    answer: Callable[..., pb.CallToolResponse],
    refused: Callable[..., status_pb2.Status],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whatever is printed, on either stream, holds no controls but newlines, and no text can pass for another line."""
    trick = "\x1b[2J\x9b2J\x7f\x07\r\x85\u2028\u2029\u202a\u202e\u2066\u2069\u200b\u061c\ufeff\U000e0041\nFAKE"
    prompt = tmp_path / "prompt.json"
    prompt.write_text(json.dumps({"messages": [{"role": trick, "content": f"old {trick}"}]}))
    new = [{"role": trick, "content": f"new {trick}\ud800"}]
    template = json.dumps({"messages": new, "name": trick})
    content = {"messages": [], "summary": trick, "prompt_template_json": template}
    meta = {"warnings": [trick], "traceId": trick}
    fine = answer(content=[{"text": trick}], structuredContent=content, meta=meta)
    failed = answer(content=[{"text": trick}], isError=True, error={"reason": 108}, meta=meta)
    tools = pb.ListToolsResponse(tools=[{"name": trick, "title": trick, "description": trick}])  # type: ignore[list-item]
    for given in (fine, failed, refused(Code.INVALID_ARGUMENT, "REQUEST_INVALID", trick)):
        server.answers(given)
        for more in ([], ["--json"], ["-o", "-"], ["-o", str(tmp_path / "out.json")]):
            cli.main(["refine", str(prompt), *more, "--target", server.target])
        cli.main(["call", trick, "--target", server.target])
    server.answers(tools)
    for more in ([], ["--json"]):
        cli.main(["tools", *more, "--target", server.target])
    server.answers(pb.StatusResponse(server_version=trick, missing_settings=[trick]))
    cli.main(["status", "--target", server.target])
    cli.main(["status", "--target", f"http://{trick}"])
    out, err = capsys.readouterr()
    assert out.count("2J") > 20
    assert err.count("2J") > 10
    controls = ("Cc", "Cf", "Zl", "Zp")
    written = (tmp_path / "out.json").read_text(encoding="utf-8")
    assert [sign for sign in out + err + written if unicodedata.category(sign) in controls and sign != "\n"] == []
    assert json.loads(written)["messages"] == new
    assert not [line for line in (out + err).split("\n") if line.startswith("FAKE")]


@pytest.mark.parametrize(("is_terminal", "shown"), [(True, "\\x1b[2J\n"), (False, "\x1b[2J\n")])
def test_a_file_on_standard_output(
    is_terminal: bool, shown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    streams.write("-", "\x1b[2J\n")
    assert capsys.readouterr().out == shown


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
    running = subprocess.Popen(
        [sys.executable, "-c", BOOTSTRAP, *COMMAND, "status", "--target", server.target],
        stderr=subprocess.PIPE,
    )
    assert server.service.asked.wait(30)
    running.send_signal(signal.SIGINT)
    assert running.communicate(timeout=10)[1] == b""
    assert running.returncode == 130


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_control_c_that_ends_the_reader_too(
    unbuffered: str,
    server: FakeServer,
    answer: Callable[..., pb.CallToolResponse],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with ``agenta-ai refine *.md --json | jq``."""
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    files = [tmp_path / "a.md", tmp_path / "b.md"]
    for file in files:
        file.write_text("Old.\n")
    messages = [{"role": "system", "content": "New."}]
    content = {"messages": messages, "summary": "", "prompt_template_json": json.dumps({"messages": messages})}
    server.answers(answer(structuredContent=content), None)
    reading, writing = os.pipe()
    words = ["refine", *map(str, files), "-j", "1", "--json", "--target", server.target]
    running = subprocess.Popen(
        [sys.executable, "-c", BOOTSTRAP, *COMMAND, *words], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    while len(server.service.requests) < 2:
        assert server.service.asked.wait(30)
        server.service.asked.clear()
    os.close(reading)
    running.send_signal(signal.SIGINT)
    assert f"--request-id {server.service.requests[1].request_id}." in running.communicate(timeout=20)[1]
    assert running.returncode == 130


@pytest.mark.parametrize(
    ("words", "redirection", "why", "unbuffered"),
    [
        *((words, ">/dev/full", "No space left on device", "") for words in ("--help", "--version", "tools --help")),
        ("--help", ">/dev/full", "No space left on device", "1"),
        *((words, ">&-", "it is closed", "") for words in ("--help", "--version", "tools --help")),
    ],
)
def test_help_that_cannot_be_printed(
    words: str, redirection: str, why: str, unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Unbuffered, nothing is left for the interpreter's exit.
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    line = f"{shlex.join(COMMAND)} {words} {redirection}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, f"agenta-ai: Cannot write to standard output: {why}.\n")


@pytest.mark.parametrize("words", ["", "nope"])
def test_wrong_usage_that_cannot_be_printed(words: str) -> None:
    line = f"{shlex.join(COMMAND)} {words} 2>&-"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")


def test_a_reader_that_went_away(server: FakeServer) -> None:
    server.answers(pb.StatusResponse())
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "status", "--target", server.target], stdout=writing, stderr=subprocess.PIPE, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_json_of_everything() -> None:
    with pytest.raises(TypeError, match="object"):
        streams.to_json(object())
    assert streams.to_json(b"\0\1") == '"AAE="'


# Waiting


def test_a_wait_is_explained(
    server: FakeServer,
    refused: Callable[..., status_pb2.Status],
    answer: Callable[..., pb.CallToolResponse],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waits, "_SHORTEST_SECONDS", 0.0)
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromMilliseconds(10)
    busy = refused(Code.UNAVAILABLE, "OVERLOADED", "The service is at capacity. Try again in 0.0 seconds.", retry)
    argv = ["call", "tools.x.y.z", "--target", server.target]
    for options, told in (
        ([], "agenta-ai: The service is at capacity. Waiting 1 s.\n"),
        (["--quiet"], ""),
    ):
        server.answers((busy, 10), answer(structuredContent={}))
        assert cli.main([*argv, *options]) == 0
        assert capsys.readouterr().err == told


def test_an_answer_that_is_too_large_is_no_rate_limit(
    server: FakeServer, answer: Callable[..., pb.CallToolResponse], capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers(answer(content=[{"text": "x" * 2**24}]))
    assert cli.main(["call", "tools.x.y.z", "--target", server.target]) == 5
    assert "larger than max" in capsys.readouterr().err


def test_calls_that_wait_at_the_same_time_share_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    busy = CallFailed("Rate limited. Try again in 3 s.", code=Code.RESOURCE_EXHAUSTED, retry_delay=3)
    broken = CallFailed("The connection broke.", code=Code.UNAVAILABLE)
    log = logging.getLogger("agenta_ai.attempts")
    with waits.told():
        for failure, delay in (broken, 2.0), (busy, 0.5), (busy, 2.5), (busy, 2.5):
            log.info("%s Sending the call again in %.1f s.", failure, delay)
    log.info("%s Sending the call again in %.1f s.", busy, 2.5)
    assert capsys.readouterr().err == "agenta-ai: Rate limited. Waiting 3 s.\n"
