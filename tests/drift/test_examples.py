"""``agenta-ai-server tools test``: by the stand-in, and for real, with another stand-in in place of Agenta."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from drift.recorded import deploy

from agenta_ai_server.commands.tools import test
from agenta_ai_server.settings import SettingsError
from agenta_ai_server.standin.app import StandIn, in_turn
from agenta_ai_server.standin.faults import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

EXAMPLES = Path("examples/tools.toml")
CAPITAL = """\
[tools."tools.acme.geo.capital"]
application = "capital-json"
description = "Finds the capital of a country."

[tools."tools.acme.geo.capital".arguments]
type = "object"
required = ["domain", "country"]
properties = { domain = { type = "string" }, country = { type = "string" } }

[tools."tools.acme.geo.capital".result]
type = "object"
required = ["capital", "population"]
properties = { capital = { type = "string" }, population = { type = "integer" } }

[[tools."tools.acme.geo.capital".examples]]
arguments = { domain = "geography", country = "France" }
result = { capital = "Paris", population = 2102650 }

[[tools."tools.acme.geo.capital".examples]]
arguments = { domain = "geography", country = "Malta" }

[tools."tools.acme.geo.other"]
application = "other"
description = "Has no example."
"""
NAME = "tools.acme.geo.capital"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tools.toml"
    path.write_text(CAPITAL)
    return path


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    async with StandIn() as standin:
        deploy(standin, "capital-json")
        yield standin


def environment(standin: StandIn, **more: str) -> dict[str, str]:
    return {
        "AGENTA_AI_SERVICES_API_URL": standin.url,
        "AGENTA_AI_SERVICES_API_KEY": "standin-key",
        "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG": "production",
    } | more


async def tried(standin: StandIn, file: Path, **options: Any) -> int:
    return await test.run(environment(standin), test.Options(file=file, live=True, **options))


async def test_the_shipped_examples_pass_without_an_account(capsys: pytest.CaptureFixture[str]) -> None:
    assert await test.run({}, test.Options(file=EXAMPLES)) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == "4 of 4 examples pass."
    assert out.startswith("ok      tools.examples.support.classify_ticket, example 1 (line ")
    assert err == ""


async def test_the_examples_of_one_tool(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await test.run({}, test.Options(file=file)) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"ok      {NAME}, example 1 (line 15)",
        f"ok      {NAME}, example 2 (line 19)",
        "",
        "2 of 2 examples pass.",
        "Without an example: tools.acme.geo.other.",
    ]
    with pytest.raises(SettingsError, match="no tool has an example"):
        await test.run({}, test.Options(file=file, names=("tools.acme.geo.other",)))
    with pytest.raises(SettingsError, match=r"has no tool tools\.acme\.geo\.nope"):
        await test.run({}, test.Options(file=file, names=("tools.acme.geo.nope",)))


async def test_a_live_run_says_first_what_it_costs(
    standin: StandIn, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await tried(standin, file) == 0
    out, err = capsys.readouterr()
    assert err == (
        f"Running 2 examples with the prompts that are deployed in Agenta at {standin.url}. "
        "This costs 2 calls of a model, which its provider bills.\n"
    )
    # A model may well answer otherwise; the answer is valid.
    assert f"ok      {NAME}, example 1 (line 15): The result is {{" in out
    assert out.splitlines()[-2] == "2 of 2 examples pass."
    assert len(standin.requests) == 2


async def test_a_live_run_may_have_to_be_exact(
    standin: StandIn, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await tried(standin, file, exact=True) == 1
    assert f"failed  {NAME}, example 1 (line 15): The result is " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(answer="prose"), "UPSTREAM_OUTPUT_INVALID: The model's answer breaks the schema"),
        (Fault(cause="no-model-credential"), "Agenta says: “No API key found for model"),
        (Fault(status=401), "UPSTREAM_"),
    ],
    ids=["prose", "no credential", "wrong key"],
)
async def test_what_fails(
    fault: Fault, said: str, standin: StandIn, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    standin.respond = in_turn(fault)
    assert await tried(standin, file, as_json=True) == 1
    printed = json.loads(capsys.readouterr().out)
    assert printed["ok"] is False
    assert [each["passed"] for each in printed["examples"]] == [False, True]
    assert said in printed["examples"][0]["text"]
    assert "standin-key" not in printed["examples"][0]["text"]


async def test_a_live_run_needs_the_settings(file: Path) -> None:
    with pytest.raises(SettingsError, match=r"AGENTA_AI_SERVICES_API_URL: is missing\."):
        await test.run({}, test.Options(file=file, live=True))
