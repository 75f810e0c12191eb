"""Callers that don't read their answers: what they may hold, and for how long."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import grpc.aio
from calls import refine
from conftest import connected, settings_for

from agenta_ai_server.commands import serve
from agenta_ai_server.rpc import boundary
from agenta_ai_server.rpc.unsent import UnsentAnswers

if TYPE_CHECKING:
    import pytest

    from agenta_ai_server.standin.app import StandIn

METHOD = "/agenta.ai.v1.ToolService/CallTool"
LIMIT = 1 << 20
SECONDS = 1.5
SMALL_WINDOW = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024)]
REPEATS = 40
# No answer of this size fits into a stream's window.
PROMPT = json.dumps({"messages": [{"role": "user", "content": "Tell a story. " * 7000}]})


async def test_unread_answers_are_bounded_in_bytes_and_in_time(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    unsent = UnsentAnswers(max_bytes_of_caller=LIMIT, max_seconds=SECONDS)
    monkeypatch.setattr(boundary, "UnsentAnswers", lambda: unsent)
    asked = refine(PROMPT)
    asked.request_id = str(uuid4())
    async with (
        serve.running(settings_for(standin)) as address,
        grpc.aio.insecure_channel(address, SMALL_WINDOW) as channel,
    ):
        read = channel.unary_unary(METHOD, as_it_is, bytes)
        size = len(await read(asked.SerializeToString(), timeout=30))
        assert 100_000 < size < LIMIT / 2
        # A stream of answers isn't read unless it is asked for them.
        unread = [channel.unary_stream(METHOD, as_it_is, bytes)(asked.SerializeToString()) for _ in range(REPEATS)]
        over = await asyncio.gather(*map(ended, unread))
        refused = [call for call, is_over in zip(unread, over, strict=True) if is_over]
        held = REPEATS - len(refused)
        assert held * size <= LIMIT < (held + 1) * size
        assert {await call.code() for call in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert "send the call again with the same request_id" in str(await refused[0].details())
        # Those that nobody reads are given up, and there is room again.
        await until_there_is_room(unsent)
        assert len(await read(asked.SerializeToString(), timeout=30)) >= size
        for call in unread:
            call.cancel()
    assert standin.started == 1


async def test_answers_that_are_read_are_never_refused(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boundary, "UnsentAnswers", partial(UnsentAnswers, max_bytes_of_caller=LIMIT))
    asked = refine(PROMPT)
    asked.request_id = str(uuid4())
    async with connected(settings_for(standin)) as stub:
        for _ in range(12):
            assert not (await stub.CallTool(asked, timeout=30)).is_error
    assert standin.started == 1


def as_it_is(data: bytes) -> bytes:
    return data


async def ended(call: grpc.aio.UnaryStreamCall[bytes, bytes]) -> bool:
    try:
        await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(call.code())), 1)
    except TimeoutError:
        return False
    return True


async def until_there_is_room(unsent: UnsentAnswers) -> None:
    async with asyncio.timeout(20):
        while unsent.bytes:  # noqa: ASYNC110  # grpc says nothing when an answer has left
            await asyncio.sleep(0.05)
