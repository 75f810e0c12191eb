"""The fake clients, used as their users would."""

from __future__ import annotations

import subprocess
import sys

import grpc
import pytest

import agenta_ai.testing
from agenta_ai import (
    AgentaError,
    CallFailed,
    Client,
    InvalidInput,
    Progress,
    ProgressStage,
    RefinedPrompt,
    ServiceState,
    ServiceStatus,
    SyncClient,
    Tool,
    ToolFailed,
    ToolResult,
)
from agenta_ai.testing import FakeClient, FakeSyncClient, RecordedCall

TEMPLATE = {"messages": [{"role": "user", "content": "Please translate {{text}}"}]}
REFINED = RefinedPrompt({"messages": [{"role": "user", "content": "Translate {{text}}"}]}, "Briefer.")


def refine(client: SyncClient) -> str:
    """What somebody wrote who tests it."""
    try:
        return client.refine_prompt(TEMPLATE, guidelines="Be brief.").summary
    except ToolFailed as failed:
        return failed.reason


def test_a_script_for_the_sync_client() -> None:
    client = FakeSyncClient(REFINED, ToolFailed("No.", reason="UPSTREAM_TIMEOUT"))
    assert [refine(client), refine(client)] == ["Briefer.", "UPSTREAM_TIMEOUT"]
    first, second = client.calls
    assert (first.method, first.name, first.timeout) == ("CallTool", "tools.agenta.api.refine_prompt", 90)
    assert first.arguments["guidelines"] == "Be brief."
    assert first.request_id != second.request_id
    with pytest.raises(AssertionError, match=r"no answer for call 3, CallTool tools\.agenta\.api\.refine_prompt\."):
        refine(client)


async def test_a_script_for_asyncio() -> None:
    tool = Tool("tools.a.b.c")
    status = ServiceStatus(state=ServiceState.DEGRADED)
    limited = CallFailed("Rate limited.", code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="RATE_LIMITED")
    client: Client = FakeClient(status, [tool], ToolResult(structured_content=3), limited)
    async with client:
        assert (await client.status()).state is ServiceState.DEGRADED
        assert await client.list_tools() == [tool]
        result = await client.call_tool("tools.a.b.c", {"n": 1}, request_id="r")
        assert (result.structured_content, result.request_id) == (3, "r")
        with pytest.raises(CallFailed, match="Rate limited"):
            await client.call_tool("tools.a.b.c", {})
    with pytest.raises(AgentaError, match="closed"):
        await client.status()


def test_a_refinement_knows_its_original() -> None:
    refined = FakeSyncClient(REFINED).refine_prompt(TEMPLATE)
    assert refined.original == TEMPLATE
    assert [change.new for change in refined.diff()] == ["Translate {{text}}"]


def test_an_answer_that_depends_on_the_call() -> None:
    def answer(call: RecordedCall) -> ToolResult:
        return ToolResult(structured_content=call.arguments["n"] + 1)

    client = FakeSyncClient(answer)
    client.add_answers(answer)
    assert [client.call_tool("x", {"n": n}).structured_content for n in (1, 2)] == [2, 3]


PROGRESS = Progress(ProgressStage.ASKING, "Asking.")


async def test_progress_before_an_answer() -> None:
    limited = CallFailed("Rate limited.", code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="RATE_LIMITED")
    answers = (
        (PROGRESS, ToolResult(structured_content=3)),
        (PROGRESS, limited),
        (PROGRESS, REFINED),
        (PROGRESS, REFINED),
    )
    seen: list[Progress] = []
    sync = FakeSyncClient(*answers)
    assert [type(event) for event in sync.stream_tool("x", {})] == [Progress, ToolResult]
    with pytest.raises(CallFailed):
        list(sync.stream_tool("x", {}))
    assert sync.refine_prompt(TEMPLATE, on_progress=seen.append).summary == "Briefer."
    assert sync.refine_prompt(TEMPLATE).summary == "Briefer.", "who doesn't ask for progress gets none"
    assert [call.method for call in sync.calls] == [*["CallToolStream"] * 3, "CallTool"]
    client = FakeClient(*answers)
    assert [type(event) async for event in client.stream_tool("x", {})] == [Progress, ToolResult]
    with pytest.raises(CallFailed):
        [event async for event in client.stream_tool("x", {})]
    assert seen == [PROGRESS]


def test_what_could_never_be_sent_is_found() -> None:
    client = FakeSyncClient(ToolResult())
    with pytest.raises(InvalidInput):
        client.call_tool("x", {"n": object()})
    assert client.calls == []


def test_many_prompts_at_once() -> None:
    client = FakeSyncClient(*[REFINED] * 3)
    assert [type(outcome) for outcome in client.refine_prompts([TEMPLATE] * 3)] == [RefinedPrompt] * 3


def test_it_needs_no_pytest() -> None:
    code = "import sys, agenta_ai.testing; print('pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_its_docstring_runs() -> None:
    example = str(agenta_ai.testing.__doc__).partition("For example::\n\n")[2].partition("\n\nArguments")[0]
    assert "FakeSyncClient(" in example
    exec("\n".join(line.strip() for line in example.splitlines()), {})
