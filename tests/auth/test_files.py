"""Callers who hold all files that the server may open don't keep a revoked key alive."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import grpc.aio
from replicas.replica import Replica

from agenta_ai.v1.tool_service_pb2 import StatusRequest
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub
from agenta_ai_server.auth.key_file import create_key, revoke_key

if TYPE_CHECKING:
    from pathlib import Path

FILES = 300
FEW_FILES = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({FILES}, {FILES}))"


async def test_a_key_is_revoked_although_strangers_hold_many_connections(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key = create_key(path, user="u", organization="o", project="p", permissions=["edit_workflows"], expires=None)
    replica = Replica(
        prelude=FEW_FILES,
        AGENTA_AI_GRPC_AUTH="api_keys",
        AGENTA_AI_GRPC_API_KEYS_FILE=str(path),
        AGENTA_AI_GRPC_LISTEN="127.0.0.1:0",
        AGENTA_AI_GRPC_LOG_FORMAT="text",
        AGENTA_AI_SERVICES_API_URL="",
    )
    async with AsyncExitStack() as opened:
        opened.push_async_callback(replica.aclose)
        await replica.start()
        host, _, port = replica.address.rpartition(":")
        channel = await opened.enter_async_context(grpc.aio.insecure_channel(replica.address))
        stub: Any = ToolServiceStub(channel)
        metadata = (("authorization", f"ApiKey {key}"),)
        await stub.Status(StatusRequest(), metadata=metadata, timeout=10)
        for _ in range(FILES + 30):
            _, writer = await asyncio.open_connection(host, int(port))
            opened.callback(writer.close)
        revoke_key(path, key.split("_")[1])
        refused = None
        async with asyncio.timeout(10):
            while not refused:
                try:
                    await stub.Status(StatusRequest(), metadata=metadata, timeout=10)
                except grpc.aio.AioRpcError as error:
                    refused = error.code()
                await asyncio.sleep(0.1)
    assert refused is grpc.StatusCode.UNAUTHENTICATED
    assert not replica.said("Too many open files")
