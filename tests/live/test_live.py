"""Against a real Agenta, which the settings name: ``make live``. Costs a model call or two."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from calls import reason, refine, structured
from conftest import connected

from agenta_ai.v1 import tool_service_pb2
from agenta_ai_server.settings import SettingsError, load

if TYPE_CHECKING:
    from agenta_ai_server.settings import Settings

TEMPLATE = {
    "messages": [
        {"role": "system", "content": "You are an assistant that knows {{topic}}."},
        {"role": "user", "content": "Please could you answer this question for me: {{question}}"},
    ],
    "template_format": "curly",
    "input_keys": ["topic", "question"],
}


@pytest.fixture
def settings() -> Settings:
    # The caller's key serves as the server's own where that isn't set, so that one account is enough.
    key = os.environ.get("AGENTA_AI_SERVICES_API_KEY") or os.environ.get("AGENTA_AI_API_KEY", "")
    own = {"AGENTA_AI_SERVICES_API_KEY": key, "AGENTA_AI_GRPC_AUTH": "none", "AGENTA_AI_GRPC_LISTEN": "127.0.0.1:0"}
    try:
        settings, _ = load({**os.environ, **own})
    except SettingsError as error:
        pytest.fail(str(error), pytrace=False)
    if settings.missing:
        pytest.fail(f"set {', '.join(settings.missing)}", pytrace=False)
    return settings


async def test_a_real_refinement(settings: Settings) -> None:
    async with connected(settings) as stub:
        response = await stub.CallTool(refine(TEMPLATE, guidelines="Be brief."), timeout=90)
    result = structured(response)
    assert [message["role"] for message in result["messages"]] == ["system", "user"]
    refined = json.loads(result["prompt_template_json"])
    assert refined["input_keys"] == TEMPLATE["input_keys"]
    assert len(response.meta.trace_id) == 32


async def test_a_wrong_key_is_our_failure_and_not_the_callers(settings: Settings) -> None:
    wrong = {**os.environ, "AGENTA_AI_SERVICES_API_KEY": "nope.deadbeef", "AGENTA_AI_GRPC_AUTH": "none"}
    wrong["AGENTA_AI_GRPC_LISTEN"] = settings.listen
    async with connected(load(wrong)[0]) as stub:
        assert (await stub.Status(tool_service_pb2.StatusRequest())).enabled
        assert reason(await stub.CallTool(refine(TEMPLATE), timeout=30)) == "UPSTREAM_CREDENTIALS_REJECTED"
