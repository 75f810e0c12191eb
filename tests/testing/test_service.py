"""The service that users start in their own tests, used as they would."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from agenta_ai import CallFailed, Client, SyncClient, ToolFailed
from agenta_ai_server.settings import SettingsError
from agenta_ai_server.testing import Fault, LocalService, StandIn, in_turn, run_service

if TYPE_CHECKING:
    from collections.abc import Mapping

pytest_plugins = ["agenta_ai_server.testing.plugin"]

TEMPLATE: dict[str, Any] = {"messages": [{"role": "user", "content": "Please translate {{text}}"}]}
REFINED = {"messages": [{"role": "user", "content": "Translate {{text}}"}]}


def test_code_without_asyncio(agenta_ai_service: LocalService) -> None:
    with SyncClient(agenta_ai_service.address) as client:
        assert client.refine_prompt(TEMPLATE, guidelines="Be brief {{.").template == REFINED
    (request,) = agenta_ai_service.standin.requests
    assert request.inputs["__ag_guidelines"] == "Be brief {{."


async def test_code_with_asyncio(agenta_ai_service: LocalService) -> None:
    async with Client(agenta_ai_service.address) as client:
        assert (await client.refine_prompt(TEMPLATE)).template == REFINED


def test_faults_and_canned_answers(agenta_ai_service: LocalService) -> None:
    canned = '{"messages": [{"role": "user", "content": "{{text}}, translated"}]}'
    agenta_ai_service.standin.respond = in_turn(Fault(status=503, retry_after="2"), Fault(text=canned))
    with SyncClient(agenta_ai_service.address, retries=0) as client:
        with pytest.raises(ToolFailed) as failed:
            client.refine_prompt(TEMPLATE)
        assert (failed.value.reason, failed.value.retry_delay) == ("UPSTREAM_UNAVAILABLE", 2)
        assert client.refine_prompt(TEMPLATE).messages[0]["content"] == "{{text}}, translated"
        assert client.refine_prompt(TEMPLATE).template == REFINED


def test_services_share_nothing() -> None:
    with run_service() as one, run_service() as other:
        one.standin.fault = Fault(answer="lossy")
        with SyncClient(one.address) as client, pytest.raises(ToolFailed):
            client.refine_prompt(TEMPLATE)
        with SyncClient(other.address) as client:
            client.refine_prompt(TEMPLATE)


class TestWithSettings:
    @pytest.fixture
    def agenta_ai_settings(self) -> Mapping[str, str]:
        return {"AGENTA_AI_GRPC_LIMITS": "on"}

    def test_they_replace_the_usual(self, agenta_ai_service: LocalService) -> None:
        with SyncClient(agenta_ai_service.address) as client:
            outcomes = client.refine_prompts([TEMPLATE] * 11)
        assert [each.reason for each in outcomes if isinstance(each, CallFailed)] == ["RATE_LIMITED"]


def test_a_wrong_setting_is_raised() -> None:
    with pytest.raises(SettingsError, match="AGENTA_AI_GRPC_RETRIES"), run_service({"AGENTA_AI_GRPC_RETRIES": "many"}):
        pass


def test_a_stand_in_of_ones_own() -> None:
    standin = StandIn(models=[])
    with (
        run_service(standin=standin) as service,
        SyncClient(service.address) as client,
        pytest.raises(ToolFailed) as failed,
    ):
        client.refine_prompt(TEMPLATE)
    assert failed.value.reason == "UPSTREAM_MISCONFIGURED"


def test_the_environment_has_no_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTA_AI_GRPC_AUTH", "nonsense")
    monkeypatch.setenv("AGENTA_AI_SERVICES_API_URL", "https://cloud.agenta.ai")
    with run_service() as service, SyncClient(service.address) as client:
        assert client.status().enabled


def test_it_needs_no_pytest_and_prints_nothing() -> None:
    code = (
        "import sys; from agenta_ai_server.testing import run_service\n"
        "with run_service(): print('pytest' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("False\n", "")
