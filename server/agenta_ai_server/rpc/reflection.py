"""The server's description of itself, comments included, for callers such as grpcurl."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha.reflection import aio

import agenta_ai.v1
from agenta_ai_server.rpc.status import SERVICE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from google.protobuf.descriptor import FileDescriptor
    from google.protobuf.message import Message

    from agenta_ai_server.rpc.boundary import Context

LISTED = (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME)
# v1 differs from v1alpha in nothing but its name. It isn't listed, since its descriptor isn't in the pool, and a caller
# that asked to have it described would fail.
VERSIONS = (reflection.SERVICE_NAME, "grpc.reflection.v1.ServerReflection")


def handlers() -> Iterator[grpc.GenericRpcHandler]:
    """Make the handlers of the reflection service, which answers everybody, in the versions that callers ask for."""
    servicer = aio.ReflectionServicer(LISTED, pool=_Pool())

    async def answer(requests: Any, context: Context) -> AsyncIterator[Message]:
        responses: Any = servicer.ServerReflectionInfo(requests, context)
        async for response in responses:
            yield response

    method = grpc.stream_stream_rpc_method_handler(
        answer,
        _request,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for version in VERSIONS:
        yield grpc.method_handlers_generic_handler(version, {"ServerReflectionInfo": method})


def _request(data: bytes) -> reflection_pb2.ServerReflectionRequest:
    """Read a request; an unreadable one counts as empty, which reflection refuses without exposing an exception."""
    try:
        return reflection_pb2.ServerReflectionRequest.FromString(data)
    except DecodeError:
        return reflection_pb2.ServerReflectionRequest()


class _Pool:
    """Python's descriptors, with the comments and JSON names of the shipped descriptor set, which Python drops."""

    def __init__(self) -> None:
        self._pool = descriptor_pool.Default()
        shipped = FileDescriptorSet.FromString((files(agenta_ai.v1) / "descriptor_set.binpb").read_bytes())
        self._shipped = {file.name: file for file in shipped.file}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileByName(self, name: str) -> _File:  # noqa: N802  # the name is that of Python's pool
        return _File(self._pool.FindFileByName(name), self._shipped)

    def FindFileContainingSymbol(self, symbol: str) -> _File:  # noqa: N802
        try:
            file = self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            # Methods are symbols too, which ghz asks for. Python finds them only if told what they are.
            file = self._pool.FindMethodByName(symbol).containing_service.file
        return _File(file, self._shipped)


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
