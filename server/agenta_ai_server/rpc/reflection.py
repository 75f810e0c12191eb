"""Reflection: describes the server, including comments, to callers such as grpcurl."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha.reflection import aio

from agenta_ai_server.concurrency.turns import Turns
from agenta_ai_server.rpc import messages, open_methods
from agenta_ai_server.rpc.status import SERVICE
from agenta_ai_server.typed.generation import Generation, contract_files

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from google.protobuf.descriptor import FileDescriptor
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    from agenta_ai_server.rpc.messages import Context
    from agenta_ai_server.rpc.typed_tools import TypedTools

LISTED = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
# Open calls of one connection, and of all of them. Tools have one.
MAX_CALLS = 10
MAX_CALLS_IN_ALL = 100
# v1 differs from v1alpha in nothing but its name. It isn't listed, since its descriptor isn't in the pool, and a caller
# that asked to have it described would fail.
VERSIONS = (reflection.SERVICE_NAME, "grpc.reflection.v1.ServerReflection")

Request: TypeAlias = reflection_pb2.ServerReflectionRequest
Response: TypeAlias = reflection_pb2.ServerReflectionResponse


def handlers(typed: TypedTools) -> Iterator[grpc.GenericRpcHandler]:
    """Return the handlers of the reflection service, which is open to everyone, in both versions.

    Args:
        typed: Knows the services of the tools, which come and go.
    """
    # Made anew when the tools have changed.
    answers = lru_cache(maxsize=1)(_Answers)
    calls, turns = _Calls(), Turns()

    async def answer(requests: Any, context: Context) -> AsyncIterator[bytes]:
        connection = context.peer()
        if not calls.begin(connection):
            message = (
                f"Too many calls of reflection are open (maximum {MAX_CALLS} per connection, {MAX_CALLS_IN_ALL} in "
                "all). End some of them."
            )
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, message)
        async for request in _in_time(requests):
            async with turns.turn(connection):
                response = await answers(typed.current).answer(request)
                # Other tasks run before the next response.
                await asyncio.sleep(0)
            yield response

    method: Any = grpc.stream_stream_rpc_method_handler(answer, _request)
    for version in VERSIONS:
        yield grpc.method_handlers_generic_handler(version, {"ServerReflectionInfo": method})


class _Calls:
    """Counts the open calls of each connection: each may hold an unread response of some hundred KiB."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def begin(self, connection: str) -> bool:
        """Count a call until its task ends, unless there are too many."""
        task = asyncio.current_task()
        assert task
        if self._open[connection] >= MAX_CALLS or self._open.total() >= MAX_CALLS_IN_ALL:
            return False
        self._open[connection] += 1
        # A generator that is left in the middle may end much later.
        task.add_done_callback(lambda _: self._end(connection))
        return True

    def _end(self, connection: str) -> None:
        self._open[connection] -= 1
        if not self._open[connection]:
            del self._open[connection]


class _Answers:
    """The answers about one generation of tools. They never change, so each file's is serialized once.

    Args:
        generation: The tools.
    """

    def __init__(self, generation: Generation) -> None:
        self._pool = _Pool(generation)
        self._servicer = aio.ReflectionServicer((*LISTED, *generation.services), pool=self._pool)
        self._serialized: dict[bytes, bytes] = {}

    async def answer(self, request: Request) -> bytes:
        """Return the serialized response."""
        equal = self._normalized(request)
        if equal is None:
            return (await self._made(request)).SerializeToString()
        key = equal.SerializeToString()
        if key not in self._serialized:
            response = await self._made(equal)
            response.ClearField("original_request")
            self._serialized[key] = response.SerializeToString()
        # Two serialized messages in a row are one with the fields of both.
        return self._serialized[key] + Response(original_request=request).SerializeToString()

    def _normalized(self, request: Request) -> Request | None:
        """Return the request that many have the answer of, so that what is kept is bounded by what exists."""
        kind = request.WhichOneof("message_request")
        if kind == "list_services":
            return Request(list_services="")
        try:
            if kind == "file_by_filename":
                name = self._pool.FindFileByName(request.file_by_filename).name
            elif kind == "file_containing_symbol":
                name = self._pool.FindFileContainingSymbol(request.file_containing_symbol).name
            else:
                return None
        except KeyError:
            return None
        return Request(file_by_filename=name)

    async def _made(self, request: Request) -> Response:
        async def requests() -> AsyncIterator[Request]:
            yield request

        responses: Any = self._servicer.ServerReflectionInfo(requests(), None)
        response: Response = await anext(responses)
        return response


async def _in_time(requests: AsyncIterator[Request]) -> AsyncIterator[Request]:
    """Yield the requests until the next one takes too long: what has arrived of it takes memory."""
    with suppress(TimeoutError, StopAsyncIteration):
        while True:
            async with asyncio.timeout(messages.MAX_READ_SECONDS):
                request = await anext(requests)
            yield request


def _request(data: bytes) -> Request:
    """Read a request; an unreadable one counts as empty, which reflection refuses without exposing an exception.

    So does one that is too large: the response repeats it, and stays in memory until it is read.
    """
    if len(data) > open_methods.MAX_BYTES:
        return Request()
    try:
        return Request.FromString(data)
    except DecodeError:
        return Request()


class _Pool:
    """Python's descriptors, and those of the tools, with the comments and JSON names, which Python's pools drop."""

    def __init__(self, generation: Generation) -> None:
        self._pools = (generation.pool, descriptor_pool.Default())
        self._shipped = {file.name: file for file in contract_files()} | dict(generation.files)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pools[-1], name)

    def FindFileByName(self, name: str) -> _File:  # noqa: N802  # the name is that of Python's pool
        return self._first("FindFileByName", name)

    def FindFileContainingSymbol(self, symbol: str) -> _File:  # noqa: N802
        try:
            return self._first("FindFileContainingSymbol", symbol)
        except KeyError:
            # Methods are symbols too, and ghz looks them up. Python's pool has a separate look-up for them.
            return self._first("FindMethodByName", symbol)

    def _first(self, find: str, name: str) -> _File:
        """Return the file that the first pool finds.

        Raises:
            KeyError: None does.
        """
        for pool in self._pools:
            try:
                found = getattr(pool, find)(name)
            except KeyError:
                continue
            file = found.containing_service.file if find == "FindMethodByName" else found
            return _File(file, self._shipped)
        raise KeyError(name)


class _File:
    """As much of a file descriptor as reflection reads."""

    def __init__(self, descriptor: FileDescriptor, shipped: dict[str, FileDescriptorProto]) -> None:
        self.name = descriptor.name
        self._descriptor = descriptor
        self._shipped = shipped

    @property
    def dependencies(self) -> list[_File]:
        return [_File(dependency, self._shipped) for dependency in self._descriptor.dependencies]

    def CopyToProto(self, proto: FileDescriptorProto) -> None:  # noqa: N802
        if self.name in self._shipped:
            proto.CopyFrom(self._shipped[self.name])
        else:
            self._descriptor.CopyToProto(proto)
