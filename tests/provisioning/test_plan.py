"""What has to change, for each state that Agenta can be in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agenta_ai_server.agenta.deployments import ApplicationState
from agenta_ai_server.agenta.management import Application, Deployment, Environment, Revision
from agenta_ai_server.provisioning.plan import CannotProvision, Plan, Step, plan, previous
from agenta_ai_server.provisioning.wanted import refine_prompt
from agenta_ai_server.tools.refine_prompt import prompt

if TYPE_CHECKING:
    from collections.abc import Mapping

WANTED = refine_prompt("ai-refine", "production", "gpt-4o-mini")
APPLICATION = Application("1", "ai-refine", "2")
ARCHIVED = Application("1", "ai-refine", "2", is_archived=True)
PRODUCTION = Environment("3", "production", "4")
THEIRS = {"prompt": {"messages": [{"role": "user", "content": "Refine {{it}}"}]}}


def revision(version: str, parameters: Mapping[str, Any], uri: str = prompt.URI) -> Revision:
    return Revision(f"id-{version}", version, "", "", "", uri, parameters, frozenset())


OURS = revision("1", WANTED.parameters)
OTHER_MODEL = revision("1", prompt.parameters("gpt-4o"))
WITHOUT_URI = revision("1", WANTED.parameters, uri="")
FOREIGN = revision("1", THEIRS)
EMPTY = revision("0", {})

CREATE, COMMIT, DEPLOY = (Step.CREATE, Step.DEPLOY), (Step.COMMIT, Step.DEPLOY), (Step.DEPLOY,)


@pytest.mark.parametrize(
    ("found", "steps"),
    [
        pytest.param(ApplicationState(None, PRODUCTION, None, None), CREATE, id="nothing"),
        pytest.param(ApplicationState(APPLICATION, PRODUCTION, OURS, OURS), (), id="up to date"),
        pytest.param(
            ApplicationState(APPLICATION, PRODUCTION, OURS, revision("2", THEIRS)), (), id="newer one not deployed"
        ),
        pytest.param(ApplicationState(APPLICATION, PRODUCTION, None, OURS), DEPLOY, id="committed and not deployed"),
        pytest.param(ApplicationState(APPLICATION, PRODUCTION, None, EMPTY), COMMIT, id="created and not committed"),
        pytest.param(ApplicationState(APPLICATION, PRODUCTION, OTHER_MODEL, OTHER_MODEL), COMMIT, id="another model"),
        pytest.param(
            ApplicationState(APPLICATION, PRODUCTION, OTHER_MODEL, revision("2", WANTED.parameters)),
            DEPLOY,
            id="newer one",
        ),
        pytest.param(
            ApplicationState(APPLICATION, PRODUCTION, WITHOUT_URI, WITHOUT_URI), COMMIT, id="without its type"
        ),
    ],
)
def test_steps(found: ApplicationState, steps: tuple[Step, ...]) -> None:
    assert plan(WANTED, found).steps == steps


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (
            ApplicationState(APPLICATION, None, OURS, OURS),
            "The project of this API key has no environment 'production'.",
        ),
        (ApplicationState(ARCHIVED, PRODUCTION, OURS, OURS), "The application 'ai-refine' is archived."),
    ],
)
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_cant_be_done(found: ApplicationState, text: str, overwrite: bool) -> None:
    with pytest.raises(CannotProvision) as refused:
        plan(WANTED, found, overwrite=overwrite)
    assert str(refused.value) == text
    assert not refused.value.diff


@pytest.mark.parametrize(
    "found",
    [
        ApplicationState(APPLICATION, PRODUCTION, FOREIGN, FOREIGN),
        ApplicationState(APPLICATION, PRODUCTION, None, FOREIGN),
    ],
)
def test_a_prompt_that_it_didnt_make_is_replaced_only_on_request(found: ApplicationState) -> None:
    with pytest.raises(CannotProvision, match=r"wasn't made by agenta-ai-server provision\.") as refused:
        plan(WANTED, found)
    assert '-        "content": "Refine {{it}}",' in refused.value.diff
    assert "--overwrite" in refused.value.remedy
    assert plan(WANTED, found, overwrite=True) == Plan(COMMIT, refused.value.diff)


def test_the_diff_shows_the_lines_of_texts() -> None:
    parameters = prompt.parameters("gpt-4o")
    diff = plan(WANTED, ApplicationState(APPLICATION, PRODUCTION, OTHER_MODEL, OTHER_MODEL)).diff
    assert [line for line in diff.splitlines() if line[:1] in "+-"] == [
        "--- ai-refine version 1 (deployed)",
        f"+++ refine prompt {prompt.version()}",
        '-      "model": "gpt-4o",',
        '+      "model": "gpt-4o-mini",',
    ]
    parameters["prompt"]["messages"][0]["content"] += "\nBe kind."
    changed = revision("2", parameters)
    diff = plan(WANTED, ApplicationState(APPLICATION, PRODUCTION, changed, changed), overwrite=True).diff
    assert '-          "Be kind."' in diff


def deployments(*versions: str) -> list[Deployment]:
    return [Deployment("", "", "", f"id-{version}" if version else "", version) for version in versions]


@pytest.mark.parametrize(
    ("history", "version"),
    [
        (("3", "2", "1"), "2"),
        (("3", "3", "3", "1"), "1"),
        (("3", "", "1"), "1"),
        (("3", "2", "3"), "2"),
    ],
)
def test_what_was_deployed_before(history: tuple[str, ...], version: str) -> None:
    found = ApplicationState(APPLICATION, PRODUCTION, revision("3", THEIRS), None)
    assert previous(found, "production", deployments(*history)) == version


def test_what_was_undeployed_can_be_deployed_again() -> None:
    assert previous(ApplicationState(APPLICATION, PRODUCTION, None, None), "production", deployments("", "2")) == "2"


@pytest.mark.parametrize("history", [(), ("3",), ("3", "3", "")])
def test_nothing_was_deployed_before(history: tuple[str, ...]) -> None:
    with pytest.raises(CannotProvision, match="No other version was deployed to production before"):
        previous(
            ApplicationState(APPLICATION, PRODUCTION, revision("3", THEIRS), None), "production", deployments(*history)
        )
