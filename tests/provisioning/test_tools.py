"""``agenta-ai-server provision --tools``: the prompts that a tools file ships."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from drift.recorded import project

from agenta_ai_server.commands import provision
from agenta_ai_server.commands.provision import Options
from agenta_ai_server.commands.tools import diff
from agenta_ai_server.settings import SettingsError
from agenta_ai_server.standin.app import StandIn
from agenta_ai_server.standin.permissions import ROLES, Caller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KEY = "standin-key"
FILE = """\
[tools."tools.acme.support.classify"]
application = "classify"
description = "Assigns a ticket to a queue."
prompt = "classify.prompt.toml"
arguments = { type = "object", required = ["ticket"], properties = { ticket = { type = "string" } } }

[tools."tools.acme.support.classify".result]
type = "object"
additionalProperties = false
required = ["queue"]
properties.queue = { enum = ["billing", "other"] }

[tools."tools.acme.support.chat"]
application = "support-chat"
description = "Answers customers."
prompt = "chat.prompt.toml"
[tools."tools.acme.support.chat".arguments]
type = "object"
properties = { company = { type = "string" }, messages = { type = "array" } }

[tools."tools.acme.support.theirs"]
application = "theirs"
description = "Has no prompt here."
"""
CLASSIFY = """\
model = "gpt-4o"
[[messages]]
role = "user"
content = '''
Assign this ticket to a queue:
{{ticket}}
'''
"""
CHAT = '[[messages]]\nrole = "system"\ncontent = "You support customers of {{company}}."\n'


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    async with StandIn(app="") as standin:
        yield standin


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write(tmp_path, "classify.prompt.toml", CLASSIFY)
    write(tmp_path, "chat.prompt.toml", CHAT)
    return write(tmp_path, "tools.toml", FILE)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def environment(standin: StandIn) -> dict[str, str]:
    return {"AGENTA_AI_SERVICES_API_URL": standin.url, "AGENTA_API_KEY": KEY}


async def run(standin: StandIn, file: Path, **more: Any) -> int:
    given: dict[str, Any] = {"environment": "production", "model": "gpt-4o-mini", "tools": file}
    options = Options(**(given | more))
    return await provision.run(environment(standin), options)


def deployed(standin: StandIn, application: str, environment: str = "production") -> dict[str, Any]:
    found = project(standin).deployed(application, environment)
    assert found is not None
    return found


def writes(standin: StandIn) -> list[str]:
    return [each.path for each in standin.requests if not each.path.endswith(("query", "retrieve", "log"))]


async def test_from_nothing_to_deployed_prompts(
    standin: StandIn, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run(standin, file) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"export AGENTA_AI_SERVICES_API_URL={standin.url}",
        "export AGENTA_AI_SERVICES_ENVIRONMENT_SLUG=production",
        f"export AGENTA_AI_GRPC_TOOLS_FILE={file}",
        "# And AGENTA_AI_SERVICES_API_KEY or its _FILE: a viewer's key is enough.",
    ]
    assert err.splitlines() == [
        "Created the application classify.",
        "Deployed version 1 of classify to production.",
        "Created the application support-chat.",
        "Deployed version 1 of support-chat to production.",
        provision.CREDENTIAL_NOTE,
    ]
    assert deployed(standin, "classify")["data"] == {
        "uri": "agenta:builtin:completion:v0",
        "parameters": {
            "prompt": {
                "messages": [{"role": "user", "content": "Assign this ticket to a queue:\n{{ticket}}"}],
                "template_format": "curly",
                "input_keys": ["ticket"],
                "llm_config": {
                    "model": "gpt-4o",
                    "response_format": {
                        "type": "json_schema",
                        "json_schema": {
                            "name": "acme_support_classify",
                            "strict": True,
                            "schema": {
                                "type": "object",
                                "additionalProperties": False,
                                "required": ["queue"],
                                "properties": {"queue": {"enum": ["billing", "other"]}},
                            },
                        },
                    },
                },
            }
        },
    }
    chat = deployed(standin, "support-chat")["data"]
    assert chat["uri"] == "agenta:builtin:chat:v0"
    assert chat["parameters"]["prompt"]["input_keys"] == ["company"]
    assert chat["parameters"]["prompt"]["llm_config"] == {"model": "gpt-4o-mini"}


async def test_what_was_provisioned_fits_the_file(standin: StandIn, file: Path) -> None:
    await run(standin, file)
    names = ("tools.acme.support.classify", "tools.acme.support.chat")
    assert await diff.run(environment(standin), diff.Options(file=file, names=names, environment="production")) == 0


async def test_a_second_run_changes_nothing(standin: StandIn, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await run(standin, file)
    capsys.readouterr()
    standin.requests.clear()
    assert await run(standin, file) == 0
    assert capsys.readouterr().err.splitlines() == [
        "No change: classify in production is up to date.",
        "No change: support-chat in production is up to date.",
    ]
    assert writes(standin) == []


async def test_a_changed_prompt_is_a_new_version_and_a_rollback_undoes_it(
    standin: StandIn, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await run(standin, file)
    write(file.parent, "classify.prompt.toml", CLASSIFY.replace("Assign", "Please assign"))
    capsys.readouterr()
    assert await run(standin, file, dry_run=True) == 0
    assert '+          "Please assign this ticket to a queue:",' in capsys.readouterr().out
    assert await run(standin, file) == 0
    assert (deployed(standin, "classify")["version"], deployed(standin, "support-chat")["version"]) == ("2", "1")
    rollback = {"model": "", "rollback": True, "only": ("tools.acme.support.classify",)}
    assert await run(standin, file, dry_run=True, **rollback) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "Would deploy version 1 of classify to production."
    assert await run(standin, file, **rollback) == 0
    assert deployed(standin, "classify")["version"] == "1"
    # What was rolled back to is still known to be ours.
    assert await run(standin, file) == 0
    assert deployed(standin, "classify")["version"] == "2"


async def test_only_some_of_them(standin: StandIn, file: Path) -> None:
    assert await run(standin, file, only=("tools.acme.support.chat",)) == 0
    assert list(project(standin).applications) == ["support-chat"]


async def test_the_prompt_of_somebody_else_keeps_all_from_being_deployed(
    standin: StandIn, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = {"prompt": {"messages": [{"role": "user", "content": "Sort {{ticket}}"}]}}
    project(standin).create("classify", "x", {"uri": "agenta:builtin:completion:v0", "parameters": theirs}, "them")
    assert await run(standin, file) == 1
    err = capsys.readouterr().err
    assert "Sort {{ticket}}" in err
    assert "The prompt in classify, version 1, wasn't made by agenta-ai-server provision. Pass --overwrite" in err
    assert writes(standin) == []
    assert await run(standin, file, overwrite=True) == 0
    assert deployed(standin, "classify")["version"] == "2"


async def test_what_was_edited_in_agenta_is_somebody_elses(standin: StandIn, file: Path) -> None:
    await run(standin, file)
    here = project(standin)
    application = here.applications["classify"]
    data = {"uri": "agenta:builtin:completion:v0", "parameters": {"prompt": {"messages": [{"content": "{{ticket}}"}]}}}
    here.deploy(application, application.commit(data, "them"), here.environments["production"], "them")
    assert await run(standin, file) == 1
    assert deployed(standin, "classify")["version"] == "2"


async def test_a_run_that_was_cut_short_is_continued(standin: StandIn, file: Path) -> None:
    standin.permissions.callers = {f"ApiKey {KEY}": Caller(actions=ROLES["editor"])}
    assert await run(standin, file) == 1
    standin.permissions.callers = {f"ApiKey {KEY}": Caller(actions=ROLES["developer"])}
    assert await run(standin, file) == 0
    assert (deployed(standin, "classify")["version"], deployed(standin, "support-chat")["version"]) == ("1", "1")


SUMMARIZE = """\
[tools."tools.acme.text.{name}"]
application = "summarize"
environment = "{environment}"
description = "Summarizes a text."
prompt = "{prompt}"
arguments = {{ type = "object", properties = {{ text = {{ type = "string" }} }} }}
"""


def summaries(folder: Path, *places: tuple[str, str]) -> Path:
    """A file with a tool for each environment and prompt file."""
    tools = [
        SUMMARIZE.format(name=f"tool_{number}", environment=environment, prompt=prompt)
        for number, (environment, prompt) in enumerate(places)
    ]
    write(folder, "one.toml", '[[messages]]\nrole = "user"\ncontent = "Summarize {{text}}"\n')
    write(folder, "other.toml", '[[messages]]\nrole = "user"\ncontent = "Shorten {{text}}"\n')
    return write(folder, "tools.toml", "\n".join(tools))


async def test_one_application_in_two_environments(standin: StandIn, tmp_path: Path) -> None:
    file = summaries(tmp_path, ("production", "one.toml"), ("staging", "one.toml"))
    assert await run(standin, file) == 0
    assert deployed(standin, "summarize", "staging")["id"] == deployed(standin, "summarize")["id"]
    file = summaries(tmp_path, ("production", "one.toml"), ("staging", "other.toml"))
    assert await run(standin, file) == 0
    assert deployed(standin, "summarize")["version"] == "1"
    assert deployed(standin, "summarize", "staging")["version"] == "2"


async def test_two_tools_of_one_deployment(standin: StandIn, tmp_path: Path) -> None:
    file = summaries(tmp_path, ("production", "one.toml"), ("production", "one.toml"))
    assert await run(standin, file) == 0
    file = summaries(tmp_path, ("production", "one.toml"), ("production", "other.toml"))
    with pytest.raises(SettingsError, match=r"tools\.acme\.text\.tool_0 has a different prompt for summarize"):
        await run(standin, file)


@pytest.mark.parametrize(
    ("prompt", "model", "fault"),
    [
        (CLASSIFY.replace("ticket}}", "message}}"), "", "The input ticket is now called message."),
        (CLASSIFY.replace('model = "gpt-4o"\n', ""), "", "names no model. Add model, or give one with --model."),
        ('model = "m"\n', "m", "needs [[messages]], each with role and content."),
        (f'temperature = 1\n{CLASSIFY}', "m", "has the unknown key temperature. The keys are input_keys, llm_config"),
        (f'template_format = "mako"\n{CLASSIFY}', "m", "can't be rendered: Its template format 'mako' is unknown."),
        (f"{CLASSIFY}[response_format]\ntype = 'text'\n", "m", "The prompt answers with text now"),
    ],
)  # fmt: skip
async def test_what_is_wrong_with_a_prompt_file(
    prompt: str, model: str, fault: str, standin: StandIn, file: Path
) -> None:
    write(file.parent, "classify.prompt.toml", prompt)
    with pytest.raises(SettingsError) as refused:
        await run(standin, file, model=model, only=("tools.acme.support.classify",))
    (found,) = refused.value.faults
    assert found.startswith("tools.acme.support.classify: classify.prompt.toml ")
    assert fault in found
    assert writes(standin) == []


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"application": "x"}, "--application: a tools file names the applications itself."),
        ({"tools": None, "only": ("tools.a.b.c",)}, "--only: names tools of a tools file."),
        ({"model": "", "rollback": True}, "--only: is missing. Name each tool"),
        ({"tools": None, "model": ""}, "--model: is missing."),
        ({"only": ("tools.acme.support.theirs",)}, "tools.acme.support.theirs names no prompt file. Add prompt."),
        ({"only": ("tools.acme.support.nope",)}, "has no tool tools.acme.support.nope."),
    ],
)
async def test_options_that_contradict_each_other(
    options: dict[str, Any], fault: str, standin: StandIn, file: Path
) -> None:
    with pytest.raises(SettingsError) as refused:
        await run(standin, file, **options)
    (found,) = refused.value.faults
    assert fault in found
