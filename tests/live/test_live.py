"""The whole path against a real Agenta: ``make live``. Costs a few calls of a small model.

``AGENTA_AI_SERVICES_API_URL`` and ``AGENTA_API_KEY`` say where; the key's owner needs the developer role or higher.
``AGENTA_AI_LIVE_ENVIRONMENT`` (development) and ``AGENTA_AI_LIVE_MODEL`` (gpt-4o-mini) say what to use. Everything
is made under slugs of its own, and undeployed and archived at the end.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from calls import reason, refine, structured
from conftest import connected

from agenta_ai_server.agenta.addresses import AgentaAddress
from agenta_ai_server.agenta.api import AgentaApi
from agenta_ai_server.agenta.credential import ServerKey
from agenta_ai_server.agenta.http import HttpClient
from agenta_ai_server.agenta.management import ManagementClient
from agenta_ai_server.commands import check, provision
from agenta_ai_server.commands.provision import Options
from agenta_ai_server.settings import SettingsError, load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from agenta_ai_server.settings import Settings

URL, KEY = "AGENTA_AI_SERVICES_API_URL", "AGENTA_API_KEY"
ENVIRONMENT = os.environ.get("AGENTA_AI_LIVE_ENVIRONMENT", "development")
MODEL = os.environ.get("AGENTA_AI_LIVE_MODEL", "gpt-4o-mini")
# No provider has it, so Agenta has no credential for it.
NO_MODEL = "no-such-provider/no-such-model"
TEMPLATE = {
    "messages": [
        {"role": "system", "content": "You are an assistant that knows {{topic}}."},
        {"role": "user", "content": "Please could you answer this question for me: {{question}}"},
    ],
    "template_format": "curly",
    "input_keys": ["topic", "question"],
}


def run(slug: str, **options: object) -> int:
    chosen = {"environment": ENVIRONMENT, "application": slug, "model": MODEL, **options}
    return asyncio.run(provision.run(os.environ, Options(**chosen)))  # type: ignore[arg-type]


@asynccontextmanager
async def managing() -> AsyncIterator[ManagementClient]:
    address = AgentaAddress.parse(os.environ[URL])
    http = HttpClient(address.root, keep_alive=False)
    yield ManagementClient(AgentaApi(http, address, ServerKey(os.environ[KEY])))
    await http.aclose()


async def deployed_version(slug: str) -> str:
    async with managing() as management:
        revision = await management.deployed_revision(ENVIRONMENT, slug)
    return revision.version if revision else ""


async def remove(slug: str) -> None:
    async with managing() as management:
        environment, application = await management.environment(ENVIRONMENT), await management.application(slug)
        if environment and await management.deployed_revision(ENVIRONMENT, slug):
            await management.undeploy(environment, slug, "make live has ended")
        if application and not application.is_archived:
            await management.archive_application(application)


@pytest.fixture(scope="session")
def names() -> Iterator[dict[str, str]]:
    """Slugs of what is deployed: one that works, and one whose model has no credential."""
    if missing := [name for name in (URL, KEY) if not os.environ.get(name)]:
        pytest.fail(f"set {' and '.join(missing)}", pytrace=False)
    mark = uuid4().hex[:8]
    made = {"good": f"agenta-ai-live-{mark}", "no model": f"agenta-ai-live-{mark}-no-model"}
    try:
        for name, model in (("good", MODEL), ("no model", NO_MODEL)):
            if run(made[name], model=model) != 0:
                pytest.fail("can't provision: see above", pytrace=False)
        yield made
    finally:
        for slug in made.values():
            asyncio.run(remove(slug))


def environment(slug: str, **more: str) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("AGENTA_AI_")},
        URL: os.environ[URL],
        "AGENTA_AI_SERVICES_API_KEY": os.environ[KEY],
        "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG": ENVIRONMENT,
        "AGENTA_AI_SERVICES_REFINE_PROMPT_KEY": slug,
        "AGENTA_AI_GRPC_AUTH": "none",
        "AGENTA_AI_GRPC_LISTEN": "127.0.0.1:0",
        **more,
    }


def settings(slug: str, **more: str) -> Settings:
    try:
        return load(environment(slug, **more))[0]
    except SettingsError as error:
        pytest.fail(str(error), pytrace=False)


async def test_check_finds_nothing_wrong(names: dict[str, str]) -> None:
    findings = {finding.part: finding for finding in await check.run(environment(names["good"]), call=True)}
    for part in ("Agenta", "Agenta key", "prompt", "refinement"):
        assert findings[part].state == "ok", findings[part]
    assert "the shipped prompt" in findings["prompt"].said


@pytest.mark.parametrize("route", ["invoke", "run"])
async def test_a_refinement_on_each_route(route: str, names: dict[str, str]) -> None:
    traceparent = f"00-{uuid4().hex}-{uuid4().hex[:16]}-01"
    async with connected(settings(names["good"], AGENTA_AI_GRPC_UPSTREAM_ROUTE=route)) as stub:
        metadata = [("traceparent", traceparent)]
        response = await stub.CallTool(refine(TEMPLATE, guidelines="Be brief."), timeout=90, metadata=metadata)
    result = structured(response)
    assert [message["role"] for message in result["messages"]] == ["system", "user"]
    assert json.loads(result["prompt_template_json"])["input_keys"] == TEMPLATE["input_keys"]
    assert len(response.meta.trace_id) == 32
    # Only the newer route takes the caller's trace.
    assert (response.meta.trace_id == traceparent.split("-")[1]) == (route == "invoke")


FAULTS = {
    "wrong key": ({"AGENTA_AI_SERVICES_API_KEY": "nope.deadbeef"}, "UPSTREAM_CREDENTIALS_REJECTED"),
    "wrong environment": ({"AGENTA_AI_SERVICES_ENVIRONMENT_SLUG": "no-such"}, "UPSTREAM_MISCONFIGURED"),
    "wrong application": ({"AGENTA_AI_SERVICES_REFINE_PROMPT_KEY": "no-such"}, "UPSTREAM_MISCONFIGURED"),
    "nobody there": ({URL: "http://127.0.0.1:9"}, "UPSTREAM_UNREACHABLE"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_the_settings(fault: str, names: dict[str, str]) -> None:
    more, expected = FAULTS[fault]
    async with connected(settings(names["good"], AGENTA_AI_GRPC_RETRIES="0", **more)) as stub:
        assert reason(await stub.CallTool(refine(TEMPLATE), timeout=60)) == expected


async def test_a_model_without_a_credential(names: dict[str, str]) -> None:
    async with connected(settings(names["no model"])) as stub:
        assert reason(await stub.CallTool(refine(TEMPLATE), timeout=60)) == "UPSTREAM_MISCONFIGURED"
    findings = {each.part: each for each in await check.run(environment(names["no model"]), call=True)}
    assert "Agenta says: “No API key found for model" in findings["refinement"].said
    assert "Settings > Providers & Models" in findings["refinement"].remedy


def test_provisioning_again_and_back(names: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    slug = names["good"]
    assert run(slug) == 0
    assert "No change" in capsys.readouterr().err
    before = asyncio.run(deployed_version(slug))
    assert run(slug, model=NO_MODEL, dry_run=True) == 0
    assert f'+      "model": "{NO_MODEL}"' in capsys.readouterr().out
    assert run(slug, model=NO_MODEL) == 0
    assert asyncio.run(deployed_version(slug)) != before
    assert run(slug, model="", rollback=True) == 0
    assert asyncio.run(deployed_version(slug)) == before


def test_an_environment_that_doesnt_exist(names: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(names["good"], environment="no-such-environment") == 1
    assert "has no environment 'no-such-environment'" in capsys.readouterr().err
