from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import yarl

from agenta_ai_server.standin.answers import CannedResponse
from agenta_ai_server.standin.app import StandIn, in_turn
from agenta_ai_server.standin.faults import Fault
from agenta_ai_server.standin.permissions import PATH, Caller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CAPTURES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "data/permission_captures.json").read_text())
KEY = "ApiKey standin-key"
# What the cases sent, which the recording leaves out.
SENT = {
    "bare key": "standin-key",
    "lowercase scheme": "apikey standin-key",
    "bad key": "ApiKey wrong.key",
    "no header": "",
    "Bearer garbage": "Bearer garbage",
    "Secret garbage": "Secret garbage",
}
ASK = {"action": "edit_workflows", "resource_type": "service"}


@pytest.fixture
async def http(standin: StandIn) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(standin.url) as http:
        yield http


async def check(http: aiohttp.ClientSession, authorization: str, query: Any = ASK) -> tuple[int, Any]:
    headers = {"authorization": authorization} if authorization else {}
    async with http.get(PATH, params=query, headers=headers, allow_redirects=False) as response:
        return response.status, await response.json()


CLAIMS = {"user_id", "user_email", "project_id", "workspace_id", "organization_id", "organization_name", "exp"}
"""What Agenta's own tokens were recorded to say."""


def claims_of(body: dict[str, Any]) -> Any:
    scheme, _, token = body["credentials"].partition(" ")
    assert scheme == "Secret"
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


@pytest.mark.parametrize("capture", CAPTURES, ids=[capture["case"] for capture in CAPTURES])
async def test_answers_as_was_recorded(capture: dict[str, Any], http: aiohttp.ClientSession) -> None:
    query = list(yarl.URL(capture["url"]).query.items())
    status, body = await check(http, SENT.get(capture["case"], KEY), query)
    recorded = capture["body"]
    if "credentials" in recorded:
        assert recorded["credentials"] == "Secret <jwt>"
        assert claims_of(body).keys() == CLAIMS
        body, recorded = body | {"credentials": ""}, recorded | {"credentials": ""}
    assert (status, body) == (capture["status"], recorded)


async def test_other_callers(standin: StandIn, http: aiohttp.ClientSession) -> None:
    standin.permissions.callers = {"Bearer t": Caller(user_id="u", actions=frozenset({"edit_workflows"}))}
    status, body = await check(http, "Bearer t")
    assert (status, claims_of(body)["user_id"]) == (200, "u")
    assert (await check(http, "Bearer t", ASK | {"action": "run_service"}))[0] == 403
    assert (await check(http, KEY))[0] == 401
    assert standin.permissions.started == 3
    assert standin.started == 0


async def test_faults(standin: StandIn, http: aiohttp.ClientSession) -> None:
    standin.permissions.fault = Fault(status=503)
    assert (await check(http, KEY))[0] == 503
    standin.permissions.fault = Fault(status=307)
    assert (await check(http, KEY))[0] == 307
    standin.permissions.fault = Fault(body="broken")
    with pytest.raises(json.JSONDecodeError):
        await check(http, KEY)
    standin.permissions.fault = Fault(reset="headers")
    with pytest.raises(aiohttp.ClientOSError):
        await check(http, KEY)
    standin.permissions.fault = Fault()
    standin.permissions.respond = in_turn(CannedResponse(418, body=b"{}"), Fault(status=500))
    assert [(await check(http, KEY))[0] for _ in range(3)] == [418, 500, 200]


async def test_counts_those_at_the_same_time(standin: StandIn, http: aiohttp.ClientSession) -> None:
    standin.permissions.fault = Fault(stall="headers")
    calls = [asyncio.create_task(check(http, KEY)) for _ in range(3)]
    await standin.when(lambda: standin.permissions.in_flight == 3)
    for call in calls:
        call.cancel()
    await standin.when(lambda: standin.permissions.in_flight == 0)
    assert (standin.permissions.started, standin.permissions.peak) == (3, 3)
