"""Channelz: off unless it is switched on, and for callers only who are known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio
import pytest
from calls import details
from conftest import settings_for
from google.protobuf import json_format
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from ops.test_grpcurl import grpcurl

from agenta_ai_server.auth.key_file import create_key
from agenta_ai_server.commands import serve

if TYPE_CHECKING:
    from pathlib import Path

    from agenta_ai_server.standin.app import StandIn


async def servers(address: str, key: str = "", data: bytes | None = None) -> dict[str, Any]:
    metadata = [("authorization", f"ApiKey {key}")] if key else []
    async with grpc.aio.insecure_channel(address) as channel:
        if data is not None:
            raw: Any = channel.unary_unary("/grpc.channelz.v1.Channelz/GetServers")
            answer = channelz_pb2.GetServersResponse.FromString(await raw(data, metadata=metadata, timeout=10))
        else:
            stub: Any = channelz_pb2_grpc.ChannelzStub(cast("Any", channel))
            answer = await stub.GetServers(channelz_pb2.GetServersRequest(), metadata=metadata, timeout=10)
        return json_format.MessageToDict(answer)


async def test_it_is_off_by_default(address: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await servers(address)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_who_is_known_sees_the_connections_and_nobody_else(
    tmp_path: Path, standin: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.json"
    key = create_key(path, user="u", organization="o", project="p", expires=None)
    settings = settings_for(
        standin,
        AGENTA_AI_GRPC_CHANNELZ="on",
        AGENTA_AI_GRPC_AUTH="api_keys",
        AGENTA_AI_GRPC_API_KEYS_FILE=str(path),
    )
    async with serve.running(settings) as address:
        for data in (None, b"\xff"):
            seen = await servers(address, key, data)
            assert any("127.0.0.1" in each["name"] for server in seen["server"] for each in server["listenSocket"])
        for wrong in ("", "aai_000000000000_" + "0" * 64):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await servers(address, wrong)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert {"ErrorInfo", "RequestInfo"} <= details(refused.value).keys()
    assert len([record for record in caplog.records if record.message == "access denied"]) == 2


@pytest.mark.needs("grpcurl")
async def test_grpcurl_needs_no_file(standin: StandIn) -> None:
    async with serve.running(settings_for(standin, AGENTA_AI_GRPC_CHANNELZ="on")) as address:
        code, out, _ = await grpcurl(address, "grpc.channelz.v1.Channelz/GetServers")
    assert code == 0
    # Newer versions of grpcio-channelz describe their fields without the names for JSON.
    assert any(server.get("listenSocket") or server.get("listen_socket") for server in json.loads(out)["server"])
