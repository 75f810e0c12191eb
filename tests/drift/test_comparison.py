"""How a tool and its deployed prompt differ, for each way in which they can."""

from __future__ import annotations

from typing import Any

import pytest
from drift.recorded import RECORDED, prompt_revision, revision, tool

from agenta_ai_server.agenta.deployments import ApplicationState
from agenta_ai_server.agenta.management import Application, Environment
from agenta_ai_server.tools.drift.comparison import Drift, differences, state_differences
from agenta_ai_server.tools.drift.deployed import read_deployed

TWO = 'properties.domain.type = "string"\nproperties.country.type = "string"\n'
CONVERSATION = 'properties.messages.type = "array"\n'
CAPITAL = '[tools."tools.acme.geo.capital".result.properties]\ncapital.type = "string"\npopulation.type = "integer"\n'
REQUIRED = '[tools."tools.acme.geo.capital".result]\nrequired = ["capital", "population"]\ntype = "object"\n'
JSON = f"{REQUIRED}additionalProperties = false\n{CAPITAL}"


def file(arguments: str, rest: str = "", **keys: str) -> str:
    own = "".join(f'{key} = "{each}"\n' for key, each in keys.items())
    head = '[tools."tools.acme.geo.capital"]\napplication = "capital"\ndescription = "x"\n'
    return f'{head}{own}[tools."tools.acme.geo.capital".arguments]\ntype = "object"\n{arguments}{rest}'


FITTING = {
    "capital": file(TWO),
    "capital-nokeys": file(TWO),
    "capital-json": file(TWO, JSON),
    "capital-json-object": file(TWO, REQUIRED),
    "support-chat": file(f'{CONVERSATION}properties.company.type = "string"\n'),
    "jp-mustache": file("properties = { items = {}, owner = {}, inputs = {}, name = {} }\n"),
    "with-schemas": file(TWO),
}


@pytest.mark.parametrize("slug", FITTING)
def test_what_fits(slug: str) -> None:
    assert differences(tool(FITTING[slug]), read_deployed(revision(RECORDED[slug]))) == []


DRIFTED: dict[str, tuple[str, str, list[tuple[Drift, str]]]] = {
    # what was deployed when the file was written, what is deployed now, and how they differ
    "lost an input": (
        "capital",
        file(f'{TWO}properties.language.type = "string"\n'),
        [(Drift.INPUT_REMOVED, "The input language is gone, so the argument has no effect.")],
    ),
    "gained an input": (
        "capital",
        file('properties.domain.type = "string"\n'),
        [(Drift.INPUT_ADDED, "The input country is new, and the tool has no argument for it.")],
    ),
    "renamed an input": (
        "capital-nokeys",
        file('properties.domain.type = "string"\nproperties.city.type = "string"\n'),
        [(Drift.INPUT_RENAMED, "The input city is now called country.")],
    ),
    "lost two and gained one": (
        "with-schemas",
        file("properties = { domain = {}, a = {}, b = {} }\n"),
        [
            (Drift.INPUT_ADDED, "The input country is new, and the tool has no argument for it."),
            (Drift.INPUT_REMOVED, "The input a is gone, so the argument has no effect."),
            (Drift.INPUT_REMOVED, "The input b is gone, so the argument has no effect."),
        ],
    ),
    "changed its output schema": (
        "capital-json",
        file(TWO, JSON.replace('"integer"', '"string"')),
        [(Drift.RESULT_CHANGED, "result.population has the type integer, not string.")],
    ),
    "gained an output schema": (
        "capital-json",
        file(TWO),
        [
            (
                Drift.RESULT_ADDED,
                "The prompt answers with JSON, but the tool has no result, so the JSON is passed on as text.",
            )
        ],
    ),
    "lost its output schema": (
        "capital",
        file(TWO, JSON),
        [
            (
                Drift.RESULT_REMOVED,
                "The prompt answers with text now: it has no response_format, but the tool has a result.",
            )
        ],
    ),
    "became a chat": (
        "support-chat",
        file('properties.company.type = "string"\n'),
        [(Drift.KIND_CHANGED, "The application is a chat application now, but the tool has the kind completion.")],
    ),
    "became a completion": (
        "capital",
        file(f"{TWO}{CONVERSATION}", kind="chat"),
        [(Drift.KIND_CHANGED, "The application is a completion application now, but the tool has the kind chat.")],
    ),
    "lost an input of a chat": (
        "support-chat",
        file(f"{CONVERSATION}properties.company = {{}}\nproperties.tone = {{}}\n"),
        [(Drift.INPUT_REMOVED, "The input tone is gone, so the argument has no effect.")],
    ),
    "became a hook": (
        "hook-app",
        file("properties.q = {}\n"),
        [(Drift.KIND_CHANGED, "The application holds no prompt: it has the type agenta:custom:hook:v0.")],
    ),
    "became code": (
        "code-app",
        file("properties.q = {}\n"),
        [(Drift.KIND_CHANGED, "The application holds no prompt: it has the type agenta:custom:code:v0.")],
    ),
    "lost an item of a list": (
        "jp-mustache",
        file("properties = { items = {}, owner = {}, inputs = {}, price = {} }\n"),
        [(Drift.INPUT_REMOVED, "The input price is gone, so the argument has no effect.")],
    ),
    "JSON without a schema": ("capital-json-object", file(TWO), []),
}


