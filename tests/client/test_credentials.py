from __future__ import annotations

import asyncio
import re
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import grpc.experimental
import pytest
from google.rpc import status_pb2

from agenta_ai import AgentaError, CallFailed, Client, InvalidInput, SyncClient
from agenta_ai.connection import connection
from agenta_ai.v1 import tool_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from client.conftest import Call, Certificates, FakeServer

FINE = pb.StatusResponse(enabled=True)
UNAVAILABLE = status_pb2.Status(code=14, message="down")
SECRET = "aai_s3cr3t"
REMOTE = "ai.example.com:443"
PLAINTEXT = grpc.experimental.insecure_channel_credentials()  # type: ignore[no-untyped-call]

# Every way to say who calls.
CREDENTIALS: dict[str, dict[str, Any]] = {
    "api_key": {"api_key": SECRET},
    "token": {"token": SECRET},
    # Its repr() shows the secret.
    "token_provider": {"token_provider": partial(str, SECRET)},
    "metadata": {"metadata": [("Authorization", f"Secret {SECRET}")]},
}
SENT = {
    "api_key": f"ApiKey {SECRET}",
    "token": f"Bearer {SECRET}",
    "token_provider": f"Bearer {SECRET}",
    "metadata": f"Secret {SECRET}",
}


@pytest.mark.parametrize("kind", CREDENTIALS)
async def test_every_call_says_who_calls(call: Call, server: FakeServer, kind: str) -> None:
    server.answers(UNAVAILABLE, UNAVAILABLE, FINE)
    assert (await call("status", client={**CREDENTIALS[kind], "project": "p-1"})).enabled
    # The first attempt and both retries.
    sent = [(pairs["authorization"], pairs["x-agenta-project-id"]) for pairs in server.service.metadata]
    assert sent == [(SENT[kind], "p-1")] * 3


async def test_who_does_not_say_who_calls(call: Call, server: FakeServer) -> None:
    server.answers(FINE)
    await call("status")
    assert not {"authorization", "x-agenta-project-id"} & server.service.metadata[0].keys()


async def test_each_call_has_a_token_of_its_own(call: Call, server: FakeServer) -> None:
    tokens = iter(["a", "b", "c"])
    pages = [pb.ListToolsResponse(next_page_token=token) for token in ("1", "2", "")]
    server.answers(UNAVAILABLE, *pages)
    await call("list_tools", client={"token_provider": lambda: next(tokens), "metadata": [("x-team", "search")]})
    # The retry of the first page has the token of its first attempt.
    assert [pairs["authorization"] for pairs in server.service.metadata] == [
        "Bearer a",
        "Bearer a",
        "Bearer b",
        "Bearer c",
    ]
    assert {pairs["x-team"] for pairs in server.service.metadata} == {"search"}


async def test_a_token_that_is_awaited(server: FakeServer) -> None:
    async def provide() -> str:
        await asyncio.sleep(0)
        return SECRET

    server.answers(FINE)
    async with Client(server.target, token_provider=provide) as client:
        await client.status()
    assert server.service.metadata[0]["authorization"] == f"Bearer {SECRET}"


def test_a_token_that_only_the_other_client_awaits(server: FakeServer) -> None:
    async def provide() -> str:
        return SECRET

    with (
        SyncClient(server.target, token_provider=provide) as client,  # type: ignore[arg-type]
        pytest.raises(InvalidInput, match=r"^token_provider: must return a token directly"),
    ):
        client.status()
    assert server.service.requests == []


@pytest.mark.parametrize("error", [ValueError("no token today"), grpc.RpcError(), KeyError("x")], ids=repr)
async def test_an_error_of_the_provider_is_raised_as_it_is(call: Call, server: FakeServer, error: Exception) -> None:
    def provide() -> str:
        raise error

    server.answers(FINE)
    with pytest.raises(type(error)) as raised:
        await call("status", client={"token_provider": provide})
    assert raised.value is error
    assert server.service.requests == []


@pytest.mark.parametrize("token", [None, 5, b"bytes", "", "s3cr3t\n", "s3cr3t \u00e9"])
async def test_what_a_provider_returns_is_checked(call: Call, server: FakeServer, token: Any) -> None:
    server.answers(FINE)
    with pytest.raises(InvalidInput, match=r"^the token of token_provider: must be") as refused:
        await call("status", client={"token_provider": lambda: token})
    assert "s3cr3t" not in str(refused.value)
    assert server.service.requests == []


async def test_a_provider_that_raises_one_error_again_and_again(call: Call, server: FakeServer) -> None:
    error = ValueError("no token today")

    def provide() -> str:
        raise error

    for _ in range(2):
        with pytest.raises(ValueError, match="no token today"):
            await call("status", client={"token_provider": provide})
    assert error.__notes__ == ["agenta_ai: token_provider failed. Nothing was sent."]


