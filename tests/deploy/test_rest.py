"""The paths of the old REST endpoint, through the real Envoy."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from addresses import refusing_address
from calls import REFINE, TEMPLATE
from conftest import settings_for

from agenta_ai_server.auth.key_file import create_key
from agenta_ai_server.commands.serve import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from typing import TypeAlias

    import httpx
    from deploy.conftest import Start

    from agenta_ai_server.standin.app import StandIn

    Serve: TypeAlias = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

CALL = "/ai/services/tools/call"
STATUS = "/ai/services/status"
PREFIXES = pytest.mark.parametrize("prefix", ["", "/preview"])


def body(template: object = TEMPLATE, **arguments: str) -> dict[str, Any]:
    source = template if isinstance(template, str) else json.dumps(template)
    return {"name": REFINE, "arguments": {"prompt_template_json": source, **arguments}}


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def key(keys: Path, *permissions: str) -> str:
    return create_key(keys, user="u", organization="o", project="p", permissions=permissions, expires=None)


@pytest.fixture
def serve(standin: StandIn, front: Start, keys: Path) -> Serve:
    """A caller who may call, in front of a service by these settings."""

    @asynccontextmanager
    async def serve(**settings: str) -> AsyncIterator[httpx.AsyncClient]:
        may_call = key(keys, "edit_workflows")
        with_keys = {"AGENTA_AI_GRPC_AUTH": "api_keys", "AGENTA_AI_GRPC_API_KEYS_FILE": str(keys)}
        async with (
            running(settings_for(standin, **with_keys | settings)) as address,
            front(address) as envoy,
            envoy.http(may_call) as client,
        ):
            yield client

    return serve


def refused(response: httpx.Response, status: int, reason: str) -> dict[str, Any]:
    """The details of a refusal by the service, by the names of their types."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert isinstance(answer["detail"], str)
    assert answer["detail"]
    details = {detail["@type"].rpartition(".")[2]: detail for detail in answer["details"]}
    assert details["ErrorInfo"]["reason"] == f"ERROR_REASON_{reason}"
    return details


@PREFIXES
async def test_a_call(serve: Serve, prefix: str) -> None:
    async with serve() as client:
        # The old client sends the project along.
        response = await client.post(prefix + CALL, params={"project_id": "p"}, json=body(guidelines="Be brief."))
    assert response.status_code == 200
    answer = response.json()
    assert set(answer) == {"content", "structuredContent", "isError", "meta"}
    assert answer["isError"] is False
    assert answer["content"] == [{"text": answer["structuredContent"]["summary"]}]
    assert [message["role"] for message in answer["structuredContent"]["messages"]] == ["system", "user"]
    assert len(answer["meta"]["trace_id"]) == 32


@PREFIXES
async def test_the_status(serve: Serve, prefix: str) -> None:
    async with serve() as client:
        response = await client.get(prefix + STATUS)
    assert response.status_code == 200
    answer = response.json()
    assert answer["enabled"] is True
    tool = answer["tools"][0]["tool"]
    assert tool["name"] == REFINE
    assert tool["title"]
    assert tool["inputSchema"]["required"] == ["prompt_template_json"]
    assert tool["outputSchema"]["type"] == "object"


async def test_progress_has_no_path(serve: Serve, standin: StandIn) -> None:
    async with serve() as client:
        for path in ("/ai/services/tools/stream", "/agenta.ai.v1.ToolService/CallToolStream"):
            assert (await client.post(path, json=body())).status_code == 404
    assert standin.started == 0


async def test_a_tool_that_fails_is_no_failure_of_http(serve: Serve) -> None:
    async with serve() as client:
        response = await client.post(CALL, json=body(guidelines="standin: status=424"))
    assert response.status_code == 200
    answer = response.json()
    assert answer["isError"] is True
    assert "structuredContent" not in answer
    assert answer["content"][0]["text"]
    assert answer["error"]["reason"] == "ERROR_REASON_UPSTREAM_PROVIDER_FAILED"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("shown", ["", "ApiKey aai_000000000000_" + "0" * 64, "Basic YTpi"])
async def test_401_without_a_credential_that_counts(serve: Serve, method: str, shown: str) -> None:
    path, json = (STATUS, None) if method == "GET" else (CALL, body())
    async with serve() as client:
        response = await client.request(method, path, json=json, headers={"authorization": shown})
    refused(response, 401, "CREDENTIALS_INVALID")


async def test_403_without_the_permission(serve: Serve, keys: Path) -> None:
    may_not = {"authorization": f"ApiKey {key(keys)}"}
    async with serve() as client:
        response = await client.post(CALL, json=body(), headers=may_not)
        status = await client.get(STATUS, headers=may_not)
    refused(response, 403, "PERMISSION_DENIED")
    assert status.json()["tools"] == []


