"""The bridge over HTTP: who may reach it, and how it is told that a caller is refused."""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import socket
import ssl
import struct
import subprocess
import time
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import jwt
import pytest
import uvicorn
from bridge.conftest import ARGUMENTS, COMMAND, REFINE, REVISIONS, clean_environment, http_bridge, http_client
from cryptography.hazmat.primitives.asymmetric import rsa
from garbage import without_garbage_collection
from jwt.algorithms import RSAAlgorithm
from mcp_types import JSONRPCRequest, JSONRPCResponse
from starlette.responses import Response
from uvicorn.server import ServerState

from agenta_ai import CallFailed, Client, InvalidInput, ServiceStatus, cli, codec
from agenta_ai.mcp import body, bridge, caller_check, connections, http, listening, sessions
from agenta_ai.mcp.callers import holder
from agenta_ai.mcp.shares import Hold, Shares
from agenta_ai.mcp.turns import PacedTurns, Turns
from agenta_ai.testing import FakeClient
from agenta_ai.v1 import tool_service_pb2 as pb
from agenta_ai_server.testing import run_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from client.conftest import Certificates, FakeServer

    from agenta_ai_server.testing import LocalService

ISSUER = "https://issuer.example"
RESOURCE = "https://ai.example.com/mcp"
PROTECTED = http.Access(resource=RESOURCE, issuer=ISSUER)
DISCOVER = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {
        "protocolVersion": REVISIONS[1],
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
CANCELLED = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def token(key: rsa.RSAPrivateKey) -> Callable[..., str]:
    def token(**claims: Any) -> str:
        wanted = {
            "iss": ISSUER,
            "aud": RESOURCE,
            "sub": "ann",
            "organization": "acme",
            "permissions": ["edit_workflows"],
        }
        times = {"iat": int(time.time()), "exp": int(time.time()) + 60}
        return jwt.encode({**wanted, **times, **claims}, key, "RS256", {"kid": "one"})

    return token


@pytest.fixture(scope="module")
def protected(key: rsa.RSAPrivateKey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalService]:
    """A service that accepts the tokens of one issuer, for one audience."""
    file = tmp_path_factory.mktemp("keys") / "jwks.json"
    public = {**RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "one", "alg": "RS256", "use": "sig"}
    file.write_text(json.dumps({"keys": [public]}))
    settings = {
        "AGENTA_AI_GRPC_AUTH": "jwt",
        "AGENTA_AI_GRPC_JWT_ISSUER": ISSUER,
        "AGENTA_AI_GRPC_JWT_AUDIENCE": RESOURCE,
        "AGENTA_AI_GRPC_JWT_JWKS_FILE": str(file),
    }
    with run_service(settings) as service:
        yield service


@pytest.mark.parametrize("revision", REVISIONS)
async def test_the_credentials_of_each_request_go_on_to_the_service(
    protected: LocalService, token: Callable[..., str], revision: str
) -> None:
    async with (
        http_bridge(protected.address, PROTECTED) as url,
        http_client(url, revision, Authorization=f"Bearer {token()}") as client,
    ):
        tools = (await client.list_tools()).tools
        result = await client.call_tool(REFINE, ARGUMENTS)
    assert REFINE in [tool.name for tool in tools]
    assert not result.is_error


async def test_a_refused_caller_gets_401_and_learns_who_issues_tokens(
    protected: LocalService, token: Callable[..., str]
) -> None:
    described = 'resource_metadata="https://ai.example.com/.well-known/oauth-protected-resource/mcp"'
    cases = {
        "nothing": ({}, f"Bearer {described}"),
        "nonsense": ({"Authorization": "Bearer nonsense"}, f'Bearer error="invalid_token", {described}'),
        "what cannot be sent": ({"Authorization": "Bearer \xff"}, f'Bearer error="invalid_token", {described}'),
        "a token for another service": (
            {"Authorization": f"Bearer {token(aud='https://other.example')}"},
            f'Bearer error="invalid_token", {described}',
        ),
        "a token that has expired": (
            {"Authorization": f"Bearer {token(exp=1)}"},
            f'Bearer error="invalid_token", {described}',
        ),
    }
    async with http_bridge(protected.address, PROTECTED) as url, httpx.AsyncClient(headers=HEADERS) as client:
        for case, (headers, challenge) in cases.items():
            for method in ("POST", "GET", "DELETE"):
                sent = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
                response = await client.request(method, url, headers=sent)
                assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, challenge), case
        response = await client.get(url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp"))
    assert response.json() == {
        "resource": RESOURCE,
        "resource_name": "Agenta AI services",
        "authorization_servers": [ISSUER],
        "bearer_methods_supported": ["header"],
    }


async def test_without_an_issuer_there_is_nothing_to_learn(protected: LocalService) -> None:
    async with http_bridge(protected.address) as url, httpx.AsyncClient(headers=HEADERS) as client:
        response = await client.post(url, json=DISCOVER)
        described = await client.get(url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp"))
    assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert described.status_code == 404


async def test_a_session_belongs_to_the_credentials_that_began_it(
    protected: LocalService, token: Callable[..., str]
) -> None:
    async with http_bridge(protected.address) as url, httpx.AsyncClient(headers=HEADERS) as client:
        ann, ben = ({"Authorization": f"Bearer {token(sub=name)}"} for name in ("ann", "ben"))
        response = await client.post(url, headers=ann, json=INITIALIZE)
        session = {"Mcp-Session-Id": response.headers["Mcp-Session-Id"], "MCP-Protocol-Version": REVISIONS[1]}
        stolen = await client.post(url, headers={**ben, **session}, json=DISCOVER)
        own = await client.post(url, headers={**ann, **session}, json=DISCOVER)
    assert (stolen.status_code, own.status_code) == (404, 200)


async def test_nobody_takes_the_sessions_of_others(
    protected: LocalService, token: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS_OF_CALLER", 2)
    async with http_bridge(protected.address) as url, httpx.AsyncClient(headers=HEADERS) as client:
        ann, ben = ({"Authorization": f"Bearer {token(sub=name)}"} for name in ("ann", "ben"))
        # The same credential, for another project and in another spelling.
        project = {**ann, "X-Agenta-Project-Id": "other"}
        spelling = {"Authorization": ann["Authorization"].replace("Bearer ", "bearer  ")}
        responses = [await client.post(url, headers=who, json=INITIALIZE) for who in (ann, project, spelling, ben)]
        assert [response.status_code for response in responses] == [200, 200, 503, 200]
        ended = {**ann, "Mcp-Session-Id": responses[0].headers["Mcp-Session-Id"]}
        await client.delete(url, headers=ended)
        assert (await client.post(url, headers=ann, json=INITIALIZE)).status_code == 200


async def test_who_begins_without_credentials_shares_the_sessions(
    service: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS_OF_CALLER", 1)
    async with http_bridge(service.address) as url, httpx.AsyncClient(headers=HEADERS) as client:
        assert [(await client.post(url, json=INITIALIZE)).status_code for _ in range(3)] == [200] * 3


def calling(
    url: str, revision: str, headers: dict[str, str], *, size: int = 0, values: int = 0, number: int = 1
) -> dict[str, Any]:
    """Return a call of a tool with arguments of so many bytes and values, for :meth:`httpx.AsyncClient.stream`."""
    of_client = {"protocolVersion": revision, "clientInfo": {"name": "test", "version": "1"}, "clientCapabilities": {}}
    meta = {f"io.modelcontextprotocol/{key}": value for key, value in of_client.items()}
    params = {"name": REFINE, "arguments": {"text": "x" * size, "values": [0] * values}, "_meta": meta}
    routed = {"MCP-Protocol-Version": revision, "Mcp-Method": "tools/call", "Mcp-Name": REFINE, **headers}
    message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    return {"method": "POST", "url": url, "headers": routed, "json": message}


async def begun(client: httpx.AsyncClient, url: str, **headers: str) -> dict[str, str]:
    """Begin a session, and return the headers of its requests."""
    response = await client.post(url, headers=headers, json=INITIALIZE)
    return {**headers, "Mcp-Session-Id": response.headers["Mcp-Session-Id"], "MCP-Protocol-Version": REVISIONS[1]}


def large_messages() -> int:
    gc.collect()
    messages = [each for each in gc.get_objects() if isinstance(each, JSONRPCRequest | JSONRPCResponse)]
    return sum(isinstance(message.id, str) and len(message.id) > 1000 for message in messages)


async def test_sessions_keep_no_requests_or_responses(server: FakeServer) -> None:
    """Otherwise they would keep the last of each."""
    ping = {"jsonrpc": "2.0", "id": "k" * 100_000, "method": "ping"}
    async with http_bridge(server.target) as url, httpx.AsyncClient(headers=HEADERS) as client:
        session = await begun(client, url)
        response = await client.post(url, headers=session, json=ping)
        assert len(response.content) > 100_000
        await begun(client, url)  # meanwhile the first session lets go
        assert large_messages() == 0


async def test_a_stream_begins_where_it_is_even_if_it_should_be_resumed(server: FakeServer) -> None:
    async with http_bridge(server.target) as url, httpx.AsyncClient(headers=HEADERS) as client:
        session = await begun(client, url, **{"Last-Event-ID": "1"})
        async with client.stream("GET", url, headers=session) as response:
            assert response.status_code == 200


@pytest.mark.parametrize("begins", [True, False], ids=["first", "again"])
async def test_a_session_begins_with_a_small_request(server: FakeServer, begins: bool) -> None:
    """A session keeps it until it ends."""
    async with http_bridge(server.target) as url, httpx.AsyncClient(headers=HEADERS) as client:
        headers = {} if begins else await begun(client, url)
        response = await client.post(url, headers=headers, json={**INITIALIZE, "id": "k" * 20_000})
    assert response.status_code == 413


@pytest.mark.parametrize("revision", REVISIONS)
async def test_large_requests_are_counted_until_their_calls_end(
    server: FakeServer, revision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In earlier revisions, a call goes on when its connection has closed."""
    monkeypatch.setattr(body, "MAX_BYTES_OF_CALLER", 150_000)
    server.answers(None)
    large = {"jsonrpc": "2.0", "id": "k" * 100_000, "method": "ping"}
    async with http_bridge(server.target) as url, httpx.AsyncClient(headers=HEADERS) as client:
        ann, ben = [await begun(client, url, Authorization=f"Bearer {name}") for name in ("ann", "ben")]
        headers = ann if revision == REVISIONS[1] else {"Authorization": "Bearer ann"}
        call = calling(url, revision, headers, size=100_000)
        running = asyncio.create_task(client.request(**call))
        assert await asyncio.to_thread(server.service.asked.wait, 10)
        if revision == REVISIONS[1]:
            await ended(running)
        assert (await client.post(url, headers=ben, json=large)).status_code == 200
        assert (await client.post(url, headers=ann, json={**large, "id": 2})).status_code == 200
        refused = await client.post(url, headers=ann, json=large)
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
        await ended(running)
        await client.post(url, headers=ann, json=CANCELLED)
        await server.left()
        while (await client.post(url, headers=ann, json=large)).status_code == 503:
            pass


async def test_running_calls_are_counted_until_they_end(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bridge, "MAX_CALLS_OF_CALLER", 1)
    server.answers(None)
    async with http_bridge(server.target) as url, httpx.AsyncClient(headers=HEADERS) as client:
        ann, ben = [await begun(client, url, Authorization=f"Bearer {name}") for name in ("ann", "ben")]
        for who in (ann, ben):
            running = asyncio.create_task(client.request(**calling(url, REVISIONS[1], who)))
            assert await asyncio.to_thread(server.service.asked.wait, 10)
            server.service.asked.clear()
            await ended(running)
        refused = await client.request(**calling(url, REVISIONS[1], ann, number=2))
        assert "Too many calls are running. Try again in 5 s." in refused.text
        assert '"retryDelaySeconds":5.0' in refused.text
        server.answers(pb.CallToolResponse())
        await client.post(url, headers=ann, json=CANCELLED)
        while "Too many" in (response := await client.request(**calling(url, REVISIONS[1], ann))).text:
            pass
        assert response.status_code == 200


async def ended(task: asyncio.Task[Any]) -> None:
    """Cancel a task, and wait for it."""
    task.cancel()
    await asyncio.wait([task])


async def test_a_slash_too_many_leads_nowhere(service: LocalService) -> None:
    async with http_bridge(service.address) as url, httpx.AsyncClient(headers=HEADERS) as client:
        response = await client.post(f"{url}/", headers={"Host": "evil.example"}, json=DISCOVER)
    assert response.status_code == 404


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("[" + "0," * 2_000_000 + "0]", 413),
        ("[" + "{}," * 30_000 + "{}]", 413),
        ("[" + "0," * 12_000 + "0]", 413),
        ('"' + "a, b: [c], {d} " * 50_000 + '"', 400),
        ("[" * 100_000 + "]" * 100_000, 413),
        ("[" * 10_000 + "]" * 10_000, 400),
        ("[" + "{}," * 30_000 + "!", 413),
        ("{}" * 100_000, 413),
        ('""' * 100_000, 413),
        ("[" + "0," * 9_000 + '"' + " " * 70_000 + '"]', 400),
        ('"' + " " * (5 << 20) + '"', 413),
    ],
    ids=[
        "numbers",
        "objects",
        "few bytes",
        "text",
        "levels",
        "few levels",
        "broken",
        "broken objects",
        "broken strings",
        "few values",
        "bytes",
    ],
)
async def test_a_flood_of_values_is_refused_before_it_is_read(service: LocalService, value: str, status: int) -> None:
    """A 400 is the SDK's, which misses the rest of the request."""
    async with http_bridge(service.address) as url, httpx.AsyncClient(headers=HEADERS) as client:
        response = await client.post(url, content=f'{{"arguments": {value}}}')
    assert response.status_code == status


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1", 1),
        ("[]", 1),
        ("[ \n]", 1),
        ("[1]", 2),
        ("[[[1]]]", 4),
        ("[[], [ ], { }, {}]", 5),
        ('{"a": {}, "b": [{"c": 1}], "d": "e"}', 6),
        (r'{"a,[{:\\": "\"}],[{\"", "b": 1}', 3),
        ('[ {"a" : "b"} , ["c", {"d" : [] } ] , "e" ]', 8),
    ],
)
async def test_values_are_counted_without_being_read(text: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "MAX_VALUES", count)
    with holds(0, 0)("") as hold:
        await body.read(receiving(text.encode(), None), hold)
        monkeypatch.setattr(body, "MAX_VALUES", count - 1)
        with pytest.raises(body.Refusal, match="too many values"):
            await body.read(receiving(text.encode(), None), hold)


async def test_what_is_not_utf_8_is_not_counted() -> None:
    """In UTF-16, parts of other characters look like quotes."""
    with holds(0, 0)("") as hold, pytest.raises(body.Refusal, match="UTF-8") as refused:
        await body.read(receiving('["\u0122", 1]'.encode("utf-16"), None), hold)
    assert refused.value.response.status_code == 400


def receiving(*chunks: bytes | None) -> Callable[[], Awaitable[dict[str, Any]]]:
    """Return what brings these chunks, then nothing more; ``None`` says that the sender left."""
    left = list(chunks)

    async def receive() -> dict[str, Any]:
        if not left:
            await asyncio.Event().wait()
        chunk = left.pop(0)
        if chunk is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": True}

    return receive


LARGE = b"x" * body.LARGE_BYTES
ROOM = body.LARGE_BYTES + body.VALUE_BYTES


def holds(most: int, most_of_caller: int) -> Callable[[str], Hold]:
    shares = Shares(most, most_of_caller)
    return lambda holder: Hold(shares, holder)


async def test_many_values_are_large() -> None:
    many = b"[" + b"0," * (body.LARGE_BYTES // body.VALUE_BYTES) + b"0]"
    hold = holds(2 * body.LARGE_BYTES, 2 * body.LARGE_BYTES)
    with hold("") as one, hold("") as two:
        await body.read(receiving(many, None), one)
        with pytest.raises(body.Refusal, match="Too many large requests"):
            await body.read(receiving(many, None), two)
        await body.read(receiving(many[: len(many) // 2], None), two)


async def test_callers_take_turns() -> None:
    turns, order = PacedTurns(), list[str]()

    async def take(name: str) -> None:
        await turns.take(name[0])
        order.append(name)

    running = [asyncio.create_task(take(name)) for name in ("a1", "a2", "a3", "a4", "b1", "b2", "c1")]
    await asyncio.sleep(0)
    await ended(running[1])
    await asyncio.gather(*running[2:])
    assert order == ["a1", "b1", "c1", "a3", "b2", "a4"]


@pytest.mark.parametrize("revision", REVISIONS)
async def test_between_long_conversions_there_are_pauses(
    server: FakeServer, revision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[tuple[float, float]] = []

    def to_struct(arguments: Any) -> Any:
        began = time.monotonic()
        time.sleep(0.02)
        struct = convert(arguments)
        times.append((began, time.monotonic()))
        return struct

    convert = codec.to_struct
    monkeypatch.setattr(codec, "to_struct", to_struct)
    async with http_bridge(server.target) as url, httpx.AsyncClient(headers=HEADERS) as client:
        headers = await begun(client, url) if revision == REVISIONS[1] else {}
        calls = [calling(url, revision, headers, values=1000, number=number) for number in range(5)]
        await asyncio.gather(*(client.request(**call) for call in calls))
    assert len(times) == len(calls)
    for (began, end), (following, _) in pairwise(times):
        assert following - end >= end - began


async def test_large_bodies_have_a_bound_together() -> None:
    hold = holds(2 * ROOM, ROOM)
    with hold("") as one, hold("") as two, hold("") as three:
        await body.read(receiving(LARGE, None), one)
        slow = asyncio.create_task(body.read(receiving(LARGE), two))
        await asyncio.sleep(0)
        with pytest.raises(body.Refusal, match="Too many large requests") as refused:
            await body.read(receiving(LARGE), three)
        assert refused.value.response.status_code == 503
        await body.read(receiving(LARGE[body.VALUE_BYTES + 1 :], None), three)
        await ended(slow)
    with hold("") as four:
        again, _ = await body.read(receiving(LARGE, None), four)
    assert [(await again())["type"] for _ in range(2)] == ["http.request", "http.disconnect"]


async def test_nobody_takes_the_room_for_the_bodies_of_others() -> None:
    hold = holds(3 * ROOM, ROOM)
    with hold("ann") as one, hold("ann") as two, hold("ben") as three:
        await body.read(receiving(LARGE, None), one)
        with pytest.raises(body.Refusal, match="Too many large requests"):
            await body.read(receiving(LARGE, None), two)
        await body.read(receiving(LARGE, None), three)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ([("authorization", "ApiKey one")], [("authorization", "apikey   one ")], True),
        ([("authorization", "ApiKey one")], [("authorization", "ApiKey one"), ("x-agenta-project-id", "a")], True),
        ([("authorization", "ApiKey one")], [("authorization", "ApiKey two")], False),
        ([("authorization", "ApiKey one")], [("authorization", "Bearer one")], False),
        ([], [("x-agenta-project-id", "a")], True),
    ],
)
def test_a_credential_has_one_share(one: list[tuple[str, str]], other: list[tuple[str, str]], is_same: bool) -> None:
    assert (holder(tuple(one)) == holder(tuple(other))) is is_same


async def test_a_body_that_does_not_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "READ_SECONDS", 0.0)
    with pytest.raises(body.Refusal, match="hasn't arrived") as refused:
        await body.read(receiving(b"x"), Hold(Shares(0, 0), ""))
    assert refused.value.response.status_code == 408


@pytest.mark.parametrize("sent", [b"", b"GET /mcp HTTP/1.1\r\nHost: x\r\nX: "], ids=["nothing", "half of a head"])
async def test_a_connection_without_a_request_is_closed(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.01)
    config = uvicorn.Config(lambda *_: None, http=connections.Connection)
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: connections.Connection(config=config, server_state=ServerState(), app_state={}), "127.0.0.1", 0
    )
    async with server, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(sent)
        assert await _rest(reader) == b""
        writer.close()


async def _rest(reader: asyncio.StreamReader) -> bytes:
    """What comes until the connection is closed. The system resets one whose last bytes the server hasn't read."""
    with suppress(ConnectionError):
        return await reader.read()
    return b""


CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


@asynccontextmanager
async def listening_for(
    application: Any = lambda *_: None, **options: Any
) -> AsyncIterator[Callable[..., Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]]:
    """Listen for connections, and yield what opens one."""
    config = uvicorn.Config(application, timeout_keep_alive=60)
    config.load()
    state = ServerState()
    options = {"turns": Turns(), **options}
    server = await asyncio.get_running_loop().create_server(
        lambda: connections.Connection(config=config, server_state=state, app_state={}, **options),
        "127.0.0.1",
        0,
    )
    async with server, asyncio.timeout(10):
        try:
            yield partial(asyncio.open_connection, *server.sockets[0].getsockname())
        finally:
            for connection in [*state.connections]:
                connection.transport.abort()
            await asyncio.sleep(0)


@pytest.mark.parametrize("sent", [b"", CLIENT_HELLO, b"GET /mcp HTTP/1.1\r\n\r\n"], ids=["nothing", "half", "no TLS"])
async def test_a_tls_handshake_that_does_not_end_is_closed(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.01)
    async with listening_for(tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) as connect:
        reader, writer = await connect()
        writer.write(sent)
        await _rest(reader)
        await _close(writer)


@pytest.mark.parametrize("sent", [CLIENT_HELLO, b"GET /mcp HTTP/1.1\r\n\r\n"], ids=["half", "no TLS"])
async def test_a_failed_tls_handshake_leaves_no_garbage(sent: bytes) -> None:
    """Each has large buffers, and thousands of them fail before Python looks for garbage."""
    with without_garbage_collection():
        async with listening_for(tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) as connect:
            for _ in range(3):
                _, writer = await connect()
                writer.write(sent)
                await writer.drain()
                writer.close()
            await _all_are_gone()


async def test_a_reset_connection_is_forgotten() -> None:
    gc.collect()
    async with listening_for(Response()) as connect:
        reader, writer = await connect()
        writer.write(b"GET /mcp HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
        await _all_are_gone(gc.collect)


async def _all_are_gone(collect: Callable[[], object] = lambda: None) -> None:
    while any(type(each) is connections.Connection for each in gc.get_objects()):
        await asyncio.sleep(0.001)
        collect()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


@pytest.mark.parametrize("tls", [None, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)], ids=["plain", "TLS"])
async def test_too_many_connections_are_closed(tls: ssl.SSLContext | None) -> None:
    async with listening_for(tls=tls, most=2) as connect:
        kept = [await connect() for _ in range(2)]
        reader, refused = await connect()
        assert await reader.read() == b""
        for _, writer in (*kept, (reader, refused)):
            await _close(writer)


async def test_a_burst_of_connections_does_not_wait() -> None:
    with listening.address("127.0.0.1:0").bind() as listener, ExitStack() as clients:
        server = await asyncio.start_server(lambda *_: None, sock=listener, backlog=connections.BACKLOG)
        # None is accepted meanwhile, as the event loop waits here.
        for _ in range(3 * connections.BACKLOG):
            clients.enter_context(socket.create_connection(listener.getsockname(), timeout=5))
        server.close()


async def test_a_connection_that_ends_makes_room() -> None:
    async with listening_for(most=1) as connect:
        _, first = await connect()
        await _close(first)
        answer = b""
        while not answer:  # the server may hear of the end later than this side
            reader, writer = await connect()
            with suppress(ConnectionError):
                writer.write(b"nonsense\r\n\r\n")
                answer = await reader.read()
            await _close(writer)
    assert answer.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    ("soft", "hard", "most"),
    [(1024, 1024, 768), (256, 4096, 1000), (256, -1, 1000), (100_000, 100_000, 1000), (-1, -1, 1000), (64, 64, 1)],
)
def test_there_are_files_for_all_connections(soft: int, hard: int, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [soft, hard]
    monkeypatch.setattr(resource, "getrlimit", lambda _: tuple(limits))
    monkeypatch.setattr(resource, "setrlimit", lambda _, changed: limits.__setitem__(slice(None), changed))
    assert connections.max_connections() == most
    assert limits[0] >= soft
    assert limits[1] == hard


@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize(("most", "seconds"), [(1 << 20, 60.0), (64 << 20, 0.01)], ids=["too much", "too long"])
async def test_an_answer_that_is_not_read_is_dropped(
    most: int, seconds: float, is_encrypted: bool, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    unread = Shares(most, most)
    monkeypatch.setattr(connections.Connection, "unread", unread)
    monkeypatch.setattr(connections, "UNREAD_SECONDS", seconds)
    sent = asyncio.Event()

    async def application(scope: Any, _: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(32 << 20), "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        sent.set()

    config = uvicorn.Config(application, http=connections.Connection)
    config.load()
    state, loop = ServerState(), asyncio.get_running_loop()
    tls, trusting = contexts(certificates) if is_encrypted else (None, None)
    server = await loop.create_server(
        lambda: connections.Connection(config=config, server_state=state, app_state={}, tls=tls), "127.0.0.1", 0
    )
    async with server, asyncio.timeout(30):
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=trusting)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await sent.wait()
        for _ in iter(lambda: len(state.connections), 0):
            await asyncio.sleep(0.001)
        assert unread.take("", most), "nothing is counted any more"
        writer.transport.abort()


@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "TLS"])
async def test_nothing_is_answered_while_an_answer_is_not_read(
    is_encrypted: bool, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    unread = Shares(64 << 20, 18 << 20)
    monkeypatch.setattr(connections.Connection, "unread", unread)
    user = SimpleNamespace(access_token=SimpleNamespace(subject="caller"))
    answered = 0

    async def application(scope: Any, receive: Any, send: Any) -> None:
        nonlocal answered
        await receive()
        answered += 1
        scope["user"] = user
        await Response(bytes(16 << 20))(scope, receive, send)

    tls, trusting = contexts(certificates) if is_encrypted else (None, None)
    async with listening_for(application, tls=tls) as connect:
        reader, writer = await connect(ssl=trusting)
        writer.write(POST_X * 5)
        while unread.take("caller", 12 << 20):
            unread.give_back("caller", 12 << 20)
            await asyncio.sleep(0.001)
        for _ in range(100):
            await asyncio.sleep(0)
        assert answered == 1
        for _ in range(5):
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(16 << 20)
        assert answered == 5
        await _close(writer)


async def test_with_tls_an_answer_counts_until_it_has_been_read(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    unread = Shares(64 << 20, 64 << 20)
    monkeypatch.setattr(connections.Connection, "unread", unread)
    tls, trusting = contexts(certificates)
    async with listening_for(Response(bytes(32 << 20)), tls=tls) as connect:
        reader, writer = await connect(ssl=trusting)
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"200 OK" in head
            assert not unread.take("", 48 << 20)
            assert await reader.readexactly(32 << 20) == bytes(32 << 20)
            for _ in iter(lambda: unread.take("", 64 << 20), True):
                await asyncio.sleep(0.001)
            unread.give_back("", 64 << 20)
        writer.transport.abort()


POST = b"POST /flood HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
POST_X = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\n{}\n"
GET = b"GET /flood HTTP/1.1\r\nhost: x\r\n\r\n"


class Counting:
    """An application that counts the requests and the bytes that reach it.

    Args:
        answers_early: Whether it answers a request before its body.
    """

    def __init__(self, *, answers_early: bool = False) -> None:
        self.count = 0
        self._answers_early = answers_early

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message: dict[str, Any] = {"more_body": not self._answers_early}
        while message.get("more_body"):
            message = await receive()
            self.count += len(message.get("body", b""))
        self.count += scope["path"] == "/flood"
        await Response()(scope, receive, send)


@pytest.mark.parametrize("sent", [POST + b"1\r\na\r\n" * 40_000, GET * 4000], ids=["chunks", "requests"])
@pytest.mark.parametrize("connections", [1, 5])
async def test_a_flood_does_not_delay_other_connections(sent: bytes, connections: int) -> None:
    application = Counting()
    async with listening_for(application) as connect:
        floods = [(await connect())[1] for _ in range(connections)]
        for flood in floods:
            flood.write(sent)
        reader, writer = await connect()
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert application.count < 2000
        for each in (*floods, writer):
            await _close(each)


async def test_reading_stops_until_all_that_has_arrived_is_parsed() -> None:
    class Transport(asyncio.Transport):
        is_paused = False

        def pause_reading(self) -> None:
            self.is_paused = True

        def resume_reading(self) -> None:
            self.is_paused = False

        def is_closing(self) -> bool:
            return False

        def close(self) -> None:
            pass

    config = uvicorn.Config(Counting())
    config.load()
    turns = Turns()
    connection = connections.Connection(config=config, server_state=ServerState(), app_state={}, turns=turns)
    transport, arrived = Transport(), 0
    connection.connection_made(transport)
    connection.data_received(POST)
    for _ in range(1000):
        turns.add(lambda: None)
        await asyncio.sleep(0)
        if not transport.is_paused:
            arrived += 1
            # The first chunk is so large that the library pauses, and then resumes reading when it has been received.
            connection.data_received(b"11000\r\n" + bytes(0x11000) + b"\r\n" + b"1\r\na\r\n" * 20_000)
    assert arrived == 1
    connection.connection_lost(None)


def only_connection() -> connections.Connection:
    [found] = [each for each in gc.get_objects() if type(each) is connections.Connection]
    return found


def contexts(certificates: Certificates) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the contexts of the server and of its client."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificates.server, certificates.server_key)
    return tls, ssl.create_default_context(cafile=str(certificates.ca))


async def test_with_tls_reading_stops_too(certificates: Certificates) -> None:
    """Otherwise asyncio keeps many encrypted bytes, beside those that it reads at once."""
    tls, trusting = contexts(certificates)
    begun = asyncio.Event()

    async def application(_: object, receive: Any, __: object) -> None:
        await receive()
        begun.set()
        await receive()

    gc.collect()
    async with listening_for(application, tls=tls) as connect:
        _, writer = await connect(ssl=trusting)
        writer.write(GET * 40_000)
        await begun.wait()
        for _ in range(200):
            await asyncio.sleep(0)
        connection: Any = only_connection()
        assert connection.transport.get_read_buffer_size() < 1 << 14
        assert len(connection._tcp.get_protocol().get_buffer(-1)) == connections.TLS_READ_BYTES
        writer.transport.abort()


@pytest.mark.parametrize("last", [b"connection: close\r\n\r\n", b"no header\r\n"], ids=["answered", "refused"])
async def test_with_tls_a_flood_does_not_keep_a_closed_connection(
    last: bytes, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 60.0)
    tls, trusting = contexts(certificates)
    gc.collect()
    async with listening_for(Counting(), tls=tls) as connect:
        reader, writer = await connect(ssl=trusting)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n" + last + GET * 40)
        assert (await reader.readline()).startswith(b"HTTP/1.1")
        with suppress(OSError):
            await reader.read()
        await _close(writer)
        await _all_are_gone(gc.collect)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a:\r\n" * 100 + b"\r\n", b"200"),
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a:\r\n" * 200, b"400"),
        (GET + b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a:\r\n" * 200, b"400"),
        (POST + b"0\r\n" + b"a:\r\n" * 100 + b"\r\n", b"200"),
        (POST + b"0\r\n" + b"a:\r\n" * 200, b""),
    ],
    ids=["head", "too many", "later", "trailer", "too many in a trailer"],
)
async def test_headers_have_a_limit(sent: bytes, status: bytes) -> None:
    """Each header takes as long as a kilobyte of another one."""
    async with listening_for(Counting()) as connect:
        reader, writer = await connect()
        writer.write(sent)
        if status == b"200":
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        statuses = [line.split()[1] for line in (await reader.read()).splitlines() if line.startswith(b"HTTP/1.1")]
        assert statuses[-1:] == ([status] if status else [])
        await _close(writer)


@pytest.mark.parametrize(
    ("sent", "answers_early"),
    [
        (b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n" + GET, False),
        (POST + b"1\r\na\r\nno size\r\n", True),
    ],
    ids=["a request after the last", "an invalid chunk"],
)
async def test_data_after_a_response_ends_the_connection(
    sent: bytes, answers_early: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening_for(Counting(answers_early=answers_early)) as connect:
        reader, writer = await connect()
        head, rest = sent.split(b"\r\n\r\n", 1)
        writer.write(head + b"\r\n\r\n" + (b"" if answers_early else rest))
        answer = await reader.readuntil(b"\r\n\r\n")
        if answers_early:
            writer.write(rest)
        with suppress(ConnectionError):
            answer += await reader.read()
        assert answer.count(b"HTTP/1.1") == answer.count(b"200 OK") == 1
        await _close(writer)
    assert not caplog.records


async def test_the_rest_of_an_answered_request_is_not_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LINGER_SECONDS", 0.0)
    async with listening_for(Counting(answers_early=True)) as connect:
        reader, writer = await connect()
        writer.write(POST)
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
        await _close(writer)


def test_what_anybody_sends_is_not_logged(service: LocalService) -> None:
    command = [*COMMAND, "--target", service.address, "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, env=clean_environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        try:
            url = process.stderr.readline().split()[-1]
            for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Mcp-Session-Id": "evil"}):
                assert httpx.post(url, headers={**HEADERS, **headers}, json=DISCOVER).status_code >= 400
        finally:
            process.terminate()
        assert "evil" not in process.stderr.read()


@pytest.mark.parametrize(
    ("headers", "access", "status"),
    [
        ({}, http.Access(), 200),
        ({"Host": "localhost:1234"}, http.Access(), 200),
        ({"Host": "evil.example"}, http.Access(), 421),
        ({"Host": "evil.example"}, http.Access(hosts=["ai.example.com"]), 421),
        ({"Host": "ai.example.com"}, http.Access(hosts=["ai.example.com"]), 200),
        ({"Host": "ai.example.com"}, PROTECTED, 200),
        ({"Host": "LOCALHOST."}, http.Access(), 200),
        ({"Host": "localhost:@evil.example"}, http.Access(), 421),
        ({"Host": "localhost:80, evil.example"}, http.Access(), 421),
        ({"Host": "ai.example.com"}, http.Access(hosts=["AI.Example.com.:443"]), 200),
        ({"Host": "AI.example.com:443"}, http.Access(hosts=["ai.example.com"]), 200),
        ({"Host": "ai.example.com:8443"}, http.Access(hosts=["ai.example.com"]), 421),
        ({"Host": "ai.example.com"}, http.Access(hosts=["ai.example.com:*"]), 200),
        ({"Host": "ai.example.com"}, http.Access(resource="https://AI.Example.com:443/mcp", issuer=ISSUER), 200),
        ({"Origin": "http://localhost:6274"}, http.Access(), 200),
        ({"Origin": "http://localhost"}, http.Access(), 200),
        ({"Origin": "https://evil.example"}, http.Access(), 403),
        ({"Origin": "http://localhost.evil.example"}, http.Access(), 403),
        ({"Origin": "null"}, http.Access(), 403),
        ({"Origin": "HTTP://LOCALHOST:80"}, http.Access(), 200),
        ({"Origin": "http://localhost:@evil.example"}, http.Access(), 403),
        ({"Origin": "https://app.example.com"}, http.Access(origins=["https://APP.example.com.:443"]), 200),
        ({"Origin": "https://app.example.com:80"}, http.Access(origins=["https://app.example.com"]), 403),
        ({"Origin": "app://example"}, http.Access(origins=["app://example"]), 200),
        ({"Origin": "https://app.example.com"}, http.Access(origins=["https://app.example.com"]), 200),
        ({"Origin": "https://app.example.com.evil.example"}, http.Access(origins=["https://app.example.com"]), 403),
    ],
)
async def test_pages_of_other_sites_do_not_reach_it(
    service: LocalService, headers: dict[str, str], access: http.Access, status: int
) -> None:
    async with http_bridge(service.address, access) as url, httpx.AsyncClient(headers=HEADERS) as client:
        response = await client.post(url, headers=headers, json=INITIALIZE)
    assert response.status_code == status
    allowed = headers.get("Origin") if access.origins and status == 200 else None
    assert response.headers.get("Access-Control-Allow-Origin") == allowed


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        (b"http://localhost/mcp", "localhost", 200),
        (b"HTTP://LOCALHOST:80/mcp?x", "evil.example", 200),
        (b"http://evil.example/mcp", "localhost", 421),
        (b"http://localhost", "localhost", 404),
    ],
)
async def test_a_target_in_absolute_form(service: LocalService, target: bytes, host: str, status: int) -> None:
    """Its host takes precedence (RFC 9112, 3.2.2)."""
    async with http_bridge(service.address) as url, httpx.AsyncClient(headers={**HEADERS, "Host": host}) as client:
        response = await client.post(url, json=INITIALIZE, extensions={"target": target})
    assert response.status_code == status


def refused(code: str) -> CallFailed:
    import grpc

    return CallFailed("No.", code=grpc.StatusCode[code])


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (ServiceStatus(), None),
        (refused("UNAUTHENTICATED"), 401),
        (refused("PERMISSION_DENIED"), 403),
        (refused("UNAVAILABLE"), 503),
        (refused("DEADLINE_EXCEEDED"), 503),
    ],
)
async def test_only_the_service_accepts_callers(answer: ServiceStatus | CallFailed, status: int | None) -> None:
    check = caller_check.CallerCheck(FakeClient(answer))
    refusal = await check.refusal((("authorization", "Bearer x"),))
    assert (refusal.status_code if refusal else None) == status
    assert ("Retry-After" in refusal.headers if refusal else False) == (status == 503)


async def test_in_an_outage_those_pass_who_were_accepted_before() -> None:
    now = 0.0
    down = refused("UNAVAILABLE")
    asking = FakeClient(ServiceStatus(), down, refused("UNAUTHENTICATED"), down)
    check = caller_check.CallerCheck(asking, clock=lambda: now)
    ann = (("authorization", "Bearer ann"),)
    seen = []
    for _ in range(4):
        refusal = await check.refusal(ann)
        seen.append(refusal.status_code if refusal else None)
        now += caller_check.REMEMBERED_SECONDS
    assert seen == [None, None, 401, 503]


async def test_who_was_accepted_is_asked_about_again_after_a_while() -> None:
    now = 0.0
    asking = FakeClient(*[ServiceStatus()] * 3, refused("UNAUTHENTICATED"))
    check = caller_check.CallerCheck(asking, clock=lambda: now)
    ann, ben = (("authorization", "Bearer ann"),), (("authorization", "Bearer ben"),)
    for caller in (ann, ann, ben, ann):
        assert await check.refusal(caller) is None
    assert len(asking.calls) == 2
    now = caller_check.REMEMBERED_SECONDS
    assert await check.refusal(ann) is None
    assert await check.refusal(ben) is not None
    assert [call.metadata for call in asking.calls] == [ann, ben, ann, ben]


async def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller_check, "MAX_REMEMBERED", 2)
    check = caller_check.CallerCheck(FakeClient(*[ServiceStatus()] * 5))
    for name in "abcde":
        await check.refusal((("authorization", f"Bearer {name}"),))
        assert len(check._accepted) <= 2


def test_answers_do_not_wait_for_acknowledgements() -> None:
    with listening.address("127.0.0.1:0").bind() as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_where_credentials_are_needed_a_caller_without_is_not_asked_about() -> None:
    check = caller_check.CallerCheck(FakeClient(), needs_credentials=True)
    refusal = await check.refusal(())
    assert refusal
    assert refusal.status_code == 401


async def test_checks_of_credentials_do_not_share_the_connection_of_calls(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise new callers would wait while it carries as many calls as it can."""

    async def serve(clients: tuple[Client, Client], *_: object) -> None:
        for client in clients:
            await client.call_tool(REFINE, {})

    monkeypatch.setattr(http, "app", lambda client, asking, *_: (client, asking))
    monkeypatch.setattr(http, "serve", serve)
    server.answers(pb.CallToolResponse())
    assert await asyncio.to_thread(cli.main, ["mcp", "--target", server.target, "--listen", "127.0.0.1:0"]) == 0
    of_calls, of_checks = server.service.peers
    assert of_calls != of_checks


@pytest.mark.parametrize(
    ("text", "host", "port", "is_loopback"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, True),
        ("localhost:0", "localhost", 0, True),
        ("LOCALHOST.:0", "LOCALHOST.", 0, True),
        ("[::1]:80", "::1", 80, True),
        ("0.0.0.0:80", "0.0.0.0", 80, False),
        ("[::]:80", "::", 80, False),
        ("ai.example.com:80", "ai.example.com", 80, False),
        ("10.0.0.1:80", "10.0.0.1", 80, False),
    ],
)
def test_addresses(text: str, host: str, port: int, is_loopback: bool) -> None:
    found = listening.address(text)
    assert (found.host, found.port, found.is_loopback) == (host, port, is_loopback)


@pytest.mark.parametrize("text", ["8080", ":80", "127.0.0.1", "http://127.0.0.1:80", "::1:80", "a:99999", "a:-1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidInput, match="--listen"):
        listening.address(text)


def test_a_port_that_is_in_use() -> None:
    with listening.address("127.0.0.1:0").bind() as listener:
        port = listener.getsockname()[1]
        with pytest.raises(InvalidInput) as refused:
            listening.address(f"127.0.0.1:{port}").bind()
    assert str(refused.value) == f"--listen 127.0.0.1:{port}: Address already in use. Choose another address or port."


async def test_other_machines_reach_it_only_with_tls_and_credentials(
    service: LocalService, protected: LocalService
) -> None:
    everywhere, here = listening.address("0.0.0.0:0"), listening.address("127.0.0.1:0")
    async with Client(service.address) as open_, Client(protected.address) as closed:
        await listening.check_exposure(here, open_, encrypted=False)
        await listening.check_exposure(everywhere, closed, encrypted=True)
        with pytest.raises(InvalidInput, match="in plaintext"):
            await listening.check_exposure(everywhere, closed, encrypted=False)
        with pytest.raises(InvalidInput, match="doesn't require credentials"):
            await listening.check_exposure(everywhere, open_, encrypted=True)
    with pytest.raises(CallFailed, match="Cannot reach"):
        async with Client("127.0.0.1:1", retries=0) as nobody:
            await listening.check_exposure(everywhere, nobody, encrypted=True)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--listen", "0.0.0.0:0"], "in plaintext"),
        (["--listen", "8080"], "must be host:port"),
        (["--listen", "127.0.0.1:0", "--listen-cert", "x"], "belong together"),
        (["--listen", "127.0.0.1:0", "--listen-cert", "missing", "--listen-key", "missing"], "--listen-cert"),
        (["--listen", "127.0.0.1:0", "--issuer", ISSUER], "belong together"),
        (["--listen", "127.0.0.1:0", "--issuer", "issuer", "--resource", RESOURCE], "must be an https URL"),
        (["--listen", "127.0.0.1:0", "--host", "https://ai.example.com"], "must be NAME or NAME:PORT"),
        (["--listen", "127.0.0.1:0", "--host", "ai.example.com/mcp"], "must be NAME or NAME:PORT"),
        (["--listen", "127.0.0.1:0", "--origin", "https://app.example.com/"], "must be https://NAME"),
        (["--listen", "127.0.0.1:0", "--origin", "null"], "must be https://NAME"),
        (["--origin", "https://app.example.com"], "Pass --listen, too"),
        (["--listen", "127.0.0.1:0", "--plaintext", "--target", "ai.example.com:443"], "plaintext"),
    ],
)
def test_what_it_refuses_to_do(
    options: list[str], complaint: str, service: LocalService, capsys: pytest.CaptureFixture[str]
) -> None:
    target = [] if "--target" in options else ["--target", service.address]
    assert cli.main(["mcp", *target, *options]) == 2
    assert complaint in capsys.readouterr().err


async def test_tls(protected: LocalService, token: Callable[..., str], certificates: Certificates) -> None:
    from bridge.conftest import over_http

    options = ["--listen-cert", str(certificates.server), "--listen-key", str(certificates.server_key)]
    with over_http(protected.address, *options) as url:
        assert url.startswith("https://")
        trusting = ssl.create_default_context(cafile=str(certificates.ca))
        async with httpx.AsyncClient(headers=HEADERS, verify=trusting) as client:
            response = await client.post(url, json=DISCOVER)
    assert response.status_code == 401
