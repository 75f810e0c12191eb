"""``agenta-ai refine`` with one file and with many."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from agenta_ai import cli
from agenta_ai.v1 import tool_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from client.conftest import FakeServer


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*cli.CREDENTIALS, "AGENTA_AI_TARGET", "AGENTA_AI_PROJECT", "NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "prompts").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    folder = tmp_path / "prompts"
    (folder / "a.md").write_text("One.\n")
    (folder / "b.txt").write_text("TWO.\n")
    (folder / "c.json").write_text('[ {"role": "system", "content": "Three."} ]')
    return folder


@pytest.fixture
def target(server: FakeServer, answer: Callable[..., pb.CallToolResponse], monkeypatch: pytest.MonkeyPatch) -> str:
    """A server that writes every text in capitals."""

    def refined(request: pb.CallToolRequest) -> pb.CallToolResponse:
        template = json.loads(str(request.arguments["prompt_template_json"]))
        for message in template["messages"]:
            message["content"] = message["content"].upper()
        content = {**template, "summary": "Louder.", "prompt_template_json": json.dumps(template)}
        return answer(content=[{"text": "Louder."}], structuredContent=content)

    server.answers(refined)
    monkeypatch.setenv("AGENTA_AI_TARGET", server.target)
    return server.target


def contents(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted(folder.iterdir())]


@pytest.mark.usefixtures("target")
def test_many_files_in_place(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["refine", "prompts/*", "-i"]) == 0
    assert contents(prompts) == ["ONE.\n", "TWO.\n", '[ {"role": "system", "content": "THREE."} ]']
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "3 prompts: 2 refined, 1 unchanged, 0 failed."
    assert {"prompts/a.md: Louder.", "prompts/b.txt: unchanged", "prompts/c.json: Louder."} <= {*out.splitlines()}
    assert err == ""


@pytest.mark.usefixtures("target")
def test_one_failed_file_does_not_stop_the_others(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (prompts / "broken.json").write_text("{")
    assert cli.main(["refine", "prompts/*", "no-such-file", "-i", "-q"]) == 2
    assert (prompts / "a.md").read_text() == "ONE.\n"
    out, err = capsys.readouterr()
    assert out == ""
    assert sorted(err.splitlines()) == [
        "agenta-ai: Cannot read no-such-file: No such file or directory.",
        "agenta-ai: prompts/broken.json is not JSON: Expecting property name enclosed in double quotes: "
        "line 1 column 2 (char 1).",
    ]


@pytest.mark.usefixtures("target")
@pytest.mark.parametrize(
    ("files", "code"),
    [(["prompts/a.md"], 1), (["prompts/b.txt"], 0), (["prompts/*"], 1), (["prompts/b*", "prompts/b.txt"], 0)],
)
def test_check_writes_nothing(prompts: Path, files: list[str], code: int) -> None:
    before = contents(prompts)
    assert cli.main(["refine", *files, "--check"]) == code
    assert contents(prompts) == before


@pytest.mark.parametrize(
    ("options", "is_kept"),
    [
        (["-i"], False),
        (["-o", "prompts/a.md"], False),
        (["prompts/b.txt", "-i"], False),
        (["-o", "prompts/b.txt"], True),
        (["--check"], True),
    ],
)
@pytest.mark.usefixtures("target")
def test_what_was_changed_in_the_meantime_stays(
    server: FakeServer,
    prompts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    *,
    is_kept: bool,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (refined,) = server.service.answers

    def slowly(request: pb.CallToolRequest) -> Any:
        (prompts / "a.md").write_text("One.\nAnd more.\n")
        return refined(request)  # type: ignore[misc, operator]

    server.answers(slowly)
    assert cli.main(["refine", "prompts/a.md", *options]) == (1 if "--check" in options else 0 if is_kept else 2)
    assert (prompts / "a.md").read_text() == "One.\nAnd more.\n"
    aside = [path.read_text() for path in tmp_path.glob("agenta-ai-*.md")]
    assert aside == ([] if is_kept else ["ONE.\n"])
    told = f"prompts/a.md was changed in the meantime, and stays as it is. The refined prompt: {tmp_path}/agenta-ai-"
    assert (told in capsys.readouterr().err) is not is_kept


@pytest.mark.usefixtures("target")
def test_many_files_as_json(prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (prompts / "d.json").write_text("{")
    assert cli.main(["refine", "prompts/*", "--json"]) == 2
    printed = json.loads(capsys.readouterr().out)
    assert [(row["file"], row.get("changed")) for row in printed] == [
        ("prompts/a.md", True),
        ("prompts/b.txt", False),
        ("prompts/c.json", True),
        ("prompts/d.json", None),
    ]
    assert printed[0]["messages"] == [{"role": "user", "content": "ONE."}]
    assert "is not JSON" in printed[3]["error"]


@pytest.mark.usefixtures("target")
def test_many_files_into_a_folder(prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["refine", "prompts/*", "-o", "new"]) == 2
    assert "--output must be a folder" in capsys.readouterr().err
    (tmp_path / "new").mkdir()
    assert cli.main(["refine", "prompts/*", "-o", "new"]) == 0
    assert contents(tmp_path / "new") == ["ONE.\n", "TWO.\n", '[ {"role": "system", "content": "THREE."} ]']
    assert (prompts / "a.md").read_text() == "One.\n"
    (tmp_path / "a.md").write_text("Other.")
    assert cli.main(["refine", "prompts/a.md", "a.md", "-o", "new"]) == 2
    assert "Two files would have the same name" in capsys.readouterr().err


@pytest.mark.usefixtures("prompts", "target")
def test_text_in_gives_text_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Say it.\n")))
    assert cli.main(["refine", "-", "-o", "-"]) == 0
    assert capsys.readouterr() == ("SAY IT.\n", "Louder.\n")
    assert cli.main(["refine", "prompts/a.md", "-o", "out.md", "--quiet"]) == 0
    assert (tmp_path / "out.md").read_text() == "ONE.\n"
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("prompts", "target")
def test_a_system_message(server: FakeServer) -> None:
    assert cli.main(["refine", "prompts/a.md", "--system"]) == 0
    sent = json.loads(server.service.requests[0].arguments["prompt_template_json"])
    assert sent == {"messages": [{"role": "system", "content": "One."}]}


@pytest.mark.usefixtures("prompts", "target")
def test_word_by_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["refine", "prompts/a.md", "--diff", "word"]) == 0
    assert capsys.readouterr().out == "messages[0] user\n[-One-]{+ONE+}.\nLouder.\n"
    assert cli.main(["refine", "prompts/a.md", "--diff", "word", "--color", "always"]) == 0
    assert "\x1b[31mOne\x1b[0m\x1b[32mONE\x1b[0m." in capsys.readouterr().out


@pytest.mark.usefixtures("prompts", "target")
@pytest.mark.parametrize(("color", "colored"), [("always", True), ("never", False), ("auto", False)])
def test_colours(color: str, colored: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["refine", "prompts/a.md", "--color", color]) == 0
    assert ("\x1b[32m+ONE." in capsys.readouterr().out) is colored


@pytest.mark.usefixtures("prompts", "target")
def test_files_keep_their_mode(prompts: Path) -> None:
    (prompts / "a.md").chmod(0o640)
    (prompts / "link.md").symlink_to("a.md")
    assert cli.main(["refine", "prompts/link.md", "-i"]) == 0
    assert (prompts / "link.md").is_symlink()
    assert (prompts / "a.md").read_text() == "ONE.\n"
    assert (prompts / "a.md").stat().st_mode & 0o777 == 0o640
    assert {path.name for path in prompts.iterdir()} == {"a.md", "b.txt", "c.json", "link.md"}


@pytest.mark.usefixtures("target")
@pytest.mark.parametrize(("content", "told"), [("*a", ["could not be kept"]), ("hi", [])], ids=["alias", "text"])
def test_lost_comments_are_told(
    prompts: Path, capsys: pytest.CaptureFixture[str], content: str, told: list[str]
) -> None:
    (prompts / "a.yaml").write_text(f"# why\nx: &a hi\nmessages:\n- {{role: user, content: {content}}}\n")
    assert cli.main(["refine", "prompts/a.yaml", "-i"]) == 0
    warned = [f"warning: The comments and the layout of prompts/a.yaml {words}." for words in told]
    assert capsys.readouterr().err.splitlines() == warned


@pytest.mark.usefixtures("target")
def test_a_mount_point_is_written_in_place(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_paths: object) -> None:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))

    # As for a file that a container shares with its host.
    monkeypatch.setattr(os, "replace", busy)
    assert cli.main(["refine", "prompts/a.md", "-i"]) == 0
    assert contents(prompts)[0] == "ONE.\n"
    assert {path.name for path in prompts.iterdir()} == {"a.md", "b.txt", "c.json"}


@pytest.mark.usefixtures("target")
def test_a_name_can_be_as_long_as_the_system_lets_it(prompts: Path) -> None:
    name = prompts / f"{'a' * 252}.md"
    name.write_text("One.\n")
    assert cli.main(["refine", str(name), "-i"]) == 0
    assert name.read_text() == "ONE.\n"


def test_only_so_many_at_a_time(
    server: FakeServer, prompts: Path, answer: Callable[..., pb.CallToolResponse], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each answer waits until as many calls are there as may be; were there fewer, none would come."""
    monkeypatch.setenv("AGENTA_AI_TARGET", server.target)
    for number in range(6):
        (prompts / f"{number}.txt").write_text("Text.")
    arrived, most, together = 0, 0, threading.Condition()

    def refined(_: pb.CallToolRequest) -> pb.CallToolResponse:
        nonlocal arrived, most
        with together:
            arrived += 1
            most = max(most, arrived)
            together.notify_all()
            together.wait_for(lambda: arrived >= 2, timeout=20)
            together.wait(0.05)
            arrived -= 1
        template = json.dumps({"messages": [{"role": "user", "content": "Text."}]})
        content = {"messages": [], "summary": "", "prompt_template_json": template}
        return answer(structuredContent=content)

    server.service.in_threads = True
    server.answers(refined)
    assert cli.main(["refine", *(f"prompts/{number}.txt" for number in range(6)), "-j", "2"]) == 0
    assert most == 2


