"""The client of the management API, by what was recorded of Agenta v0.113, and the stand-in by the same."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from agenta_ai_server.agenta.addresses import AgentaAddress
from agenta_ai_server.agenta.api import AgentaApi
from agenta_ai_server.agenta.credential import ServerKey
from agenta_ai_server.agenta.http import HttpClient
from agenta_ai_server.agenta.management import (
    Application,
    Environment,
    ManagementClient,
    ManagementError,
    Problem,
    Revision,
)
from agenta_ai_server.standin.permissions import ROLES, Caller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from agenta_ai_server.standin.app import StandIn

RECORDED = {each["case"]: each for each in json.loads(Path("tests/data/management_captures.json").read_text("utf-8"))}
APP, OTHER_APP, NO_APP = "ai-refine", "tmp-arch", "nope"
URI = "agenta:builtin:completion:v0"
PARAMETERS: dict[str, Any] = {"prompt": {"messages": [{"role": "user", "content": "Hi"}]}}


@asynccontextmanager
async def client(url: str, key: str = "standin-key") -> AsyncIterator[ManagementClient]:
    http = HttpClient(url, keep_alive=False)
    yield ManagementClient(AgentaApi(http, AgentaAddress.parse(url), ServerKey(key)))
    await http.aclose()


@asynccontextmanager
async def answering(status: int, body: bytes) -> AsyncIterator[tuple[str, list[tuple[str, Any]]]]:
    """A server that answers everything with this, and what it received: path and body."""
    received = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        received.append((f"{request.method} {request.path}", json.loads(await request.read() or b"null")))
        return web.Response(status=status, body=body, content_type="application/json")

    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}", received
    await runner.cleanup()


def recorded_ids(case: str) -> tuple[Application, Environment]:
    """The application and the environment that a recorded request names."""
    body = RECORDED[case]["body"] or {}
    revision = body.get("application_revision", body.get("environment_revision", {}))
    application = Application(
        revision.get("application_id", ""), APP, revision.get("application_variant_id", ""), is_archived=False
    )
    environment = body.get("environment_revisions", revision)
    return application, Environment(
        environment.get("environment_id", ""), "staging", environment.get("environment_variant_id", "")
    )


CALLS: dict[str, Callable[[ManagementClient, Application, Environment], Awaitable[object]]] = {
    "query_archived_included": lambda management, _, __: management.application(OTHER_APP),
    "retrieve_deployed": lambda management, _, __: management.deployed_revision("production", APP),
    "retrieve_latest": lambda management, _, __: management.latest_revision(APP),
    "simple_environments_query_after_deploy": lambda management, _, __: management.environment("production"),
    "deploy_version_and_application": lambda management, _, __: management.deploy(APP, "2", "production", "m"),
    "environment_log": lambda management, _, environment: management.history(environment, APP),
    "environment_commit_remove_key": lambda management, _, environment: management.undeploy(
        environment, APP, "undeploy"
    ),
    "commit_revision": lambda management, application, _: management.commit(
        application, URI, RECORDED["commit_revision"]["body"]["application_revision"]["data"]["parameters"], "m"
    ),
}


@pytest.mark.parametrize("case", CALLS)
async def test_requests_and_answers_are_those_that_were_recorded(case: str) -> None:
    recorded = RECORDED[case]
    async with answering(200, json.dumps(recorded["answer"]).encode()) as (url, received), client(url) as management:
        result = await CALLS[case](management, *recorded_ids(case))
    ((request, body),) = received
    assert request == recorded["request"]
    assert without_messages(body) == without_messages(recorded["body"])
    match result:
        case Application():
            assert (result.slug, result.is_archived) == (OTHER_APP, True)
        case Revision():
            assert result.uri == URI
            assert set(result.parameters) == {"prompt"}
            assert "is_application" in result.flags
            assert "is_chat" not in result.flags
            assert result.version.isdecimal()
            assert result.date.startswith("2026-11-28T")
        case Environment():
            assert result.slug == "production"
        case list():
            assert [each.version for each in result] == ["", "5", "", ""]
            assert [each.message for each in result] == ["undeploy", "", "", "Initial commit"]


def without_messages(body: Any) -> Any:
    """What matters of a request's body: a commit's message is ours to choose."""
    if not isinstance(body, dict):
        return body
    return {name: without_messages(each) for name, each in body.items() if name != "message"}


FAILURES: dict[str, tuple[str, Problem | None]] = {
    # case: what is done, and how it fails; None if the answer is that there is none
    "query_by_slug_missing": ("application", None),
    "retrieve_deployed_before_deploy": ("deployed", None),
    "retrieve_unknown_env": ("deployed", None),
    "retrieve_unknown_app_in_env": ("deployed", None),
    "retrieve_unknown_app_latest": ("latest", None),
    "retrieve_as_other_org": ("deployed", None),
    "create_simple_application_duplicate_slug": ("create", Problem.SLUG_TAKEN),
    "create_slug_of_archived": ("create", Problem.SLUG_TAKEN),
    "create_no_slug": ("create", Problem.NO_EFFECT),
    "create_bad_slug": ("create", Problem.INVALID),
    "create_unknown_uri": ("create", Problem.FAILED),
    "create_as_viewer": ("create", Problem.ROLE_TOO_LOW),
    "commit_without_variant_id": ("commit", Problem.NO_EFFECT),
    "commit_by_application_id_only": ("commit", Problem.NO_EFFECT),
    "commit_stale_base": ("commit", Problem.FAILED),
    "deploy_unknown_app": ("deploy", Problem.NOT_FOUND),
    "deploy_unknown_environment": ("deploy", Problem.NOT_FOUND),
    "deploy_no_environment": ("deploy", Problem.INVALID),
    "deploy_as_viewer": ("deploy", Problem.ROLE_TOO_LOW),
    "deploy_as_editor": ("deploy", Problem.ROLE_TOO_LOW),
    "deploy_as_other_org": ("deploy", Problem.NOT_FOUND),
    "bad_key_query": ("application", Problem.KEY_UNKNOWN),
    "no_key_query": ("application", Problem.KEY_UNKNOWN),
    "legacy_apps_list": ("application", Problem.NO_SUCH_ROUTE),
}


async def do(management: ManagementClient, what: str) -> object:
    application = Application("1", APP, "2")
    match what:
        case "application":
            return await management.application(APP)
        case "deployed":
            return await management.deployed_revision("production", APP)
        case "latest":
            return await management.latest_revision(APP)
        case "create":
            return await management.create_application(APP, "AI refine", "", URI, PARAMETERS)
        case "commit":
            return await management.commit(application, URI, PARAMETERS, "m")
    return await management.deploy(APP, "1", "production", "m")


@pytest.mark.parametrize("case", FAILURES)
async def test_recorded_failures(case: str) -> None:
    what, problem = FAILURES[case]
    recorded = RECORDED[case]
    async with (
        answering(recorded["status"], json.dumps(recorded["answer"]).encode()) as (url, _),
        client(url) as management,
    ):
        if problem is None:
            assert await do(management, what) is None
            return
        with pytest.raises(ManagementError) as failed:
            await do(management, what)
    error = failed.value
    assert error.problem is problem
    assert str(error).endswith(".")
    assert error.remedy.endswith(".")
    assert "standin-key" not in str(error)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"\xff", b'{"detail": 7}', b'{"count": 1}'])
@pytest.mark.parametrize("status", [200, 302, 404, 500])
async def test_what_isnt_from_agenta(status: int, body: bytes) -> None:
    async with answering(status, body) as (url, _), client(url) as management:
        with pytest.raises(ManagementError) as failed:
            await do(management, "create")
    assert "html" not in str(failed.value)


async def test_nobody_there() -> None:
    async with client("http://127.0.0.1:9") as management:
        with pytest.raises(ManagementError, match="Agenta can't be reached: ") as failed:
            await do(management, "application")
    assert failed.value.problem is Problem.UNREACHABLE


# The stand-in

SAME: dict[str, tuple[str, str]] = {
    # case: role of the key, what is done
    "create_simple_application_duplicate_slug": ("owner", "create"),
    "create_as_viewer": ("viewer", "create"),
    "deploy_as_viewer": ("viewer", "deploy"),
    "deploy_as_editor": ("editor", "deploy"),
    "deploy_as_developer": ("developer", "deploy"),
    "retrieve_as_viewer": ("viewer", "deployed"),
    "retrieve_as_other_org": ("other_org", "deployed"),
    "deploy_as_other_org": ("other_org", "deploy"),
    "bad_key_query": ("unknown", "application"),
    "commit_by_application_id_only": ("owner", "commit"),
    "query_by_slug": ("owner", "application"),
}


@pytest.mark.parametrize("case", SAME)
async def test_the_stand_in_answers_as_recorded(case: str, standin: StandIn) -> None:
    role, what = SAME[case]
    standin.permissions.callers = {
        **{f"ApiKey {name}": Caller(actions=actions) for name, actions in ROLES.items()},
        "ApiKey other_org": Caller(organization_id="other", project_id="other"),
    }
    recorded = RECORDED[case]
    async with answering(recorded["status"], json.dumps(recorded["answer"]).encode()) as (url, _), client(url) as real:
        expected = await outcome(real, what)
    async with client(standin.url, role) as management:
        assert await outcome(management, what) == expected


async def outcome(management: ManagementClient, what: str) -> object:
    """The kind of result or failure, with Agenta's own sentence."""
    try:
        return type(await do(management, what))
    except ManagementError as error:
        return error.problem, str(error)