@pytest.mark.parametrize("case", DRIFTED)
def test_drift(case: str) -> None:
    slug, text, expected = DRIFTED[case]
    found = differences(tool(text), read_deployed(revision(RECORDED[slug])))
    assert [(difference.drift, difference.text) for difference in found] == expected
    assert all(difference.remedy.endswith(".") for difference in found)


def deployed(content: str, template_format: str = "curly") -> Any:
    prompt = {"messages": [{"role": "user", "content": content}], "template_format": template_format}
    return read_deployed(prompt_revision(prompt))


def test_the_feedback_is_an_input() -> None:
    with_feedback = tool(file("properties.text = {}\n", feedback="mistakes"))
    assert differences(with_feedback, deployed("{{text}} {{mistakes}}")) == []
    (found,) = differences(with_feedback, deployed("{{text}}"))
    assert (found.drift, found.name) == (Drift.INPUT_REMOVED, "mistakes")


def test_a_prompt_that_agenta_cannot_render() -> None:
    (found,) = differences(tool(file(TWO)), deployed("{{#a}}", "mustache"))
    assert found.drift is Drift.CANNOT_RUN
    assert found.text.startswith("One of its texts can't be rendered: ")


APPLICATION, ARCHIVED = Application("1", "capital", "2"), Application("1", "capital", "2", is_archived=True)
PRODUCTION = Environment("3", "production", "4")
CAPITAL_1 = revision(RECORDED["capital"])


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (ApplicationState(APPLICATION, PRODUCTION, CAPITAL_1, CAPITAL_1), []),
        (
            ApplicationState(APPLICATION, None, None, CAPITAL_1),
            [(Drift.NO_ENVIRONMENT, "The project of this key has no environment production.")],
        ),
        (
            ApplicationState(None, PRODUCTION, None, None),
            [(Drift.NO_APPLICATION, "There is no application capital in the project of this key.")],
        ),
        (
            ApplicationState(APPLICATION, PRODUCTION, None, CAPITAL_1),
            [(Drift.NOT_DEPLOYED, "capital isn't deployed to production; its newest version is 1.")],
        ),
        (
            ApplicationState(ARCHIVED, PRODUCTION, CAPITAL_1, CAPITAL_1),
            [(Drift.ARCHIVED, "capital is archived. Agenta's web interface doesn't show it.")],
        ),
        (
            ApplicationState(ARCHIVED, PRODUCTION, None, None),
            [
                (Drift.ARCHIVED, "capital is archived. Agenta's web interface doesn't show it."),
                (Drift.NOT_DEPLOYED, "capital isn't deployed to production."),
            ],
        ),
    ],
)
def test_states(state: ApplicationState, expected: list[tuple[Drift, str]]) -> None:
    found = state_differences(tool(file(TWO)), state, "production")
    assert [(difference.drift, difference.text) for difference in found] == expected