@pytest.mark.parametrize("on_progress", [None, print], ids=["unary", "streamed"])
async def test_a_client_that_is_closed_while_a_token_is_made(on_progress: Any, server: FakeServer) -> None:
    asked = asyncio.Event()

    async def provide() -> str:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    client = Client(server.target, token_provider=provide)
    calling = asyncio.ensure_future(client.call_tool("tools.x.y.z", {}, on_progress=on_progress))
    await asked.wait()
    await client.close()
    with pytest.raises(AgentaError, match=r"^The client is closed\. Nothing was sent") as failure:
        await calling
    assert not hasattr(failure.value, "__notes__")
    assert server.service.requests == []


async def test_a_call_that_is_cancelled_while_a_token_is_made(server: FakeServer) -> None:
    asked, ended = asyncio.Event(), asyncio.Event()

    async def provide() -> str:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async with Client(server.target, token_provider=provide) as client:
        calling = asyncio.ensure_future(client.status())
        await asked.wait()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
    assert ended.is_set()


# A call is never sent with a millisecond or less.
@pytest.mark.parametrize("method", ["call_tool", "stream_tool"])
async def test_the_time_of_a_provider_is_the_calls(method: str, call: Call, server: FakeServer) -> None:
    with pytest.raises(
        CallFailed, match=r"^token_provider made no token within 0\.001 s\. Nothing was sent\."
    ) as failure:
        await call(method, "tools.x.y.z", {}, timeout=0.001, client={"token_provider": lambda: SECRET})
    assert failure.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert failure.value.tool_was_run is False
    assert failure.value.request_id
    assert server.service.requests == []


async def test_a_time_out_of_the_providers_own(server: FakeServer) -> None:
    error = TimeoutError("slow")

    async def provide() -> str:
        raise error

    async with Client(server.target, token_provider=provide) as client:
        with pytest.raises(TimeoutError) as raised:
            await client.status()
    assert raised.value is error


async def test_a_token_that_never_comes(server: FakeServer) -> None:
    async def provide() -> str:
        await asyncio.Event().wait()
        raise AssertionError

    async with Client(server.target, token_provider=provide) as client:
        with pytest.raises(CallFailed, match=r"^token_provider made no token within 0\.05 s\."):
            await client.status(timeout=0.05)
    assert server.service.requests == []


@pytest.mark.parametrize("shielded", [False, True])
async def test_a_token_that_calls_share(shielded: bool, server: FakeServer) -> None:
    server.answers(FINE)
    may_come = asyncio.Event()

    async def make() -> str:
        await may_come.wait()
        return SECRET

    making = asyncio.create_task(make())

    async def provide() -> str:
        return await asyncio.shield(making)

    async with Client(server.target, token_provider=provide if shielded else lambda: making) as client:
        with pytest.raises(CallFailed, match=r"^token_provider made no token"):
            await client.status(timeout=0.01)
        waiting = asyncio.create_task(client.status())
        may_come.set()
        await waiting
    assert server.service.metadata[0]["authorization"] == f"Bearer {SECRET}"


async def test_a_shared_token_that_another_call_cancelled(server: FakeServer) -> None:
    asked, never = asyncio.Event(), asyncio.Event()
    making = asyncio.ensure_future(never.wait())

    async def provide() -> str:
        asked.set()
        await making
        raise AssertionError

    async with Client(server.target, token_provider=provide) as client:
        waiting = asyncio.create_task(client.status())
        await asked.wait()
        with pytest.raises(CallFailed):
            await client.status(timeout=0.01)
        with pytest.raises(AgentaError, match=r"^token_provider was cancelled\. .* with asyncio\.shield\."):
            await waiting
    assert server.service.requests == []


