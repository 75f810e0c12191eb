"""A port and who shares it, the files that may be open, and connections that are asked to renew themselves."""

from __future__ import annotations

import asyncio
import resource
from typing import TYPE_CHECKING

import pytest
from calls import TEMPLATE
from replicas.replica import PATIENCE, replicas

from agenta_ai import Client

if TYPE_CHECKING:
    from agenta_ai_server.standin.app import StandIn

SHARING = "processes that share the port"


@pytest.mark.parametrize("sharing", [(), ("--reuse-port",)], ids=repr)
async def test_a_port_is_shared_only_if_both_want_it(sharing: tuple[str, ...], standin: StandIn) -> None:
    async with replicas(standin) as made:
        one = await made.make(*sharing)
        other = await made.spawn(AGENTA_AI_GRPC_LISTEN=one.address)
        assert await other.ended() == 3
    assert other.log[-1] == (
        f"agenta-ai-server can't listen on {one.address}: it is in use. AGENTA_AI_GRPC_LISTEN sets the address."
    )


async def test_who_shares_a_port_without_a_redis_is_warned(standin: StandIn) -> None:
    async with replicas(standin) as made:
        one, other = await made.on_one_port(2)
        alone = await made.make()
        assert other.address == one.address
    assert [len(replica.said(SHARING)) for replica in (one, other, alone)] == [1, 1, 0]


@pytest.mark.parametrize(
    ("soft", "hard", "becomes"), [(256, 20_000, 12_500), (15_000, 20_000, 15_000), (256, 1_000, 1_000)]
)
async def test_as_many_files_may_be_open_as_are_needed(soft: int, hard: int, becomes: int, standin: StandIn) -> None:
    own = resource.getrlimit(resource.RLIMIT_NOFILE)
    if own[1] < hard:
        pytest.skip("this machine doesn't allow so many files")
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))"
    async with replicas(standin) as made:
        replica = await made.make(prelude=limit)
        assert resource.prlimit(replica.process.pid, resource.RLIMIT_NOFILE) == (becomes, hard)
    warned = replica.said(f"no more than {hard} files may be open")
    assert len(warned) == (becomes == hard)


async def test_connections_renew_themselves_and_no_call_notices(standin: StandIn) -> None:
    async with replicas(standin, AGENTA_AI_GRPC_MAX_CONNECTION_AGE_SECONDS="1") as made:
        replica = await made.make()
        seen: set[int] = set()
        async with Client(replica.address) as client, asyncio.timeout(PATIENCE):
            # Longer than a connection's age, as a model may take.
            slow = asyncio.create_task(client.refine_prompt(TEMPLATE, guidelines="standin: delay=2.5"))
            calls = 0
            while len(seen) < 4:
                await client.refine_prompt(TEMPLATE)
                calls += 1
                seen |= replica.peers()
            await slow
    assert standin.started == calls + 1
