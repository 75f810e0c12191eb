"""The command line on a real terminal: colours, progress, Ctrl-C, questions, narrow and wide windows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import termios
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pexpect
import pexpect.fdpexpect
import pytest
from google.rpc import error_details_pb2, status_pb2

from agenta_ai import cli
from agenta_ai.v1 import tool_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from client.conftest import FakeServer

MODULE = ["-m", "agenta_ai.cli"]
WITHOUT_RICH = [
    "-c",
    "import sys; sys.modules['rich'] = None; sys.modules['rich.console'] = None; from agenta_ai import cli; "
    "sys.exit(cli.main())",
]
RED, GREEN, ID = "\x1b[31m", "\x1b[32m", r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
WIDTHS = [40, 200]
QUESTION = r"\(a\)ccept, \(r\)efine again, \(e\)dit, \(s\)kip, \(q\)uit\? "
LONG = "A line that is longer than a narrow window is wide, which must not be broken in two."


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (*cli.CREDENTIALS, "AGENTA_AI_TARGET", "AGENTA_AI_PROJECT", "NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("a.md", "b.md", "c.md"):
        (tmp_path / name).write_text(f"{LONG}\n")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def loud(server: FakeServer, answer: Callable[..., pb.CallToolResponse]) -> FakeServer:
    """A server that writes every text in capitals, and the guidelines below it."""

    def refined(request: pb.CallToolRequest) -> pb.CallToolResponse:
        template = json.loads(str(request.arguments["prompt_template_json"]))
        for message in template["messages"]:
            message["content"] = "\n".join(
                filter(None, [message["content"].upper(), str(request.arguments["guidelines"])])
            )
        content = {**template, "summary": "Louder.", "prompt_template_json": json.dumps(template)}
        return answer(structuredContent=content)

    server.answers(refined)
    return server


# Makes the terminal that it is started on its own, so that Ctrl-C reaches it, and becomes the command. pexpect itself
# forks, and the grpc of this process doesn't survive forks.
BOOTSTRAP = """
import fcntl, os, signal, sys, termios
os.setsid()
signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where the tests run in the background
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class Terminal(pexpect.fdpexpect.fdspawn):  # type: ignore[type-arg]
    """A command on a terminal of its own."""

    def __init__(self, command: list[str], width: int) -> None:
        ours, theirs = os.openpty()
        termios.tcsetwinsize(theirs, (24, width))
        # By default, a child would also inherit COLUMNS, which readline sets where Python doesn't see it.
        environment = dict(os.environ)
        self.process = subprocess.Popen(
            [sys.executable, "-c", BOOTSTRAP, *command], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
        )
        os.close(theirs)
        super().__init__(ours, encoding="utf-8", timeout=20)

    def rest(self) -> str:
        """Return what it draws until its end."""
        self.expect(pexpect.EOF)
        self.process.wait(20)
        return str(self.before).replace("\r\n", "\n")

    @property
    def exit_code(self) -> int:
        return self.process.wait(20)


@contextmanager
def terminal(
    server: FakeServer | None, *argv: str, width: int = 80, program: list[str] | None = None
) -> Iterator[Terminal]:
    """The command on a terminal of this width."""
    target = ["--target", server.target] if server else []
    child = Terminal([sys.executable, *(program or MODULE), *argv, *target], width)
    try:
        yield child
    finally:
        child.process.kill()
        child.process.wait()
        child.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_colours(loud: FakeServer, width: int) -> None:
    with terminal(loud, "refine", "a.md", width=width) as child:
        seen = child.rest()
    assert child.exit_code == 0
    assert f"{RED}-{LONG}\x1b[0m\n{GREEN}+{LONG.upper()}\x1b[0m\n" in seen
    assert "refining" in seen
    # Whatever hides the cursor shows it again.
    assert seen.rfind("\x1b[?25h") >= seen.rfind("\x1b[?25l")