MISCONFIGURED = json.loads(Path("tests/data/misconfigured_apps.json").read_text("utf-8"))


@pytest.mark.parametrize("recorded", MISCONFIGURED, ids=lambda recorded: recorded["case"])
async def test_the_stand_in_derives_the_recorded_flags(recorded: dict[str, Any], standin: StandIn) -> None:
    async with client(standin.url) as management:
        data = recorded["data"]
        await management.create_application("x", "x", "", data["uri"], data["parameters"])
        revision = await management.latest_revision("x")
    assert revision
    assert revision.flags == {name for name, holds in recorded["flags"].items() if holds}
    assert revision.parameters == data["parameters"]


DEPLOYED = {each["case"]: each for each in json.loads(Path("tests/data/deployed_apps.json").read_text("utf-8"))}
SHAPES = [case for case in DEPLOYED if case.startswith("retrieve_")]


async def test_what_an_environment_holds() -> None:
    recorded = DEPLOYED["environment_lists_all"]
    async with answering(200, json.dumps(recorded["answer"]).encode()) as (url, received), client(url) as management:
        found = await management.deployed_applications("production")
    assert received == [(recorded["request"], recorded["body"])]
    assert found == sorted(found)
    assert {"capital", "hook-app", "support-chat"} <= set(found)


