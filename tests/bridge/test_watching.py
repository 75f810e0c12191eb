"""Changes of the tools are noticed, and told to those who want to know."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import grpc
import pytest
from bridge.conftest import REVISIONS, talking_to
from mcp import Client as McpClient
from mcp.shared.exceptions import MCPError
from mcp_types import InitializedNotification, ToolListChangedNotification

from agenta_ai import CallFailed, Tool, ToolPage
from agenta_ai.mcp import bridge, watching
from agenta_ai.mcp.names import Names
from agenta_ai.testing import FakeClient

if TYPE_CHECKING:
    from agenta_ai.testing import Scripted

ONE, TWO = Tool(name="tools.a.b.one"), Tool(name="tools.a.b.two")
DOWN = CallFailed("No answer.", code=grpc.StatusCode.UNAVAILABLE)
REFUSED = CallFailed("Not accepted.", code=grpc.StatusCode.UNAUTHENTICATED, reason="CREDENTIALS_INVALID")


class Asleep(Exception):
    """The end of a test's time."""


@pytest.mark.parametrize(
    ("answers", "changes", "slept"),
    [
        ([ToolPage((ONE,), ttl=30), ToolPage((ONE,), ttl=30)], 0, [30, 30]),
        ([ToolPage((ONE,), ttl=30), ToolPage((ONE, TWO), ttl=30), ToolPage((TWO,), ttl=5)], 2, [30, 30, 5]),
        ([ToolPage((ONE,)), DOWN, ToolPage((ONE,), ttl=0.1), ToolPage((), ttl=30)], 1, [60, 60, 1, 30]),
        ([ToolPage((ONE,), "2", ttl=30), ToolPage((TWO,), ttl=30), ToolPage((ONE, TWO), ttl=30)], 0, [30, 30]),
        ([ToolPage((ONE,), "2", ttl=30), ToolPage((TWO,), "2", ttl=30), ToolPage((ONE,), ttl=30)], 0, [60, 30]),
        ([DOWN, ToolPage((ONE,), ttl=30)], 0, [60, 30]),
        ([ToolPage((ONE,), ttl=30), REFUSED], 0, [30]),
    ],
)
async def test_it_looks_as_often_as_a_list_may_be_kept(
    answers: list[Scripted], changes: int, slept: list[float]
) -> None:
    told, pauses = 0, list[float]()

    async def changed() -> None:
        nonlocal told
        told += 1

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == len(slept) and REFUSED not in answers:
            raise Asleep

    fake = FakeClient(*answers)
    with contextlib.suppress(Asleep):
        await watching.watch_tools(fake, (), changed, sleep=sleep)
    assert (told, pauses) == (changes, slept)
    assert len(fake.calls) == len(answers)


@pytest.mark.parametrize("revision", REVISIONS)
async def test_clients_are_told(revision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MIN_SECONDS", 0.0)
    told = asyncio.Event()

    async def on_message(message: object) -> None:
        if isinstance(message, ToolListChangedNotification):
            told.set()

    fake = FakeClient(ToolPage((ONE,), ttl=0.001), ToolPage((ONE, TWO), ttl=0.001), REFUSED)
    client = talking_to(fake, revision)
    client.message_handler = on_message
    async with client:
        if revision == REVISIONS[0]:
            async with client.listen(tools_list_changed=True) as changes:
                assert await anext(aiter(changes))
        else:
            async with asyncio.timeout(30):
                await told.wait()


async def test_a_session_over_stdio_has_one_watcher() -> None:
    """However often the client says that it is initialized."""
    fake = FakeClient(*[ToolPage((ONE,), ttl=300)] * 5)
    async with talking_to(fake, REVISIONS[1]) as client:
        for _ in range(3):
            await client.session.send_notification(InitializedNotification())
        await client.list_tools()
    assert len(fake.calls) == 2


async def test_nobody_takes_the_streams_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "MAX_LISTENERS_OF_CALLER", 1)
    caller = "ApiKey ann"
    fake = FakeClient(*[ToolPage((ONE,), ttl=300)] * 4)
    served = bridge.Bridge(fake, Names(), lambda _: (("authorization", caller),), remote=True).server()
    async with McpClient(served, mode=REVISIONS[0]) as client:
        async with client.listen(tools_list_changed=True):
            with pytest.raises(MCPError, match="Too many streams"):
                async with client.listen(tools_list_changed=True):
                    pass
            caller = "ApiKey ben"
            async with client.listen(tools_list_changed=True):
                pass
        caller = "ApiKey ann"
        async with asyncio.timeout(30):
            while not await is_admitted(client):
                pass  # the bridge learns a little later that a stream has been closed


async def is_admitted(client: McpClient) -> bool:
    try:
        async with client.listen(tools_list_changed=True):
            return True
    except MCPError:
        return False


async def test_streams_of_a_caller_share_a_watcher() -> None:
    ann, ben = (("authorization", "ApiKey ann"),), (("authorization", "ApiKey ben"),)
    fake = FakeClient(*[ToolPage((ONE,), ttl=300)] * 3)
    changes = watching.ToolChanges(fake)
    with changes.of(ann):
        with changes.of(ann), changes.of(ben):
            await asyncio.sleep(0)
        with changes.of(ann):
            await asyncio.sleep(0)
    with changes.of(ann):
        await asyncio.sleep(0)
    assert [call.metadata for call in fake.calls] == [ann, ben, ann]


async def test_a_caller_that_was_refused_is_watched_again() -> None:
    fake = FakeClient(REFUSED, ToolPage((ONE,), ttl=300))
    changes = watching.ToolChanges(fake)
    with changes.of(()):
        await asyncio.sleep(0)
        with changes.of(()):
            await asyncio.sleep(0)
    assert len(fake.calls) == 2