def test_many_files_wait_for_the_limit(
    server: FakeServer,
    prompts: Path,
    target: str,
    refused: Callable[..., status_pb2.Status],
    capsys: pytest.CaptureFixture[str],
) -> None:
    retry = error_details_pb2.RetryInfo(retry_delay={"nanos": 1_000_000})
    limited = refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", "No.", retry)
    server.answers(limited, limited, *server.service.answers)
    assert cli.main(["refine", "prompts/*"]) == 0
    assert "0 failed" in capsys.readouterr().out


def test_a_tool_that_there_is_not(
    server: FakeServer, refused: Callable[..., status_pb2.Status], capsys: pytest.CaptureFixture[str], target: str
) -> None:
    tools: Any = [{"name": "tools.agenta.api.refine_prompt"}]
    no_tool = refused(grpc.StatusCode.NOT_FOUND, "TOOL_NOT_FOUND", "There is no tool.")
    for name, advice in (
        ("tools.agenta.api.refine", "Did you mean tools.agenta.api.refine_prompt?"),
        ("xyz", "Run agenta-ai tools to list them."),
    ):
        server.answers(no_tool, pb.ListToolsResponse(tools=tools))
        assert cli.main(["call", name]) == 2
        assert capsys.readouterr().err == f"agenta-ai: There is no tool {name}. {advice}\n"


