"""Keepalive pings as docs/contract.md allows them: with and without a call, the connection lives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc.aio
import pytest
from calls import refine

from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub

if TYPE_CHECKING:
    from agenta_ai_server.standin.app import StandIn

# The third ping that comes too early ends the connection.
PINGS = 4
SECONDS = 8.5
OPTIONS = [
    ("grpc.keepalive_time_ms", round(SECONDS * 1000)),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


async def state_after_pings(channel: grpc.aio.Channel) -> grpc.ChannelConnectivity:
    await channel.channel_ready()
    await asyncio.sleep(PINGS * SECONDS)
    return channel.get_state()


@pytest.mark.timeout(120)
async def test_pings_every_eight_and_a_half_seconds(address: str, standin: StandIn) -> None:
    async with (
        grpc.aio.insecure_channel(address, OPTIONS) as idle,
        grpc.aio.insecure_channel(address, OPTIONS) as busy,
    ):
        call = ToolServiceStub(busy).CallTool(refine(guidelines="standin: delay=36"), timeout=80)
        states = await asyncio.gather(state_after_pings(idle), state_after_pings(busy))
        assert set(states) == {grpc.ChannelConnectivity.READY}
        assert not (await call).is_error
    assert standin.started == 1
