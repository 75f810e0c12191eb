"""The commands ``agenta-ai-server keys``, as an operator types them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from conftest import SOON, settings_for
from ops.test_output import run
from ops.test_process import environment, output, process

from agenta_ai.v1 import tool_service_pb2
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub
from agenta_ai_server import cli
from agenta_ai_server.commands import serve

if TYPE_CHECKING:
    from pathlib import Path

    from agenta_ai_server.standin.app import StandIn

FILE = "AGENTA_AI_GRPC_API_KEYS_FILE"
WHO = ("--user", "u1", "--organization", "o1", "--project", "p1")
KEY = re.compile(r"aai_[0-9a-z]{12}_[0-9a-f]{64}")


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the keys are, which is what the environment says."""
    path = tmp_path / "keys.json"
    monkeypatch.setenv(FILE, str(path))
    # What the command sets for its own process is this test's.
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", "false")
    return path


def keys(*arguments: str) -> int:
    try:
        return cli.main(["keys", *arguments])
    except SystemExit as exit_:
        return int(str(exit_.code))


def made(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert keys("create", *WHO, *arguments) == 0
    return capsys.readouterr().out.strip()


def listed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    assert keys("list", "--json") == 0
    rows: list[dict[str, str]] = json.loads(capsys.readouterr().out)
    return rows


async def test_the_program_prints_the_key_and_nothing_else(file: Path) -> None:
    settings = environment(AGENTA_AI_GRPC_API_KEYS_FILE=str(file))
    async with process("keys", "create", *WHO, "--permission", "edit_workflows", **settings) as started:
        code, out, err = await output(started)
    assert (code, err) == (0, "")
    assert KEY.fullmatch(out.removesuffix("\n"))
    assert os.stat(file).st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("given", "required", "said"),
    [
        ("", "", "This key may call no tool. Permissions that the tools need: edit_workflows.\n"),
        ("nonsense", "", "This key may call no tool. Permissions that the tools need: edit_workflows.\n"),
        (
            "edit_workflows",
            "run_ai_services, view_ai_services",
            "This key may call no tool. "
            "Permissions that the tools need: edit_workflows, run_ai_services, view_ai_services.\n",
        ),
        (
            "edit_workflows view edit",
            "view_ai_services",
            "No tool needs edit, view. Permissions that the tools need: edit_workflows, view_ai_services.\n",
        ),
        ("edit_workflows run_ai_services", "run_ai_services", ""),
    ],
)
def test_permissions_that_let_no_tool_be_called_or_do_not_exist_are_worth_a_word(
    given: str, required: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTA_AI_GRPC_REQUIRED_PERMISSIONS", required)
    assert keys("create", *WHO, *(f"--permission={name}" for name in given.split())) == 0
    out, err = capsys.readouterr()
    assert KEY.fullmatch(out.strip())
    assert err == said
    assert [row["permissions"] for row in listed(capsys)] == [",".join(given.split())]


def test_the_tools_of_a_file_count_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tools.toml"
    monkeypatch.setenv("AGENTA_AI_GRPC_TOOLS_FILE", str(path))
    for text, said in [
        ('[tools."tools.a.b.c"]\napplication = "a"\ndescription = "d"\npermission = "view"', ""),
        ("x = 1", "The tools file can't be used, so the key's permissions weren't compared with it"),
    ]:
        path.write_text(text)
        assert keys("create", *WHO, "--permission=view") == 0
        err = capsys.readouterr().err
        assert err.startswith(said)
        assert bool(err) is bool(said)


@pytest.mark.parametrize(
    ("redirection", "why"),
    [(">/dev/full", "No space left on device"), (">&-", "it is closed"), ("", "Broken pipe")],
    ids=["full", "closed", "unread"],
)
def test_a_key_that_nobody_saw_can_be_revoked(
    redirection: str, why: str, capsys: pytest.CaptureFixture[str], file: Path
) -> None:
    done = run(shlex.join(["keys", "create", *WHO]), redirection, AGENTA_AI_GRPC_API_KEYS_FILE=str(file))
    ((key_id, state),) = [(row["id"], row["state"]) for row in listed(capsys)]
    revoking = f"agenta-ai-server keys revoke {key_id} --file {file}"
    assert (done.returncode, state) == (1, "valid")
    assert done.stderr == (
        f"agenta-ai-server keys: key {key_id} was created, but can't be written to standard output: {why}. "
        f"Nobody has seen it, so revoke it: {revoking}\n"
    )
    assert keys(*revoking.split()[2:]) == 0
    assert [row["state"] for row in listed(capsys)] == ["revoked"]


def test_list(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    key = made(capsys, "--permission", "edit_workflows", "--permission", "view", "--plan", "pro")
    other = made(capsys, "--expires", "2100-01-31")
    assert keys("revoke", other.split("_")[1]) == 0
    rows = listed(capsys)
    assert [(row["id"], row["state"], row["permissions"], row["plan"], row["expires"]) for row in rows] == [
        (key.split("_")[1], "valid", "edit_workflows,view", "pro", "never"),
        (other.split("_")[1], "revoked", "", "", "2100-01-31T00:00:00+00:00"),
    ]
    assert keys("list") == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == list(rows[0])
    assert len(table) == 3
    written = json.dumps(rows) + "".join(table) + file.read_text()
    assert key.rpartition("_")[2] not in written
    assert json.loads(file.read_text())["keys"][0]["hash"] not in json.dumps(rows) + "".join(table)


def test_an_empty_list_is_no_error(capsys: pytest.CaptureFixture[str], file: Path) -> None:
    file.write_text('{"version": 1, "keys": []}')
    assert listed(capsys) == []


@pytest.mark.parametrize(
    ("text", "expires"),
    [
        ("90d", timedelta(days=90)),
        ("12h", timedelta(hours=12)),
        ("2100-01-31", datetime(2100, 1, 31, tzinfo=UTC)),
        ("2100-01-31T12:00", datetime(2100, 1, 31, 12, tzinfo=UTC)),
        ("2100-01-31T12:00:00Z", datetime(2100, 1, 31, 12, tzinfo=UTC)),
        ("2100-01-31T12:00:00+02:00", datetime(2100, 1, 31, 10, tzinfo=UTC)),
    ],
)
def test_expires(text: str, expires: datetime | timedelta, capsys: pytest.CaptureFixture[str]) -> None:
    made(capsys, "--expires", text)
    found = datetime.fromisoformat(listed(capsys)[0]["expires"])
    if isinstance(expires, timedelta):
        assert abs(datetime.now(UTC) + expires - found) < timedelta(minutes=1)
    else:
        assert found == expires


WRONG: list[tuple[list[str], str]] = [
    ([], "required: COMMAND"),
    (["explode"], "invalid choice"),
    (["create"], "required: --user, --organization, --project"),
    (["create", *WHO, "--user", ""], "user: String should have at least 1 character"),
    (["create", *WHO, "--expires", "soon"], "--expires: must be a period such as 90d or 12h, or a time such as"),
    (["create", *WHO, "--expires", ""], "--expires: must be a period"),
    (["create", *WHO, "--expires", "-1d"], "expected one argument"),
    (["create", *WHO, "--expires", "0d"], "expires: must be in the future"),
    (["create", *WHO, "--expires", "2001-01-01"], "expires: must be in the future"),
    (["create", *WHO, "--permission", ""], "permissions[0]: String should have at least 1 character"),
    (["create", *WHO, "--file", "/no/such/folder/keys.json"], "can't write /no/such/folder/keys.json: No such file"),
    (["list", "--file", "/no/such/file"], "can't read /no/such/file: No such file"),
    (["revoke"], "required: ID"),
    (["revoke", "000000000000"], "no key has this id"),
    (["revoke", "aai_000000000000_" + "5ec2e7" * 10 + "0000"], "no key has this id"),
    (["revoke", "000000000000", "--file", "/no/such/folder/keys.json"], "can't write /no/such/folder/keys.json"),
]


@pytest.mark.parametrize(("arguments", "why"), WRONG, ids=lambda value: " ".join(value)[:40])
def test_wrong_usage_is_one_clear_line(arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert keys(*arguments) == 2
    out, err = capsys.readouterr()
    *usage, line = err.splitlines()
    assert out == ""
    assert why in line
    assert line.startswith("agenta-ai-server keys")
    assert not usage or usage[0].startswith("usage: agenta-ai-server keys")
    assert "5ec2e7" not in err


def test_without_a_file(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FILE, " ")
    assert keys("list") == 2
    assert capsys.readouterr().err == f"agenta-ai-server keys: give the file of the keys with --file, or set {FILE}.\n"


@pytest.mark.parametrize("command", [["list"], ["create", *WHO], ["revoke", "000000000000"]])
def test_a_broken_file_is_left_alone(command: list[str], file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text('{"keys": [{"id": "')
    assert keys(*command) == 2
    assert f"{file}: Invalid JSON" in capsys.readouterr().err
    assert file.read_text() == '{"keys": [{"id": "'


def test_revoking_twice_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    key_id = made(capsys).split("_")[1]
    assert [keys("revoke", key_id), keys("revoke", key_id)] == [0, 0]
    assert capsys.readouterr() == ("", "")


async def test_a_running_server_takes_and_drops_keys(
    file: Path, standin: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_for(standin, AGENTA_AI_GRPC_AUTH="api_keys", AGENTA_AI_GRPC_API_KEYS_FILE=str(file))
    async with serve.running(settings) as address, grpc.aio.insecure_channel(address) as channel:
        stub: Any = ToolServiceStub(channel)

        async def becomes(key: str, code: grpc.StatusCode) -> None:
            async with asyncio.timeout(SOON):
                while await answer(key) is not code:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

        async def answer(key: str) -> grpc.StatusCode:
            call = stub.Status(tool_service_pb2.StatusRequest(), metadata=[("authorization", f"ApiKey {key}")])
            found: grpc.StatusCode = await call.code()
            return found

        assert listed(capsys) == [], "the server makes an empty file"
        key, other = made(capsys), made(capsys)
        await becomes(key, grpc.StatusCode.OK)
        assert keys("revoke", key.split("_")[1]) == 0
        await becomes(key, grpc.StatusCode.UNAUTHENTICATED)
        await becomes(other, grpc.StatusCode.OK)