def test_a_request_that_is_too_large(server: FakeServer, prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (prompts / "big.txt").write_text("x" * 2**20)
    assert cli.main(["refine", "prompts/big.txt", "--target", server.target]) == 2
    assert "bytes, and the limit is 1,048,576. Nothing was sent." in capsys.readouterr().err
    assert server.service.requests == []


@pytest.mark.usefixtures("target")
def test_the_result_of_a_call(
    server: FakeServer, answer: Callable[..., pb.CallToolResponse], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "arguments.json").write_text('{"n": 1}')
    server.answers(answer(content=[{"text": "Done."}], structuredContent={"n": 2}), answer(content=[{"text": "Done."}]))
    assert cli.main(["call", "tools.x.y.z", "--args", "@arguments.json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"n": 2}
    assert cli.main(["call", "tools.x.y.z", "--rerun-if-outcome-unknown", "--request-id", "r"]) == 0
    assert capsys.readouterr().out == "Done.\n"
    first, second = server.service.requests
    server.answers(answer(content=[{"image": {"data": "AAE=", "mimeType": "image/png"}}]))
    assert cli.main(["call", "tools.x.y.z"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"data": "AAE=", "mime_type": "image/png", "kind": "image"}]
    assert (dict(first.arguments), first.rerun_if_outcome_unknown) == ({"n": 1}, False)
    assert (second.request_id, second.rerun_if_outcome_unknown) == ("r", True)


@pytest.mark.usefixtures("target")
def test_the_way_out_of_a_lost_outcome(
    server: FakeServer, answer: Callable[..., pb.CallToolResponse], capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = "Its result is lost. To run it again, send a new request_id, or set rerun_if_outcome_unknown."
    server.answers(answer(content=[{"text": sentence}], isError=True, error={"reason": "ERROR_REASON_OUTCOME_UNKNOWN"}))
    assert cli.main(["call", "tools.x.y.z", "--request-id", "r"]) == 1
    assert "or pass --rerun-if-outcome-unknown." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (pb.SERVICE_STATE_SERVING, "serving, version 1.0.0\n"),
        (
            pb.SERVICE_STATE_DEGRADED,
            "degraded, version 1.0.0\nCalls are failing because Agenta or the model behind it fails. "
            "Try again later.\n",
        ),
        (
            pb.SERVICE_STATE_DRAINING,
            "draining, version 1.0.0\nThe server is shutting down. Send calls to another one.\n",
        ),
    ],
)
def test_the_status_says_whether_calls_fail(
    server: FakeServer, capsys: pytest.CaptureFixture[str], target: str, state: Any, told: str
) -> None:
    server.answers(pb.StatusResponse(enabled=True, state=state, server_version="1.0.0"))
    assert cli.main(["status"]) == 0
    assert capsys.readouterr().out == told