@pytest.mark.parametrize(("options", "variables"), [([], {"NO_COLOR": "1"}), (["--color", "never"], {})])
def test_no_colours(
    loud: FakeServer, options: list[str], variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with terminal(loud, "refine", "a.md", *options) as child:
        seen = child.rest()
    assert f"\n+{LONG.upper()}\n" in seen
    assert re.search(r"\x1b\[[0-9;]*3[0-9]", seen) is None


def test_colours_without_rich(loud: FakeServer) -> None:
    with terminal(loud, "refine", "a.md", "b.md", program=WITHOUT_RICH) as child:
        seen = child.rest()
    assert f"{GREEN}+{LONG.upper()}" in seen
    assert "refining" not in seen


@pytest.mark.parametrize("width", WIDTHS)
def test_progress(loud: FakeServer, width: int) -> None:
    with terminal(loud, "refine", "*.md", "-j", "1", width=width) as child:
        child.expect("refining")
        child.expect("[12]/3")
        seen = child.rest()
    assert child.exit_code == 0
    assert f"+{LONG.upper()}" in seen
    assert seen.rstrip().endswith("3 prompts: 3 refined, 0 unchanged, 0 failed.")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("words", [["refine", "a.md"], ["call", "tools.x.y.z"]])
def test_what_is_going_on(
    words: list[str], width: int, server: FakeServer, answer: Callable[..., pb.CallToolResponse]
) -> None:
    queued = pb.Progress(text="Waiting for a free slot, at position 3 in the \x1b[31mqueue.\nFAKE")
    shown = threading.Event()

    def late(_: object) -> pb.CallToolResponse:
        shown.wait(20)
        return answer(is_error=True, content=[{"text": "No."}])

    server.answers([queued, late])
    server.service.in_threads = True
    with terminal(server, *words, width=width) as child:
        child.expect("Waiting for a free slot")
        # With the rest of its line.
        child.expect("queue|…")
        shown.set()
        seen = f"{child.before}{child.after}{child.rest()}"
    assert "\x1b[31m" not in seen, "what a server says can't paint"
    assert "\nFAKE" not in seen.replace("\r", "")
    assert "at position 3 in the" in seen if width > 60 else "…" in seen


def test_who_sees_no_progress_asks_for_none(loud: FakeServer) -> None:
    for quiet in ([], ["--quiet"]):
        done = subprocess.run(
            [sys.executable, *MODULE, "refine", "a.md", "--target", loud.target, *quiet], capture_output=True, text=True
        )
        assert done.returncode == 0
    assert {type(request).__name__ for request in loud.service.requests} == {"CallToolRequest"}


def test_quiet(loud: FakeServer) -> None:
    with terminal(loud, "refine", "*.md", "-i", "-q") as child:
        assert child.rest() == ""
    assert Path("a.md").read_text() == f"{LONG.upper()}\n"


@pytest.mark.parametrize("width", WIDTHS)
def test_help_fits_the_window(width: int) -> None:
    with terminal(None, "refine", "--help", width=width) as child:
        options = child.rest().partition("examples:")[0]
    assert max(map(len, options.splitlines())) <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_descriptions_fit_the_window(server: FakeServer, width: int) -> None:
    tools: Any = [{"name": "tools.x.y.z", "description": f"{LONG} {LONG}"}]
    server.answers(pb.ListToolsResponse(tools=tools))
    with terminal(server, "tools", width=width) as child:
        # What is shown while it waits ends with a carriage return.
        lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", child.rest()).splitlines()
    assert child.exit_code == 0
    assert max(map(len, lines)) <= width
    assert " ".join(line.strip() for line in lines).endswith(f"{LONG} {LONG}")


@pytest.mark.parametrize("words", [["refine", "a.md"], ["call", "tools.x.y.z"]])
def test_control_c_tells_the_request_id(server: FakeServer, words: list[str]) -> None:
    server.answers(None)
    with terminal(server, *words) as child:
        assert server.service.asked.wait(10)
        child.send("\x03")
        seen = child.rest()
    assert child.exit_code == 130
    (request,) = server.service.requests
    assert (
        "The call may have run and may have been billed. To get its result, run the command again with "
        f"--request-id {request.request_id}." in seen
    )
    assert "Traceback" not in seen


def test_control_c_where_nothing_costs_anything(server: FakeServer) -> None:
    server.answers(None)
    with terminal(server, "status") as child:
        assert server.service.asked.wait(10)
        child.send("\x03")
        seen = child.rest()
    assert child.exit_code == 130
    assert "request-id" not in seen


def test_control_c_with_many_files(server: FakeServer) -> None:
    server.answers(None)
    with terminal(server, "refine", "*.md", "-j", "2") as child:
        assert server.service.asked.wait(10)
        while len(server.service.requests) < 2:
            server.service.asked.clear()
            server.service.asked.wait(10)
        child.send("\x03")
        seen = child.rest()
    assert child.exit_code == 130
    told = dict(re.findall(rf"agenta-ai: (\S+\.md) --request-id ({ID})", seen))
    assert set(told.values()) == {request.request_id for request in server.service.requests}
    assert "Traceback" not in seen


def test_control_c_with_many_files_loses_no_answer(loud: FakeServer) -> None:
    (refined,) = loud.service.answers
    loud.answers(refined, None)
    with terminal(loud, "refine", "*.md", "-j", "1", "--json") as child:
        child.expect("1/3")
        child.send("\x03")
        seen = child.rest()
    assert child.exit_code == 130
    assert LONG.upper() in seen
    assert "Traceback" not in seen


def test_interactive(loud: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    editor = tmp_path / "editor.py"
    editor.write_text("import sys, pathlib; file = pathlib.Path(sys.argv[1]); file.write_text('Mine.\\n')")
    monkeypatch.setenv("EDITOR", f"{sys.executable} {editor}")
    with terminal(loud, "refine", "a.md", "b.md", "c.md", "--interactive", width=200) as child:
        child.expect(QUESTION)
        child.sendline("x")
        child.expect("Type one of the letters")
        child.expect(QUESTION)
        child.sendline("r")
        child.expect("Guidelines: ")
        child.sendline("Be kind.")
        child.expect(r"\+Be kind\.")
        child.expect(QUESTION)
        child.sendline("a")
        child.expect(r"Wrote a\.md\.")
        child.expect(QUESTION)
        child.sendline("e")
        child.expect(r"\+Mine\.")
        child.expect(QUESTION)
        child.sendline("accept")
        child.expect(r"Wrote b\.md\.")
        child.expect(QUESTION)
        child.sendline("s")
        seen = child.rest()
    assert "Skipped c.md." in seen
    assert child.exit_code == 0
    assert [Path(name).read_text() for name in ("a.md", "b.md", "c.md")] == [
        f"{LONG.upper()}\nBe kind.\n",
        "Mine.\n",
        f"{LONG}\n",
    ]


@pytest.mark.parametrize("leave", ["q", "\x04"], ids=["quit", "end of input"])
def test_interactive_can_be_left(loud: FakeServer, leave: str) -> None:
    with terminal(loud, "refine", "a.md", "b.md", "--interactive") as child:
        child.expect(QUESTION)
        child.send(leave if leave == "\x04" else f"{leave}\n")
        child.rest()
    assert child.exit_code == 0
    assert len(loud.service.requests) == 1
    assert Path("a.md").read_text() == f"{LONG}\n"


def test_control_c_at_a_question(loud: FakeServer) -> None:
    with terminal(loud, "refine", "a.md", "b.md", "--interactive") as child:
        child.expect(QUESTION)
        child.send("\x03")
        seen = child.rest()
    assert child.exit_code == 130
    assert "request-id" not in seen
    assert "Traceback" not in seen
    assert Path("a.md").read_text() == f"{LONG}\n"


@pytest.mark.parametrize("words", [["refine", "a.md"], ["refine", "*.md"]], ids=["one", "many"])
def test_a_wait_is_explained(loud: FakeServer, refused: Callable[..., status_pb2.Status], words: list[str]) -> None:
    retry = error_details_pb2.RetryInfo(retry_delay={"seconds": 1})
    open_ = refused(grpc.StatusCode.UNAVAILABLE, "UPSTREAM_CIRCUIT_OPEN", "It fails: try again in 1 seconds.", retry)
    loud.answers((open_, 1000), *loud.service.answers)
    with terminal(loud, *words) as child:
        child.expect(r"agenta-ai: It fails\. Waiting 1 s\.")
        seen = child.rest()
    assert child.exit_code == 0
    assert f"+{LONG.upper()}" in seen


@pytest.mark.parametrize(
    ("editor", "complaint"),
    [
        ("no-such-editor", r"Cannot run the editor no-such-editor: No such file or directory\. Set EDITOR\."),
        ("false", r"The editor false ended with 1\. Nothing was changed\."),
        ('vi "', r"VISUAL is not a command: No closing quotation\."),
    ],
)
def test_an_editor_that_fails(loud: FakeServer, monkeypatch: pytest.MonkeyPatch, editor: str, complaint: str) -> None:
    monkeypatch.setenv("VISUAL", editor)
    with terminal(loud, "refine", "a.md", "--interactive", width=200) as child:
        child.expect(QUESTION)
        child.sendline("e")
        child.expect(complaint)
        child.expect(QUESTION)
        child.sendline("q")
        child.rest()
    assert child.exit_code == 0


def test_a_blank_editor_is_none(loud: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL", "  ")
    monkeypatch.setenv("EDITOR", "false")
    with terminal(loud, "refine", "a.md", "--interactive", width=200) as child:
        child.expect(QUESTION)
        child.sendline("e")
        child.expect("The editor false ended with 1")


@pytest.mark.parametrize(("again", "kept"), [("y", "An hour of work"), ("n", "hi")])
def test_an_edit_that_is_no_prompt_can_be_mended(
    loud: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: str, kept: str
) -> None:
    Path("a.json").write_text('[{"role": "user", "content": "hi"}]')
    # The first time, it writes a comma too many; the second time, it mends what it wrote.
    (tmp_path / "editor.py").write_text(
        "import sys, pathlib\n"
        "file = pathlib.Path(sys.argv[1])\n"
        "text = file.read_text()\n"
        "file.write_text(text.replace(',}', '}') if ',}' in text else text.replace('\"HI\"', '\"An hour of work\",'))\n"
    )
    monkeypatch.setenv("EDITOR", f"{sys.executable} {tmp_path / 'editor.py'}")
    with terminal(loud, "refine", "a.json", "--interactive", width=200) as child:
        child.expect(QUESTION)
        child.sendline("e")
        child.expect(r"a\.json is not JSON.*Edit it again, \(y\)es or \(n\)o\? ")
        child.sendline(again)
        child.expect(QUESTION)
        child.sendline("a")
        child.rest()
    assert child.exit_code == 0
    assert json.loads(Path("a.json").read_text())[0]["content"] == (kept if again == "y" else kept.upper())


def test_a_refused_key_is_named(
    server: FakeServer, refused: Callable[..., status_pb2.Status], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTA_AI_API_KEY", "aai_expired")
    server.answers(refused(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID", "no"))
    with terminal(server, "refine", "a.md", "--interactive", width=200) as child:
        seen = child.rest()
    assert child.exit_code == 3
    assert "The server does not accept AGENTA_AI_API_KEY (or no longer does)." in seen


def test_accepting_what_cannot_be_written(loud: FakeServer, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    with terminal(loud, "refine", "a.md", "--interactive", "-o", "new/b.md", width=200) as child:
        child.expect(QUESTION)
        folder.rmdir()
        child.sendline("a")
        child.expect(r"Cannot write new/b\.md: No such file or directory\. Accept again once it can be written")
        child.expect(QUESTION)
        folder.mkdir()
        child.sendline("a")
        child.rest()
    assert child.exit_code == 0
    assert (folder / "b.md").read_text() == f"{LONG.upper()}\n"


def test_accepting_over_a_change_takes_a_second_look(loud: FakeServer) -> None:
    with terminal(loud, "refine", "a.md", "--interactive", width=200) as child:
        child.expect(QUESTION)
        Path("a.md").write_text(f"{LONG}\nMy new line.\n")
        child.sendline("a")
        child.expect(r"a\.md was changed in the meantime\.")
        child.expect(r"-My new line\.")
        child.expect(QUESTION)
        assert Path("a.md").read_text() == f"{LONG}\nMy new line.\n"
        child.sendline("a")
        child.rest()
    assert child.exit_code == 0
    assert Path("a.md").read_text() == f"{LONG.upper()}\n"


def test_a_key_is_asked_for_and_not_shown(tmp_path: Path) -> None:
    with terminal(None, "target", "add", "dev", "127.0.0.1:1") as child:
        child.expect("API key, not shown")
        while termios.tcgetattr(child.fileno())[3] & termios.ECHO:
            time.sleep(0.01)
        child.sendline("aai_s3cr3t")
        seen = child.rest()
    assert child.exit_code == 0
    assert "s3cr3t" not in seen
    saved: Any = json.loads((tmp_path / "config/agenta-ai/targets.json").read_text())
    assert saved["targets"]["dev"]["api_key"] == "aai_s3cr3t"
