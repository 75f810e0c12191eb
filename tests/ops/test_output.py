"""Standard streams that are closed or full, or that nobody reads any more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ops.test_process import environment

from agenta_ai_server.commands import stdout

PROGRAM = Path(sys.executable).with_name("agenta-ai-server")
CANNOT_WRITE = "agenta-ai-server can't write to standard output: "


def run(words: str, redirection: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs ``agenta-ai-server``; the reader of its output has left, unless it is redirected."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        ["sh", "-c", f"exec {PROGRAM} {words} {redirection}"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        # Unbuffered, nothing would be left for the interpreter's exit.
        env={**environment(PYTHONUNBUFFERED=""), **settings},
    )
    os.close(writing)
    return done


@pytest.mark.parametrize("words", ["config", "check", "keys list", "dev --listen 127.0.0.1:0", "--help"])
@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (">/dev/full", 2, f"{CANNOT_WRITE}No space left on device.\n"),
        (">&-", 2, f"{CANNOT_WRITE}it is closed.\n"),
        ("", 141, ""),
    ],
    ids=["full", "closed", "unread"],
)
def test_what_cannot_be_printed_is_told_in_one_line(
    words: str, redirection: str, code: int, said: str, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text('{"version": 1, "keys": []}')
    done = run(words, redirection, AGENTA_AI_GRPC_API_KEYS_FILE=str(keys))
    told = "".join(line for line in done.stderr.splitlines(keepends=True) if "INFO" not in line)
    assert (done.returncode, told) == (code, said)


@pytest.mark.parametrize("redirection", ["<&-", ">&-", "2>&-"])
def test_the_place_of_a_closed_stream_is_not_taken_by_a_socket(redirection: str) -> None:
    done = run("dev --listen 127.0.0.1:0 -- true", redirection)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_terminal_without_the_character_is_shown_its_number() -> None:
    done = run("config", ">/dev/null", PYTHONIOENCODING="ascii:strict", AGENTA_AI_SERVICES_ENVIRONMENT_SLUG="pröd")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("text", "said", "reported"),
    [
        ("a\tb é\n- c", "a\tb é\n- c", "a\tb é\\n- c"),
        ("\x1b[2J\x9b31m\r", r"\u001b[2J\u009b31m\u000d", r"\u001b[2J\u009b31m\u000d"),
        ("a\u202eb\u2028c\U000e0041", r"a\u202eb\u2028c\udb40\udc41", r"a\u202eb\u2028c\udb40\udc41"),
    ],
)
def test_nothing_manipulates_the_terminal(
    capsys: pytest.CaptureFixture[str], text: str, said: str, reported: str
) -> None:
    stdout.say(text)
    stdout.report(text)
    assert capsys.readouterr() == (f"{said}\n", f"{reported}\n")
    stdout.say(json.dumps([text], ensure_ascii=False))
    assert json.loads(capsys.readouterr().out) == [text]
