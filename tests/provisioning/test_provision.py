"""The command, against the stand-in: what it does there, what it prints, and how it ends."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from agenta_ai_server.commands import provision
from agenta_ai_server.commands.provision import Options
from agenta_ai_server.settings import SettingsError
from agenta_ai_server.standin.app import StandIn
from agenta_ai_server.standin.permissions import ROLES, Caller
from agenta_ai_server.tools.refine_prompt import prompt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from agenta_ai_server.standin.management import Project

KEY = "standin-key"
OPTIONS = Options(environment="production", model="gpt-4o-mini")
THEIRS: dict[str, Any] = {"prompt": {"messages": [{"role": "user", "content": "Refine {{it}}"}]}}


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    async with StandIn(app="") as standin:
        yield standin


def project(standin: StandIn) -> Project:
    return standin.management.projects[Caller().project_id]


def environment(standin: StandIn, **more: str) -> dict[str, str]:
    return {"AGENTA_AI_SERVICES_API_URL": f"{standin.url}/api", "AGENTA_API_KEY": KEY} | more


async def run(standin: StandIn, options: Options = OPTIONS) -> int:
    return await provision.run(environment(standin), options)


def versions(standin: StandIn) -> int:
    return len(project(standin).applications["ai-refine"].revisions)


def writes(standin: StandIn) -> list[str]:
    """The requests that could have changed something."""
    reading = ("query", "retrieve", "log")
    return [each.path for each in standin.requests if not each.path.endswith(reading)]


async def test_from_nothing_to_a_deployed_prompt(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run(standin) == 0
    deployed = project(standin).deployed("ai-refine", "production")
    assert deployed is not None
    assert deployed["data"] == {"uri": prompt.URI, "parameters": prompt.parameters("gpt-4o-mini")}
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        f"export AGENTA_AI_SERVICES_API_URL={standin.url}",
        "export AGENTA_AI_SERVICES_ENVIRONMENT_SLUG=production",
        "export AGENTA_AI_SERVICES_REFINE_PROMPT_KEY=ai-refine",
        "# And AGENTA_AI_SERVICES_API_KEY or its _FILE: a viewer's key is enough.",
    ]
    assert err.splitlines() == [
        "Created the application ai-refine.",
        "Deployed version 1 of ai-refine to production.",
        provision.CREDENTIAL_NOTE,
    ]


async def test_a_second_run_changes_nothing(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    await run(standin)
    out, _ = capsys.readouterr()
    standin.requests.clear()
    assert await run(standin) == 0
    again, err = capsys.readouterr()
    assert (again, err) == (out, "No change: ai-refine in production is up to date.\n")
    assert writes(standin) == []


async def test_another_model_is_a_new_version_and_a_rollback_undoes_it(
    standin: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    await run(standin)
    assert await run(standin, replace(OPTIONS, model="gpt-4o")) == 0
    deployed = project(standin).deployed("ai-refine", "production")
    assert deployed is not None
    assert (deployed["version"], prompt.model_of(deployed["data"]["parameters"])) == ("2", "gpt-4o")
    assert deployed["message"] == f"agenta-ai-server provision: refine prompt {prompt.version()}"
    capsys.readouterr()
    rollback = replace(OPTIONS, model="", rollback=True)
    assert await run(standin, replace(rollback, dry_run=True)) == 0
    assert capsys.readouterr().out == "Would deploy version 1 of ai-refine to production.\n"
    assert await run(standin, rollback) == 0
    assert "Deployed version 1 of ai-refine to production." in capsys.readouterr().err
    deployed = project(standin).deployed("ai-refine", "production")
    assert deployed is not None
    assert deployed["version"] == "1"
    assert versions(standin) == 3  # an empty one, and two of ours


@pytest.mark.parametrize("has_application", [False, True])
async def test_a_dry_run_prints_a_diff_and_changes_nothing(
    has_application: bool, standin: StandIn, capsys: pytest.CaptureFixture[str]
) -> None:
    if has_application:
        await run(standin, replace(OPTIONS, model="gpt-4o"))
        capsys.readouterr()
        standin.requests.clear()
    assert await run(standin, replace(OPTIONS, dry_run=True)) == 0
    out, err = capsys.readouterr()
    assert out.startswith("--- ")
    assert '+      "model": "gpt-4o-mini",' in out
    assert err == ""
    assert writes(standin) == []


async def test_the_prompt_of_somebody_else(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    application = project(standin).create("ai-refine", "x", {"uri": prompt.URI, "parameters": THEIRS}, "them")
    assert await run(standin) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "Refine {{it}}" in err
    assert "wasn't made by agenta-ai-server provision. Pass --overwrite" in err
    assert writes(standin) == []
    assert await run(standin, replace(OPTIONS, overwrite=True)) == 0
    assert application.revisions[-1]["data"]["parameters"] == prompt.parameters("gpt-4o-mini")


async def test_a_run_that_was_cut_short_is_continued(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    standin.permissions.callers = {f"ApiKey {KEY}": Caller(actions=ROLES["editor"])}
    assert await run(standin) == 1
    assert capsys.readouterr().err.splitlines() == [
        "Created the application ai-refine.",
        "agenta-ai-server provision: The owner of this API key may not deploy to an environment: the role in the "
        "project is too low. Use a key of a user with the developer role or higher, or have the user's role raised.",
    ]
    standin.permissions.callers = {f"ApiKey {KEY}": Caller(actions=ROLES["developer"])}
    assert await run(standin) == 0
    assert capsys.readouterr().err == "Deployed version 1 of ai-refine to production.\n"
    assert versions(standin) == 2


def archived(standin: StandIn) -> None:
    project(standin).create("ai-refine", "x", {"uri": prompt.URI, "parameters": {}}, "me").archived_at = "2026-11-28"


def no_environment(standin: StandIn) -> None:
    del project(standin).environments["production"]


def viewer(standin: StandIn) -> None:
    standin.permissions.callers = {f"ApiKey {KEY}": Caller(actions=ROLES["viewer"])}


def older_release(standin: StandIn) -> None:
    standin.lacks = frozenset({"/api/simple/applications/query"})


REFUSALS: dict[Callable[[StandIn], None], str] = {
    archived: "The application 'ai-refine' is archived. Restore it in Agenta, or choose another slug.",
    no_environment: "The project of this API key has no environment 'production'. Correct --environment",
    viewer: "The owner of this API key may not create an application: the role in the project is too low.",
    older_release: "has no management API that can read applications. Correct the address, or update Agenta to v0.96.6",
}


@pytest.mark.parametrize("plant", REFUSALS, ids=lambda plant: plant.__name__)
async def test_refusals(plant: Callable[[StandIn], None], standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    plant(standin)
    assert await run(standin) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert REFUSALS[plant] in err
    assert KEY not in err


async def test_an_unknown_key(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    assert await provision.run(environment(standin, AGENTA_API_KEY="nope.deadbeef"), OPTIONS) == 1
    err = capsys.readouterr().err
    assert "Agenta doesn't know this API key." in err
    assert "deadbeef" not in err


async def test_the_key_of_another_organization_sees_its_own_project(standin: StandIn) -> None:
    await run(standin)
    standin.permissions.callers = {f"ApiKey {KEY}": Caller(organization_id="other", project_id="other")}
    assert await run(standin) == 0
    assert standin.management.projects["other"].deployed("ai-refine", "production")


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"AGENTA_API_KEY": ""}, "AGENTA_API_KEY: is missing."),
        ({"AGENTA_API_KEY": "two words"}, "AGENTA_API_KEY: must be visible ASCII characters"),
        ({"AGENTA_AI_SERVICES_API_URL": ""}, "AGENTA_AI_SERVICES_API_URL: is missing."),
        ({"AGENTA_AI_SERVICES_API_URL": "ftp://x"}, "AGENTA_AI_SERVICES_API_URL: "),
    ],
)
async def test_what_is_wrong_with_the_settings(more: dict[str, str], fault: str, standin: StandIn) -> None:
    # The server's own key is never used, also where it is set.
    wrong = environment(standin, AGENTA_AI_SERVICES_API_KEY=KEY, **more)
    with pytest.raises(SettingsError) as refused:
        await provision.run(wrong, OPTIONS)
    assert [each.startswith(fault) for each in refused.value.faults] == [True]


async def test_the_key_from_a_file(standin: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    with_file = replace(OPTIONS, api_key_file=path)
    assert await provision.run(environment(standin, AGENTA_API_KEY=""), with_file) == 0
    path.write_text("")
    with pytest.raises(SettingsError, match="--api-key-file"):
        await provision.run(environment(standin, AGENTA_API_KEY=""), with_file)


async def test_the_application_that_the_server_is_set_to(standin: StandIn) -> None:
    await provision.run(environment(standin, AGENTA_AI_SERVICES_REFINE_PROMPT_KEY="polish"), OPTIONS)
    assert list(project(standin).applications) == ["polish"]
    await run(standin, replace(OPTIONS, application="other"))
    assert list(project(standin).applications) == ["polish", "other"]


# The program


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        (
            ["--environment", "production", "--model", "gpt-4o-mini"],
            0,
            "export AGENTA_AI_SERVICES_",
            "Deployed version 1",
        ),
        (["--environment", "production", "--model", "m", "--dry-run"], 0, "--- nothing", ""),
        (["--environment", "nowhere", "--model", "m"], 1, "", "has no environment 'nowhere'"),
        (
            ["--environment", "production"],
            2,
            "",
            "--model: is missing. Give the model as Agenta names it, or --rollback.",
        ),
        (["--model", "m"], 2, "", "the following arguments are required: --environment"),
        (["--environment", "production", "--model", "m", "--api-key-file", "/none"], 2, "", "--api-key-file: "),
    ],
)
async def test_the_program(arguments: list[str], code: int, out: str, err: str, standin: StandIn) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import sys; from agenta_ai_server.cli import main; sys.exit(main())",
        "provision",
        *arguments,
        env=environment(standin),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, complained = (each.decode() for each in await process.communicate())
    assert process.returncode == code
    assert printed.startswith(out)
    assert err in complained
    assert KEY not in printed + complained
