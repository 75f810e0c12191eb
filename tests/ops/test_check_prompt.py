"""What ``check`` says of the deployed prompt: for each fault that was recorded, its cause and its remedy."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from calls import refine
from conftest import connected, settings_for

from agenta_ai_server.checks import refine_prompt
from agenta_ai_server.standin import answers
from agenta_ai_server.standin.app import StandIn, in_turn
from agenta_ai_server.standin.permissions import ROLES, Caller
from agenta_ai_server.tools.refine_prompt import prompt

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from agenta_ai_server.checks.shared import Found
    from agenta_ai_server.standin.management import Project

KEY = "standin-key"
APP = "ai-refine"
RECORDED = {each["case"]: each for each in json.loads(Path("tests/data/misconfigured_apps.json").read_text("utf-8"))}


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    async with StandIn(app="") as standin:
        yield standin


def project(standin: StandIn, project_id: str = Caller().project_id) -> Project:
    return standin.management.projects[project_id]


def deploy(standin: StandIn, data: dict[str, Any], environment: str = "production") -> None:
    here = project(standin)
    application = here.create(APP, "x", data, "ada")
    here.deploy(application, application.revisions[-1], here.environments[environment], "ada")


def ours(model: str = "gpt-4o-mini") -> dict[str, Any]:
    return {"uri": prompt.URI, "parameters": prompt.parameters(model)}


async def found(standin: StandIn) -> list[Found]:
    return [each async for each in refine_prompt.deployment(settings_for(standin))]


async def tried(standin: StandIn) -> list[Found]:
    return [each async for each in refine_prompt.refinement(settings_for(standin))]


# Each row of tests/data/misconfigured_apps.json: what reading it says, and what running it says.


@dataclass(frozen=True)
class Expected:
    """State, and parts of the sentence and of the remedy; of what was read, and of what a call says."""

    read: tuple[str, str, str]
    called: tuple[str, str, str] = ("ok", "guidelines and context had an effect", "")


OK = ("ok", "a prompt other than the shipped one", "")
WRONG_INPUTS = Expected(
    ("failed", "inputs that the service doesn't send: prompt, rules", "provision --overwrite, or give the prompt"),
    ("failed", "UPSTREAM_MISCONFIGURED: ", "remedy for the prompt above"),
)
NO_CREDENTIAL = ("failed", "Agenta says: “No API key found for model", "Add the key of the model's provider")
MISCONFIGURED = {
    "wrong-inputs": WRONG_INPUTS,
    "wrong-inputs-nokeys": WRONG_INPUTS,
    "ignores-inputs": Expected(
        ("failed", "never shows the model the template", "put __ag_prompt_template_json into a message"),
        ("failed", "UPSTREAM_OUTPUT_INVALID: ", "docs/errors.md"),
    ),
    "no-guidelines": Expected(
        ("warning", "ignores what callers ask for: no text uses __ag_guidelines and __ag_context", "into a message"),
        ("warning", "its guidelines had no effect", "__ag_guidelines in a message"),
    ),
    "no-rf": Expected(("warning", "no response_format", "set a JSON schema")),
    "no-provider-key": Expected(OK, NO_CREDENTIAL),
    "gpt-nope": Expected(OK, NO_CREDENTIAL),
    "trap-name": Expected(
        ("failed", "Its own text has the variable name, which gets no value", "describe variables in words"),
        ("failed", "Agenta says: “Error in messages[0].content: Unreplaced variables", "remedy for the prompt above"),
    ),
    "refine-mustache": Expected(OK),
    "refine-mustache-escaped": Expected(OK),
    "refine-jinja2": Expected(OK),
    "refine-fstring": Expected(OK),
    "as-chat": Expected(("warning", "It is a chat application", "Deploy a completion application")),
    "bad-provider-key": Expected(
        OK, ("failed", "Agenta says: “litellm.AuthenticationError", "Renew the key of the model's provider")
    ),
    "good-custom-provider": Expected(OK),
}


def test_there_is_an_expectation_for_each_recorded_row() -> None:
    assert set(MISCONFIGURED) == set(RECORDED)


@pytest.mark.parametrize("case", MISCONFIGURED)
async def test_reading_what_is_deployed_tells_the_cause(case: str, standin: StandIn) -> None:
    deploy(standin, RECORDED[case]["data"])
    check(await found(standin), MISCONFIGURED[case].read)
    assert standin.started == 0


@pytest.mark.parametrize("case", MISCONFIGURED)
async def test_running_it_tells_the_cause(case: str, standin: StandIn) -> None:
    """As Agenta answered when it was recorded, where it failed; else as the stand-in answers."""
    deploy(standin, RECORDED[case]["data"])
    run = RECORDED[case]["run"]
    if run["status"] != 200:
        standin.respond = in_turn(answers.of_json(run["status"], run["answer"]))
    check(await tried(standin), MISCONFIGURED[case].called)


@pytest.mark.parametrize("case", [case for case in RECORDED if RECORDED[case]["run"]["status"] != 200])
async def test_callers_never_read_what_agenta_says(case: str, standin: StandIn) -> None:
    deploy(standin, RECORDED[case]["data"])
    run = RECORDED[case]["run"]
    standin.respond = in_turn(answers.of_json(run["status"], run["answer"]))
    async with connected(settings_for(standin)) as stub:
        response = await stub.CallTool(refine(), timeout=30)
    assert response.is_error
    # Four words in a row of Agenta's sentence would be a quotation.
    words = run["answer"]["status"]["message"].split()
    told = str(response)
    assert not [words[at : at + 4] for at in range(len(words) - 3) if " ".join(words[at : at + 4]) in told]


@pytest.mark.parametrize(
    "case", ["wrong-inputs", "wrong-inputs-nokeys", "ignores-inputs", "trap-name", "no-guidelines"]
)
async def test_the_stand_in_fails_as_agenta_did(case: str, standin: StandIn) -> None:
    deploy(standin, RECORDED[case]["data"])
    check(await tried(standin), MISCONFIGURED[case].called)


def check(findings: list[Found], expected: tuple[str, str, str]) -> None:
    """The worst finding comes first; a prompt may have several flaws."""
    state, said, remedy = expected
    assert findings[0].state == state, findings
    assert said in findings[0].said
    assert remedy in findings[0].remedy
    assert all(each.said.endswith((".", "”")) for each in findings)
    assert KEY not in str(findings)


# What isn't deployed


def nothing(standin: StandIn) -> None:
    """An empty project."""


def elsewhere(standin: StandIn) -> None:
    deploy(standin, ours(), "staging")


def no_environment(standin: StandIn) -> None:
    deploy(standin, ours())
    del project(standin).environments["production"]


def another_organization(standin: StandIn) -> None:
    deploy(standin, ours())
    standin.permissions.callers = {f"ApiKey {KEY}": Caller(project_id="p-1", organization_id="o-1")}


def archived(standin: StandIn) -> None:
    deploy(standin, ours(), "staging")
    project(standin).applications[APP].archived_at = "2026-11-28"


def archived_and_deployed(standin: StandIn) -> None:
    deploy(standin, ours())
    project(standin).applications[APP].archived_at = "2026-11-28"


def hook(standin: StandIn) -> None:
    deploy(standin, {"uri": "agenta:custom:hook:v0"})


def forbidden(standin: StandIn) -> None:
    deploy(standin, ours())
    standin.permissions.callers = {f"ApiKey {KEY}": Caller(actions=frozenset({"run_service"}))}


def older_release(standin: StandIn) -> None:
    standin.lacks = frozenset({"/api/simple/applications/query"})


PROJECT, ORGANIZATION = Caller().project_id, Caller().organization_id
MAKE = "provision --environment production --application ai-refine --model MODEL"
ABSENT: dict[Callable[[StandIn], None], tuple[str, str, str]] = {
    nothing: (
        "failed",
        f"no application 'ai-refine' in the project of this key ({PROJECT} of the organization {ORGANIZATION})",
        MAKE,
    ),
    elsewhere: ("failed", "ai-refine isn't deployed to production; its newest version is 1.", MAKE),
    no_environment: ("failed", "has no environment 'production'", "Correct AGENTA_AI_SERVICES_ENVIRONMENT_SLUG"),
    another_organization: ("failed", "(p-1 of the organization o-1)", "use a key of the project that has it"),
    archived: ("failed", "is archived, and isn't deployed", "Restore it in Agenta"),
    archived_and_deployed: ("warning", "ai-refine is archived. It still runs", "Restore it in Agenta"),
    hook: (
        "failed",
        "It holds no prompt: the application has the type agenta:custom:hook:v0.",
        "completion application",
    ),
    forbidden: ("failed", "may not read applications: the role in the project is too low", "the viewer role or higher"),
    older_release: ("ok", "can't be read from Agenta before v0.96.6", ""),
}


@pytest.mark.parametrize("plant", ABSENT, ids=lambda plant: plant.__name__)
async def test_what_isnt_deployed(plant: Callable[[StandIn], None], standin: StandIn) -> None:
    plant(standin)
    check(await found(standin), ABSENT[plant])


async def test_what_is_deployed_by_whom_and_when(standin: StandIn) -> None:
    deploy(standin, ours())
    here = project(standin)
    application, where = here.applications[APP], here.environments["production"]
    where.revisions[-1]["date"] = "2026-11-28T15:55:27.070936Z"
    # What is deployed besides doesn't change that.
    here.deploy(application, application.revisions[-1], where, "eve")
    (said,) = await found(standin)
    assert said.said == (
        "production runs ai-refine version 1, the shipped prompt 1, with the model gpt-4o-mini; deployed at 2026-11-28 "
        "15:55 UTC by the user ada."
    )


async def test_a_viewers_key_is_enough(standin: StandIn) -> None:
    deploy(standin, ours())
    standin.permissions.callers = {f"ApiKey {KEY}": Caller(actions=ROLES["viewer"])}
    assert [each.state for each in await found(standin) + await tried(standin)] == ["ok", "ok"]


async def test_the_shipped_prompt_is_fine(standin: StandIn) -> None:
    deploy(standin, ours())
    (said,) = await tried(standin)
    assert said.said == "A prompt was refined, and its guidelines and context had an effect."
