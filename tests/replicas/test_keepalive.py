"""The shipped clients' keepalive pings, in all languages: neither an idle connection ends nor one with a long call."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from calls import REFINE, TEMPLATE
from conformance.clients import ROOT, clients
from conformance.program import Program
from conftest import SLOW
from replicas.callers import build
from replicas.replica import replicas

if TYPE_CHECKING:
    from agenta_ai_server.standin.app import StandIn

# They ping every 30 seconds, and the third ping that comes too early would end the connection.
IDLE_SECONDS = 125
CALL_SECONDS = 58
ARGUMENTS = {"prompt_template_json": json.dumps(TEMPLATE), "guidelines": f"standin: delay={CALL_SECONDS}"}


async def status(program: Program, address: str) -> str:
    asked = {"id": "status", "target": address, "method": "Status", "request": {}, "client": "shipped"}
    return str((await program.ask(asked, 120)).get("code"))


async def long_call(program: Program, address: str) -> str:
    request = {"name": REFINE, "arguments": ARGUMENTS, "requestId": str(uuid4())}
    asked = {"id": "call", "target": address, "method": "CallTool", "request": request, "client": "shipped"}
    answer = await program.ask(asked | {"timeout": 90}, 120)
    return str(answer.get("code") or answer)


@pytest.mark.skipif(not SLOW, reason="takes minutes: make test-slow")
@pytest.mark.timeout(900)
async def test_connections_live(standin: StandIn, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.getbasetemp().parent
    commands = [build(name, folder) for name, client in clients().items() if not client.missing]
    async with replicas(standin) as made, AsyncExitStack() as stack:
        replica = await made.make()
        programs = [await Program(command, ROOT).start() for command in commands]
        for program in programs:
            stack.push_async_callback(program.kill)
        fine = ["OK"] * len(programs)
        assert await asyncio.gather(*(status(program, replica.address) for program in programs)) == fine
        connected = replica.peers()
        await asyncio.sleep(IDLE_SECONDS)
        assert await asyncio.gather(*(long_call(program, replica.address) for program in programs)) == fine
        assert replica.peers() == connected
    assert standin.started == len(programs)
