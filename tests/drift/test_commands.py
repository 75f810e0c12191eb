"""``agenta-ai-server tools list``, ``diff`` and ``pull``, against the stand-in, as an operator types them."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from drift.recorded import RECORDED, deploy, project
from ops.test_process import environment as plain
from ops.test_process import output, process

from agenta_ai_server import cli
from agenta_ai_server.commands.tools import diff, proto, pull
from agenta_ai_server.commands.tools import list as listing
from agenta_ai_server.settings import SettingsError
from agenta_ai_server.standin.app import StandIn
from agenta_ai_server.standin.permissions import ROLES, Caller
from agenta_ai_server.tools.tools_file.read import read

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

KEY = "standin-key"
PROMPTS = ["capital", "capital-json", "capital-json-object", "capital-nokeys", "jp-mustache", "support-chat"]


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    async with StandIn() as standin:
        for slug in RECORDED:
            if slug != "ai-refine":
                deploy(standin, slug)
        yield standin


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tools.toml"


def environment(standin: StandIn, file: Path, **more: str) -> dict[str, str]:
    return {
        "AGENTA_AI_SERVICES_API_URL": standin.url,
        "AGENTA_API_KEY": KEY,
        "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG": "production",
        "AGENTA_AI_SERVICES_REFINE_PROMPT_KEY": "ai-refine",
        "AGENTA_AI_GRPC_TOOLS_FILE": str(file),
    } | more


async def pulled(standin: StandIn, file: Path, *applications: str, **options: Any) -> int:
    return await pull.run(environment(standin, file), pull.Options(applications=applications, **options))


async def diffed(standin: StandIn, file: Path, **options: Any) -> int:
    return await diff.run(environment(standin, file), diff.Options(**options))


def data(slug: str, **prompt: Any) -> dict[str, Any]:
    """What was recorded of an application, with changes in its prompt."""
    recorded: dict[str, Any] = RECORDED[slug]["data"]
    return {"uri": recorded["uri"], "parameters": {"prompt": {**recorded["parameters"]["prompt"], **prompt}}}


def text(file: Path) -> str:
    """What a file says; nothing if there is none."""
    return file.read_text() if file.exists() else ""


def mode(file: Path) -> int:
    """Who may do what with a file."""
    return file.stat().st_mode & 0o777


def writes(standin: StandIn) -> list[str]:
    """The requests that could have changed something."""
    return [each.path for each in standin.requests if not each.path.endswith(("query", "retrieve", "log"))]


# From nothing to a file, and what happens to it later


async def test_everything_that_is_deployed(standin: StandIn, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await pulled(standin, file, add_all=True) == 0
    tools = {tool.application: tool for tool in read(file)}
    # Not the refine prompt, which is a tool already.
    assert sorted(tools) == [*PROMPTS, "with-schemas"]
    assert tools["support-chat"].kind == "chat"
    assert tools["capital-json"].description == "The capital-json app"
    assert tools["capital"].name == "tools.agenta.prompts.capital"
    said = capsys.readouterr().err
    assert "Skipped: hook-app holds no prompt (agenta:custom:hook:v0), so it can't be a tool.\n" in said
    assert (
        "tools.agenta.prompts.jp_mustache: add the type of inputs, items, owner: it is an object or a list.\n" in said
    )
    assert await diffed(standin, file) == 0
    assert capsys.readouterr().out == "No differences: 7 tools compared.\n"
    assert writes(standin) == []


async def test_a_second_run_changes_nothing(standin: StandIn, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await pulled(standin, file, add_all=True)
    written = text(file)
    capsys.readouterr()
    assert await pulled(standin, file, add_all=True) == 0
    assert text(file) == written
    assert capsys.readouterr().err.splitlines()[-1] == f"No change: {file} matches what is deployed."


async def test_names_follow_the_file_and_the_options(standin: StandIn, file: Path) -> None:
    await pulled(standin, file, "capital", provider="acme", group="geo")
    await pulled(standin, file, "capital-json")
    await pulled(standin, file, "support-chat", group="support")
    assert [tool.name for tool in read(file)] == [
        "tools.acme.geo.capital",
        "tools.acme.geo.capital_json",
        "tools.acme.support.support_chat",
    ]


async def test_a_tool_of_another_environment_names_it(standin: StandIn, file: Path) -> None:
    deploy(standin, "capital", environment="staging")
    await pulled(standin, file, "capital", environment="staging")
    assert [tool.environment for tool in read(file)] == ["staging"]
    await pulled(standin, file, "capital")
    assert [(tool.name, tool.environment) for tool in read(file)] == [
        ("tools.agenta.prompts.capital", "staging"),
        ("tools.agenta.prompts.capital_2", ""),
    ]
    assert await diffed(standin, file) == 0


async def test_a_dry_run_prints_a_diff_and_writes_nothing(
    standin: StandIn, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await pulled(standin, file, "capital", dry_run=True) == 0
    out, err = capsys.readouterr()
    assert '+application = "capital"' in out
    assert err.splitlines()[-1] == "This was a dry run: nothing was written."
    assert text(file) == ""


async def test_the_file_keeps_its_mode_and_its_link(standin: StandIn, file: Path, tmp_path: Path) -> None:
    await pulled(standin, file, "capital")
    assert mode(file) == 0o644
    os.chmod(file, 0o640)
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    await pulled(standin, link, "capital-json")
    assert link.is_symlink()
    assert len(read(file)) == 2
    assert mode(file) == 0o640
    assert sorted(os.listdir(tmp_path)) == ["link.toml", "tools.toml"]


CHANGED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    # application, what is deployed now, what diff says, what pull says
    "an input more": (
        "capital",
        data("capital", input_keys=["domain", "country", "tone"]),
        "  + The input tone is new, and the tool has no argument for it.",
        "Added the argument tone, which callers may leave out.",
    ),
    "an input less": (
        "capital-nokeys",
        data("capital-nokeys", messages=[{"role": "user", "content": "{{country}}"}]),
        "  - The input domain is gone, so the argument has no effect.",
        "Not done: ",
    ),
    "an input renamed": (
        "capital-nokeys",
        data("capital-nokeys", messages=[{"role": "user", "content": "{{domain}} {{land}}"}]),
        "  ~ The input country is now called land.",
        "Not done: ",
    ),
    "another result": (
        "capital-json",
        data(
            "capital-json",
            llm_config={
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {
                        "schema": {
                            "type": "object",
                            "required": ["capital", "population"],
                            "additionalProperties": False,
                            "properties": {"capital": {"type": "string"}, "population": {"type": "string"}},
                        }
                    },
                }
            },
        ),
        "  ~ result.population has the type string, not integer.",
        "The result would allow more. --widen writes it.",
    ),
    "text in place of a result": (
        "capital-json",
        data("capital-json", llm_config={}),
        "  - The prompt answers with text now: it has no response_format, but the tool has a result.",
        "Not done: ",
    ),
    "a result in place of text": (
        "capital",
        data("capital", llm_config=RECORDED["capital-json"]["data"]["parameters"]["prompt"]["llm_config"]),
        "  + The prompt answers with JSON, but the tool has no result, so the JSON is passed on as text.",
        "Not done: ",
    ),
    "a chat": (
        "capital",
        {**RECORDED["support-chat"]["data"]},
        "  ! The application is a chat application now, but the tool has the kind completion.",
        "Not done: ",
    ),
    "a hook": (
        "support-chat",
        RECORDED["hook-app"]["data"],
        "  ! The application holds no prompt: it has the type agenta:custom:hook:v0.",
        "Not done: ",
    ),
}


@pytest.mark.parametrize("case", CHANGED)
async def test_what_was_deployed_since(
    case: str, standin: StandIn, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    slug, deployed, different, said = CHANGED[case]
    await pulled(standin, file, slug)
    deploy(standin, slug, deployed)
    capsys.readouterr()
    assert await diffed(standin, file) == 1
    out = capsys.readouterr().out
    assert different in out.splitlines()
    assert out.splitlines()[-1] == "1 of 1 tool differs from what is deployed."
    code = await pulled(standin, file)
    err = capsys.readouterr().err
    assert said in err
    assert (code == 1) == ("Not done: " in err)
    assert (await diffed(standin, file)) == code


async def test_what_agenta_says_cannot_manipulate_the_terminal(
    standin: StandIn, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await pulled(standin, file, "capital")
    deploy(standin, "capital", data("capital", input_keys=["\x1b[2J\x9b31m\u202e", "country"]))
    await diffed(standin, file)
    await pulled(standin, file, dry_run=True)
    out, err = capsys.readouterr()
    assert re.search("[\x1b\x9b\u202e]", out + err) is None
    assert r"\u001b[2J\u009b31m\u202e" in out


async def test_widening_is_done_on_request(standin: StandIn, file: Path) -> None:
    slug, deployed, *_ = CHANGED["another result"]
    await pulled(standin, file, slug)
    deploy(standin, slug, deployed)
    assert await pulled(standin, file, widen=True) == 0
    assert await diffed(standin, file) == 0


def undeployed(standin: StandIn) -> None:
    project(standin).environments["production"].commit({}, "ada")


def archived(standin: StandIn) -> None:
    project(standin).applications["capital"].archived_at = "2026-11-28T00:00:00Z"


def deleted(standin: StandIn) -> None:
    undeployed(standin)
    del project(standin).applications["capital"]


def no_environment(standin: StandIn) -> None:
    del project(standin).environments["production"]


GONE: dict[Callable[[StandIn], None], str] = {
    undeployed: "  ! capital isn't deployed to production; its newest version is 1.",
    archived: "  ! capital is archived. Agenta's web interface doesn't show it.",
    deleted: "  ! There is no application capital in the project of this key.",
    no_environment: "  ! The project of this key has no environment production.",
}


@pytest.mark.parametrize("change", GONE, ids=lambda change: change.__name__)
async def test_what_is_gone(
    change: Callable[[StandIn], None], standin: StandIn, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await pulled(standin, file, "capital")
    change(standin)
    capsys.readouterr()
    assert await diffed(standin, file) == 1
    assert GONE[change] in capsys.readouterr().out.splitlines()
    before = text(file)
    assert await pulled(standin, file) == 1
    assert text(file) == before


async def test_differences_as_json(standin: StandIn, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await pulled(standin, file, "capital", "capital-json")
    deploy(standin, "capital", data("capital", input_keys=["domain", "country", "tone"]))
    capsys.readouterr()
    assert await diffed(standin, file, as_json=True) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"] is False
    assert [(each["name"], each["version"], len(each["differences"])) for each in printed["tools"]] == [
        ("tools.agenta.prompts.capital", "2", 1),
        ("tools.agenta.prompts.capital_json", "1", 0),
    ]
    assert printed["tools"][0]["differences"][0]["drift"] == "input_added"
    assert await diffed(standin, file, names=("tools.agenta.prompts.capital_json",)) == 0


# What can't be pulled


async def test_what_is_no_tool(standin: StandIn, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = data("capital", template_format="mustache", messages=[{"role": "user", "content": "{{#a}}"}])
    deploy(standin, "broken", broken)
    assert await pulled(standin, file, "hook-app", "nope", "broken", "capital") == 1
    err = capsys.readouterr().err
    assert "Not done: hook-app holds no prompt (agenta:custom:hook:v0), so it can't be a tool." in err
    assert "Not done: nope isn't deployed to production. Correct the slug, or deploy it in Agenta." in err
    assert "Not done: broken: One of its texts can't be rendered: " in err
    assert [tool.application for tool in read(file)] == ["capital"]


@pytest.mark.parametrize(
    ("more", "given", "fault"),
    [
        ({"AGENTA_AI_GRPC_TOOLS_FILE": ""}, {}, "AGENTA_AI_GRPC_TOOLS_FILE: is missing."),
        ({}, {}, "has no tools yet. Name the applications to add, or add all with --all."),
        ({"AGENTA_AI_SERVICES_ENVIRONMENT_SLUG": ""}, {"add_all": True}, "_ENVIRONMENT_SLUG: is missing."),
        ({"AGENTA_API_KEY": ""}, {"add_all": True}, "AGENTA_API_KEY: is missing."),
        ({"AGENTA_AI_SERVICES_API_URL": ""}, {"add_all": True}, "AGENTA_AI_SERVICES_API_URL: is missing."),
    ],
)  # fmt: skip
async def test_what_is_missing(
    more: dict[str, str], given: dict[str, Any], fault: str, standin: StandIn, file: Path
) -> None:
    with pytest.raises(SettingsError) as refused:
        await pull.run(environment(standin, file, **more), pull.Options(**given))
    (found,) = refused.value.faults
    assert fault in found


async def test_the_key_of_the_server_is_enough(standin: StandIn, file: Path) -> None:
    standin.permissions.callers = {f"ApiKey {KEY}": Caller(actions=ROLES["viewer"])}
    own = environment(standin, file, AGENTA_API_KEY="", AGENTA_AI_SERVICES_API_KEY=KEY)
    assert await pull.run(own, pull.Options(applications=("capital",))) == 0
    assert await diff.run(own, diff.Options()) == 0


async def test_agenta_cannot_be_read(standin: StandIn, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await pulled(standin, file, "capital")
    own = environment(standin, file, AGENTA_API_KEY="nope.deadbeef")
    assert await diff.run(own, diff.Options()) == 2
    assert await pull.run(own, pull.Options()) == 2
    err = capsys.readouterr().err
    assert "agenta-ai-server tools diff: Agenta doesn't know this API key." in err
    assert "agenta-ai-server tools pull: Agenta doesn't know this API key." in err
    assert "deadbeef" not in err


@pytest.fixture
def faulty(file: Path) -> Path:
    file.write_text('[tools."nonsense"]\n')
    return file


async def test_a_file_with_faults_is_left_alone(standin: StandIn, faulty: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        await pulled(standin, faulty, "capital")
    assert refused.value.faults[0].startswith(f"{faulty}: line 1: ")
    assert text(faulty) == '[tools."nonsense"]\n'


async def test_a_folder_that_cannot_be_written(
    standin: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await pulled(standin, tmp_path / "none" / "tools.toml", "capital") == 2
    assert "agenta-ai-server tools pull: can't write " in capsys.readouterr().err


# The program


async def test_the_list(standin: StandIn, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await pulled(standin, file, "capital", "support-chat")
    capsys.readouterr()
    assert listing.run({}, file) == 0
    assert capsys.readouterr().out.splitlines() == [
        "NAME                               APPLICATION   KIND        ARGUMENTS         RESULT  PERMISSION   EXAMPLES",
        "tools.agenta.prompts.capital       capital       completion  domain country    text    run_service  0",
        "tools.agenta.prompts.support_chat  support-chat  chat        company messages  text    run_service  0",
    ]
    assert listing.run({}, file, as_json=True) == 0
    assert [each["kind"] for each in json.loads(capsys.readouterr().out)] == ["completion", "chat"]


async def test_the_list_of_a_file_without_tools(tmp_path: Path) -> None:
    file = tmp_path / "tools.toml"
    async with process("tools", "list", "--file", str(file), **plain()) as started:
        assert await output(started) == (
            2,
            "",
            f"agenta-ai-server tools:\n  can't read {file}: No such file or directory\n",
        )
    file.write_text("")
    async with process("tools", "list", "--file", str(file), **plain()) as started:
        assert await output(started) == (0, "The file has no tools.\n", "")


@pytest.mark.parametrize("command", ["list", "diff", "pull", "test"])
def test_the_help_has_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["tools", command, "--help"])
    assert f"examples:\n  agenta-ai-server tools {command}" in capsys.readouterr().out


async def test_typed_methods_that_changed_since_the_lock_file(
    standin: StandIn, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await pulled(standin, file, "capital")
    assert proto.run({}, proto.Options(file=file)) == 0
    assert await diffed(standin, file) == 0
    capsys.readouterr()
    lock = file.with_suffix(".lock")
    lock.write_text(lock.read_text().replace('"type": "string"', '"type": "int64"', 1))
    assert await diffed(standin, file) == 1
    out = capsys.readouterr().out
    assert "  ! tools.agenta.prompts.capital: arguments." in out
    assert "Its type was int64 and is string." in out
    assert await diffed(standin, file, as_json=True) == 1
    printed = json.loads(capsys.readouterr().out)
    assert (printed["ok"], [each["breaking"] for each in printed["typed"]]) == (False, [True])