async def test_what_an_environment_of_the_stand_in_holds(standin: StandIn) -> None:
    async with client(standin.url) as management:
        assert await management.deployed_applications("production") == [APP]
        assert await management.deployed_applications("staging") == []
        assert await management.deployed_applications("nowhere") == []


@pytest.mark.parametrize("case", SHAPES)
async def test_the_stand_in_shows_what_is_deployed_as_recorded(case: str, standin: StandIn) -> None:
    recorded = DEPLOYED[case]["answer"]["application_revision"]
    slug = recorded["application_slug"]
    project = standin.management.projects[Caller().project_id]
    data = {name: each for name, each in recorded["data"].items() if name not in ("schemas", "url")}
    given = recorded["data"].get("schemas", {})
    # What the creator gives is kept; the schema of the answer is derived only where it is missing.
    if "inputs" in given:
        data["schemas"] = {name: given[name] for name in ("inputs", "outputs")}
    application = project.create(slug, recorded.get("name", ""), data, "ada", recorded.get("description", ""))
    project.deploy(application, application.revisions[-1], project.environments["production"], "ada")
    async with answering(200, json.dumps(DEPLOYED[case]["answer"]).encode()) as (url, _), client(url) as real:
        expected = await real.deployed_revision("production", slug)
    async with client(standin.url) as management:
        found = await management.deployed_revision("production", slug)
        shown = await management.application(slug)
    assert found is not None
    assert expected is not None
    assert (found.uri, found.flags) == (expected.uri, expected.flags)
    assert {name: found.schemas.get(name) for name in ("inputs", "outputs")} == {
        name: expected.schemas.get(name) for name in ("inputs", "outputs")
    }
    assert shown is not None
    assert (shown.name, shown.description) == (recorded.get("name", ""), recorded.get("description", ""))