def test_threads_make_their_own_tokens(server: FakeServer) -> None:
    server.answers(FINE)
    with SyncClient(server.target, token_provider=lambda: threading.current_thread().name) as client:
        threads = [threading.Thread(target=client.status, name=f"t-{number}") for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {pairs["authorization"] for pairs in server.service.metadata} == {f"Bearer t-{n}" for n in range(4)}


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"api_key": "s3cr3t\n"}, "api_key: must be 1 to 8192 visible ASCII"),
        ({"api_key": " s3cr3t"}, "api_key: must be"),
        ({"api_key": "s3cr3t\u00e9"}, "api_key: must be"),
        ({"api_key": ""}, "api_key: must be"),
        ({"api_key": b"s3cr3t"}, "api_key: must be"),
        ({"token": "Bearer s3cr3t"}, "token: must be"),
        ({"token": "s" * 8193}, "token: must be"),
        ({"project": "s3cr3t\r\nauthorization: x"}, "project: must be"),
        ({"project": ""}, "project: must be"),
        ({"token_provider": "s3cr3t"}, "token_provider: must be a function"),
        ({"api_key": "s3cr3t", "token": "s3cr3t"}, "api_key and token: give only one"),
        ({"api_key": "s3cr3t", "token_provider": str}, "api_key and token_provider: give only one"),
        (
            {"token": "x", "metadata": [("AUTHORIZATION", "s3cr3t")]},
            "token and authorization in metadata: give only one",
        ),
        ({"project": "x", "metadata": [("X-Agenta-Project-Id", "y")]}, "project and x-agenta-project-id in metadata"),
    ],
)
@pytest.mark.parametrize("client", [Client, SyncClient])
def test_credentials_that_cannot_be_used(client: Callable[..., object], given: Any, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{complaint}") as refused:
        client("localhost:1", **given)
    assert "s3cr3t" not in str(refused.value)


@pytest.mark.parametrize("kind", CREDENTIALS)
@pytest.mark.parametrize(
    ("target", "tls", "allowed"),
    [
        (REMOTE, False, False),
        (REMOTE, PLAINTEXT, False),
        ("127.0.0.1.evil.com:1", False, False),
        ("0.0.0.0:1", False, False),
        ("ipv4:127.0.0.1:1,192.0.2.2:1", False, False),
        (REMOTE, None, True),
        (REMOTE, True, True),
        (REMOTE, grpc.ssl_channel_credentials(), True),
        ("localhost:1", False, True),
        ("[::1]:1", None, True),
        ("localhost:1", PLAINTEXT, True),
        ("unix:/run/agenta.sock", None, True),
    ],
)
def test_credentials_reach_other_machines_by_tls_alone(kind: str, target: str, tls: Any, *, allowed: bool) -> None:
    if allowed:
        connection(target, tls=tls, **CREDENTIALS[kind])
        return
    with pytest.raises(
        InvalidInput, match=r"not sent to another machine in plaintext. Nothing was sent. Use TLS"
    ) as refused:
        connection(target, tls=tls, **CREDENTIALS[kind])
    assert SECRET not in str(refused.value)
    # Without credentials, plaintext stays the caller's choice.
    assert connection(target, tls=tls, project="p-1").channel_credentials is None


@pytest.mark.parametrize("kind", CREDENTIALS)
async def test_secrets_are_shown_nowhere(
    call: Call,
    server: FakeServer,
    refused: Callable[..., status_pb2.Status],
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    assert SECRET not in repr(connection("localhost:1", **CREDENTIALS[kind]))
    for client in (Client(server.target, **CREDENTIALS[kind]), SyncClient(server.target, **CREDENTIALS[kind])):
        assert SECRET not in repr(client)
    server.answers(refused(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID", "No."))
    with pytest.raises(CallFailed) as failure:
        await call("status", client=CREDENTIALS[kind])
    assert SECRET not in f"{failure.value} {failure.value!r} {vars(failure.value)}" + caplog.text


@pytest.mark.parametrize(
    ("client", "sentence"),
    [
        ({}, r"requires credentials\. Pass api_key, token or token_provider\."),
        ({"api_key": SECRET}, r"does not accept the credentials from api_key\. Pass valid ones\."),
        (
            {"token_provider": lambda: SECRET},
            r"does not accept the credentials from token_provider\. Pass valid ones\.",
        ),
    ],
    ids=["none", "api_key", "token_provider"],
)
async def test_what_is_refused_names_the_way_out(
    call: Call, server: FakeServer, refused: Callable[..., status_pb2.Status], client: dict[str, Any], sentence: str
) -> None:
    server.answers(refused(grpc.StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID", "Send one."))
    with pytest.raises(CallFailed, match=f"^{re.escape(server.target)} {sentence}$") as failure:
        await call("status", client=client)
    assert (failure.value.message, failure.value.tool_was_run) == ("Send one.", False)


async def test_credentials_over_tls(call: Call, tls_server: FakeServer, certificates: Certificates) -> None:
    tls_server.answers(FINE)
    client = {"target": tls_server.target, "tls": certificates.channel(caller=True), "api_key": SECRET}
    assert (await call("status", client=client)).enabled
    assert tls_server.service.metadata[0]["authorization"] == f"ApiKey {SECRET}"


async def test_plaintext_to_a_server_with_tls(call: Call, tls_server: FakeServer) -> None:
    with pytest.raises(
        CallFailed,
        match=r"the server closes the connection\. Nothing was sent\. Does it require TLS\? Then pass tls=True\.",
    ):
        await call("status", client={"target": tls_server.target})


@pytest.mark.parametrize("tls_server", ["mTLS"], indirect=True)
async def test_a_certificate_is_missing(call: Call, tls_server: FakeServer, certificates: Certificates) -> None:
    client = {"target": tls_server.target, "tls": certificates.channel(), "api_key": SECRET}
    with pytest.raises(CallFailed, match="Does it require another client certificate") as failure:
        await call("call_tool", "tools.x.y.z", {}, client=client)
    assert failure.value.tool_was_run is False
    assert tls_server.service.requests == []


async def test_credentials_over_a_unix_socket(call: Call, server: FakeServer, tmp_path: Path) -> None:
    local = type(server)(f"unix:{tmp_path}/s")
    try:
        local.answers(FINE)
        assert (await call("status", client={"target": local.target, "api_key": SECRET})).enabled
    finally:
        local.close()
    assert local.service.metadata[0]["authorization"] == f"ApiKey {SECRET}"
