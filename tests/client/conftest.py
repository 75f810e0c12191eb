"""A small server on a real port, which answers what a test tells it to."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import grpc.aio
import pytest
import trustme
from addresses import free_address
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from agenta_ai import Client, SyncClient
from agenta_ai.v1 import tool_service_pb2 as pb
from agenta_ai.v1 import tool_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

SERVICE = "agenta.ai.v1.ToolService"


# A response, or a function that makes one; or a refusal, with or without the milliseconds after which to call again
# (-1: never); or nothing, ever. In a list: progress, and one of these, or an ellipsis: an end without a result.
Answer = Message | Callable[[Any], Message] | tuple[status_pb2.Status, int] | list[Any] | None


class FakeService(tool_service_pb2_grpc.ToolServiceServicer):
    """Answers each call with the next answer, the last one again and again; ``None`` never comes."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.asked = threading.Event()
        self.left = threading.Event()
        self.requests: list[Any] = []
        self.metadata: list[dict[str, Any]] = []
        self.time_remaining: list[float] = []
        self.times: list[float] = []
        self.peers: list[str] = []
        self.in_threads = False
        self.trailers: tuple[tuple[str, str], ...] = ()

    async def _answer(self, request: Any, context: Any) -> Any:
        return await self._end(self._next(request, context), request, context)

    async def CallToolStream(self, request: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        answer = self._next(request, context)
        *progress, last = answer if isinstance(answer, list) else [answer]
        for each in progress:
            yield pb.CallToolStreamResponse(progress=each)
        if last is ...:
            return
        yield pb.CallToolStreamResponse(result=await self._end(last, request, context))

    def _next(self, request: Any, context: Any) -> Any:
        self.times.append(time.monotonic())
        self.requests.append(request)
        self.peers.append(context.peer())
        self.metadata.append(dict(context.invocation_metadata()))
        self.time_remaining.append(context.time_remaining())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None or (isinstance(answer, list) and answer[-1] is None):
            # It only ends because its caller leaves, also while the progress before it is written.
            context.add_done_callback(lambda _: self.left.set())
        # Last: who waits for it, in another thread, looks at the others.
        self.asked.set()
        return answer

    async def _end(self, answer: Any, request: Any, context: Any) -> Any:
        if callable(answer):
            return await asyncio.to_thread(answer, request) if self.in_threads else answer(request)
        if answer is None:
            await asyncio.Event().wait()
        if isinstance(answer, tuple):
            status: Any = rpc_status.to_status(answer[0])
            pushback = ("grpc-retry-pushback-ms", str(answer[1]))
            await context.abort_with_status(status._replace(trailing_metadata=(*status.trailing_metadata, pushback)))
        if isinstance(answer, status_pb2.Status):
            await context.abort_with_status(rpc_status.to_status(answer))
        context.set_trailing_metadata(self.trailers)
        return answer

    Status = ListTools = CallTool = _answer


# Becomes the command that it is given, with Ctrl-C as it is in a terminal: where the tests run in the background, they
# and all that they start ignore it. The grpc of this process doesn't always survive a fork, which preexec_fn needs.
BOOTSTRAP = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])
"""


class FakeServer:
    """The service on a loop in a thread of its own, so that clients with and without asyncio can call it.

    It listens at ``address``, or at one of its own: channels to one address share their attempts to connect, so that a
    new server at the address of a lost one is found late.
    """

    def __init__(self, address: str = "", credentials: grpc.ServerCredentials | None = None) -> None:
        self.service = FakeService()
        self._health = health.aio.HealthServicer()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.target = address or free_address()
        self._run(self._start(credentials))

    def answers(self, *answers: Answer) -> None:
        self.service.answers = list(answers)

    def healthy(self, healthy: bool) -> None:
        states = health_pb2.HealthCheckResponse
        self._run(self._health.set(SERVICE, states.SERVING if healthy else states.NOT_SERVING))

    async def left(self) -> None:
        """Waits until a caller has left a call that isn't answered."""
        assert await asyncio.to_thread(self.service.left.wait, 10)

    def cut(self) -> None:
        """Breaks the connection in mid-call, as when the server is killed."""
        self._run(self._server.stop(None))

    def close(self) -> None:
        self._run(self._server.stop(None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self, credentials: grpc.ServerCredentials | None) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        tool_service_pb2_grpc.add_ToolServiceServicer_to_server(self.service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        await self._health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        if credentials is None:
            self._server.add_insecure_port(self.target)
        else:
            self._server.add_secure_port(self.target, credentials)
        await self._server.start()

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)


class Call(Protocol):
    async def __call__(self, method: str, *args: Any, client: dict[str, Any] | None = None, **kwargs: Any) -> Any: ...


@pytest.fixture
def server() -> Iterator[FakeServer]:
    server = FakeServer()
    yield server
    server.close()


@dataclass(frozen=True)
class Certificates:
    """Files in PEM. Both certificates are of the authority ``ca``; that of the caller is for the client."""

    ca: Path
    server: Path
    server_key: Path
    caller: Path
    caller_key: Path

    def channel(self, *, caller: bool = False) -> grpc.ChannelCredentials:
        mine = (self.caller_key.read_bytes(), self.caller.read_bytes()) if caller else (None, None)
        return grpc.ssl_channel_credentials(self.ca.read_bytes(), *mine)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    authority, folder = trustme.CA(key_type=trustme.KeyType.ECDSA), tmp_path_factory.mktemp("certificates")
    authority.cert_pem.write_to_path(str(folder / "ca"))
    for owner, name in (("server", "127.0.0.1"), ("caller", "caller.example")):
        issued = authority.issue_cert(name, key_type=trustme.KeyType.ECDSA)
        issued.cert_chain_pems[0].write_to_path(str(folder / owner))
        issued.private_key_pem.write_to_path(str(folder / f"{owner}_key"))
    return Certificates(*(folder / name for name in ("ca", "server", "server_key", "caller", "caller_key")))


@pytest.fixture(params=["TLS", "mTLS"])
def tls_server(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[FakeServer]:
    """A server with TLS, and one that also wants a certificate of its callers."""
    pair = (certificates.server_key.read_bytes(), certificates.server.read_bytes())
    credentials = grpc.ssl_server_credentials([pair], certificates.ca.read_bytes(), request.param == "mTLS")
    server = FakeServer(credentials=credentials)
    yield server
    server.close()


@pytest.fixture(params=[Client, SyncClient])
def call(request: pytest.FixtureRequest, server: FakeServer) -> Call:
    """Calls a method of either client: ``await call("status", client={...}, timeout=1)``. Events become a list."""

    def of_sync(method: str, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        with SyncClient(**options) as client:
            answer = getattr(client, method)(*args, **kwargs)
            return list(answer) if isinstance(answer, Generator) else answer

    async def call(method: str, *args: Any, client: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        options = {"target": server.target, **(client or {})}
        if request.param is SyncClient:
            return await asyncio.to_thread(of_sync, method, args, kwargs, options)
        async with Client(**options) as opened:
            answer = getattr(opened, method)(*args, **kwargs)
            return [event async for event in answer] if isinstance(answer, AsyncGenerator) else await answer

    return call


@pytest.fixture
def refused() -> Callable[..., status_pb2.Status]:
    """Makes a status with our details: ``refused(StatusCode.NOT_FOUND, "TOOL_NOT_FOUND", "no such tool")``."""

    def refused(code: grpc.StatusCode, reason: str, message: str, *details: Message) -> status_pb2.Status:
        info = error_details_pb2.ErrorInfo(domain="agenta.ai", reason=f"ERROR_REASON_{reason}")
        status = status_pb2.Status(code=code.value[0], message=message)
        for detail in (info, error_details_pb2.RequestInfo(request_id="call-7"), *details):
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        return status

    return refused


@pytest.fixture
def answer() -> Callable[..., pb.CallToolResponse]:
    """Makes the answer of a tool from JSON."""

    def answer(**fields: Any) -> pb.CallToolResponse:
        return ParseDict(fields, pb.CallToolResponse())

    return answer