async def test_429_says_when_to_come_back(serve: Serve, tmp_path: Path) -> None:
    limits = tmp_path / "limits.toml"
    limits.write_text("burst = 1\nper_minute = 1\n")
    async with serve(AGENTA_AI_GRPC_LIMITS="on", AGENTA_AI_GRPC_LIMITS_FILE=str(limits)) as client:
        first = await client.post(CALL, json=body())
        second = await client.post(CALL, json=body())
    assert first.status_code == 200
    details = refused(second, 429, "RATE_LIMITED")
    assert 50 <= int(second.headers["retry-after"]) <= 60
    assert details["RetryInfo"]["retryDelay"].endswith("s")


async def test_503_where_the_feature_is_disabled(serve: Serve) -> None:
    async with serve(AGENTA_AI_SERVICES_API_KEY="") as client:
        response = await client.post(CALL, json=body())
        status = await client.get(STATUS)
    refused(response, 503, "SERVICE_DISABLED")
    assert (status.status_code, status.json()["enabled"], status.json()["tools"]) == (200, False, [])


async def test_503_under_overload(serve: Serve, standin: StandIn) -> None:
    async with serve(AGENTA_AI_GRPC_MAX_IN_FLIGHT="1") as client:
        running = asyncio.ensure_future(client.post(CALL, json=body(guidelines="standin: delay=50")))
        await standin.when(lambda: standin.in_flight == 1)
        response = await client.post(CALL, json=body())
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    refused(response, 503, "OVERLOADED")
    assert int(response.headers["retry-after"]) >= 1


async def test_400_for_arguments_that_are_wrong(serve: Serve) -> None:
    async with serve() as client:
        response = await client.post(CALL, json={"name": REFINE, "arguments": {"guidelines": 7}})
    details = refused(response, 400, "ARGUMENTS_INVALID")
    assert {violation["field"] for violation in details["BadRequest"]["fieldViolations"]} == {
        "arguments.guidelines",
        "arguments.prompt_template_json",
    }


@pytest.mark.parametrize("content", [b"{nope", b"[]", b'{"name": [1]}', b'{"name": 7, "arguments": 7}'])
async def test_400_for_what_is_no_request(serve: Serve, content: bytes) -> None:
    async with serve() as client:
        response = await client.post(CALL, content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/json"
    assert response.json()["detail"]


async def test_404_for_a_tool_that_does_not_exist(serve: Serve) -> None:
    async with serve() as client:
        response = await client.post(CALL, json={"name": "tools.agenta.api.nope", "arguments": {}})
    refused(response, 404, "TOOL_NOT_FOUND")


@pytest.mark.parametrize(("method", "path"), [("GET", CALL), ("POST", STATUS), ("GET", "/"), ("GET", "/metrics")])
async def test_404_for_other_paths(serve: Serve, method: str, path: str) -> None:
    async with serve() as client:
        response = await client.request(method, path)
    assert response.status_code == 404


async def test_callers_do_not_steer_envoy(serve: Serve) -> None:
    async with serve() as client:
        response = await client.post(
            CALL, json=body(guidelines="standin: delay=0.2"), headers={"x-envoy-upstream-rq-timeout-ms": "1"}
        )
    assert response.status_code == 200


async def test_503_while_no_replica_can_be_reached(front: Start) -> None:
    with refusing_address() as nobody:
        async with front(nobody) as envoy, envoy.http() as client:
            response = await client.post(CALL, json=body())
    assert response.status_code == 503
    assert response.json()["detail"]


async def test_unknown_fields_are_ignored_and_a_request_id_makes_repeats_safe(serve: Serve, standin: StandIn) -> None:
    repeated = body() | {"request_id": "f2ae2b0e-2bb1-4bb0-8d1c-2e1d9a1c7f10", "unknown": {"a": [1]}}
    async with serve() as client:
        first, second = [(await client.post(CALL, json=repeated)).json() for _ in range(2)]
    assert (first["meta"]["replayed"], second["meta"]["replayed"]) == (False, True)
    assert standin.started == 1


async def test_a_large_template_comes_back(serve: Serve) -> None:
    template = {"messages": [{"role": "user", "content": f"{i} {'é' * 900}."} for i in range(100)]}
    source = json.dumps(template, ensure_ascii=False)
    async with serve() as client:
        response = await client.post(CALL, json=body(source))
    assert response.status_code == 200, response.text[:500]
    assert json.loads(response.json()["structuredContent"]["prompt_template_json"]) == template
