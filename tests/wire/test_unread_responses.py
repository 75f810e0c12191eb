"""Callers that don't read their answers: what they may hold."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc.aio
import pytest
from calls import refine
from conftest import connected, settings_for

from agenta_ai_server.commands import serve
from agenta_ai_server.rpc import boundary, open_calls
from agenta_ai_server.rpc.unsent import UnsentResponses

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenta_ai_server.standin.app import StandIn

METHODS = ("/agenta.ai.v1.ToolService/CallTool", "/agenta.ai.v1.ToolService/CallToolStream")
LIMIT = 1 << 20
SMALL_WINDOW = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024)]
REPEATS = 40
# No answer of this size fits into a stream's window.
PROMPT = json.dumps({"messages": [{"role": "user", "content": "Tell a story. " * 7000}]})


@pytest.mark.parametrize(
    ("method", "repeatable"),
    # A stream that isn't stored begins with progress, behind which its status would wait to be read.
    [(METHODS[0], True), (METHODS[0], False), (METHODS[1], True)],
    ids=["with a request_id", "without", "stream"],
)
async def test_unread_answers_are_bounded(
    method: str, repeatable: bool, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsent = UnsentResponses(max_bytes_per_caller=LIMIT)
    monkeypatch.setattr(boundary, "UnsentResponses", lambda: unsent)
    asked = refine(PROMPT)
    asked.request_id = str(uuid4()) if repeatable else ""
    async with (
        serve.running(settings_for(standin)) as address,
        grpc.aio.insecure_channel(address, SMALL_WINDOW) as channel,
    ):
        read = channel.unary_unary(METHODS[0], as_it_is, bytes)
        size = len(await read(asked.SerializeToString(), timeout=30))
        assert 100_000 < size < LIMIT / 2
        # Its caller has it a little before the server knows that it has been sent.
        await until(lambda: not unsent.bytes)
        # A stream of answers isn't read unless it is asked for them.
        unread = [channel.unary_stream(method, as_it_is, bytes)(asked.SerializeToString()) for _ in range(REPEATS)]
        held = LIMIT // size
        await until(lambda: sum(call.done() for call in unread) >= REPEATS - held)
        refused = [call for call in unread if call.done()]
        assert len(refused) == REPEATS - held
        assert {await call.code() for call in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert "send the call again with the same request_id" in str(await refused[0].details())
        # As long as grpc holds them they count, whatever has become of the task that sent them.
        # The times that they tell differ by a few bytes.
        assert held * (size - 100) <= unsent.bytes <= LIMIT
        for call in unread:
            call.cancel()
        await until(lambda: not unsent.bytes)
        assert len(await read(asked.SerializeToString(), timeout=30)) >= size
    assert standin.started == (1 if repeatable else REPEATS + 2)


def test_who_reads_nothing_keeps_nobody_from_an_answer() -> None:
    unsent = UnsentResponses(max_bytes_per_caller=100, max_bytes=150)
    for caller in ("a", "b"):
        assert unsent.add(caller, 100)
    assert not unsent.add("a", 1)
    assert unsent.add("c", 100)


async def test_answers_that_are_read_are_never_refused(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boundary, "UnsentResponses", partial(UnsentResponses, max_bytes_per_caller=LIMIT))
    asked = refine(PROMPT)
    asked.request_id = str(uuid4())
    async with connected(settings_for(standin)) as stub:
        for _ in range(12):
            assert not (await stub.CallTool(asked, timeout=30)).is_error
    assert standin.started == 1


@pytest.mark.parametrize("method", METHODS)
async def test_who_reads_nothing_holds_up_no_shutdown(
    method: str, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_calls, "MAX_SEND_SECONDS", 0.2)
    settings = settings_for(standin, AGENTA_AI_GRPC_SHUTDOWN_GRACE_SECONDS="3600")
    async with asyncio.timeout(60), AsyncExitStack() as service:
        address = await service.enter_async_context(serve.running(settings))
        async with grpc.aio.insecure_channel(address, SMALL_WINDOW) as channel:
            unread = channel.unary_stream(method, as_it_is, bytes)(refine(PROMPT).SerializeToString())
            await until(lambda: standin.started == 1)
            # What still runs is waited for, whatever else there is.
            asked = refine(guidelines="standin: delay=1").SerializeToString()
            running = channel.unary_unary(METHODS[0], as_it_is, bytes)(asked)
            await until(lambda: standin.started == 2)
            await service.aclose()
            assert await running
            unread.cancel()


def as_it_is(data: bytes) -> bytes:
    return data


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # grpc says nothing when an answer has left
            await asyncio.sleep(0.05)
