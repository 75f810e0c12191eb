"""The contract in other states than today's, for tests of compatibility: with types of their own, made at run time."""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from agenta_ai.v1 import content_pb2, error_pb2, tool_pb2, tool_service_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from google.protobuf.message import Message
    from google.rpc import status_pb2

PACKAGE = "agenta.ai.v1"
SERVICE = f"{PACKAGE}.ToolService"
DETAILS = "grpc-status-details-bin"
WELL_KNOWN = {
    "google.protobuf.Duration": "1.5s",
    "google.protobuf.Struct": {"key": [1.5, None]},
    "google.protobuf.Timestamp": "2026-11-21T10:00:00Z",
    "google.protobuf.Value": {"key": True},
}
SCALARS = {
    FieldDescriptor.TYPE_BOOL: True,
    FieldDescriptor.TYPE_BYTES: "AAE=",
    FieldDescriptor.TYPE_INT32: 7,
    FieldDescriptor.TYPE_INT64: 7,
    FieldDescriptor.TYPE_STRING: "text",
    FieldDescriptor.TYPE_UINT32: 7,
}
CODES = {code.value[0]: code for code in grpc.StatusCode}
ADDED = 1000
# The generated types, by their names.
TODAY = {
    message.name: GetMessageClass(message)
    for module in (tool_service_pb2, tool_pb2, content_pb2, error_pb2)
    for message in module.DESCRIPTOR.message_types_by_name.values()
}


class Version:
    """The contract in one state."""

    def __init__(self, contract: FileDescriptorSet) -> None:
        self._pool = DescriptorPool()
        for file in contract.file:
            self._pool.AddSerializedFile(file.SerializeToString())
        self._methods = self._pool.FindServiceByName(SERVICE).methods
        self.methods = [method.name for method in self._methods]
        self.messages = [one.name for file in contract.file if file.package == PACKAGE for one in file.message_type]

    def message(self, name: str) -> type[Message]:
        return GetMessageClass(self._pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))

    def make(self, name: str, fields: dict[str, Any]) -> Message:
        """A message, given as its JSON."""
        return json_format.ParseDict(fields, self.message(name)())

    def stub(self, channel: grpc.aio.Channel) -> Any:
        """What generated code would have: a method for each of the service's."""

        def call(method: Any) -> Any:
            request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
            return channel.unary_unary(
                f"/{SERVICE}/{method.name}",
                request_serializer=request.SerializeToString,
                response_deserializer=response.FromString,
            )

        return SimpleNamespace(**{method.name: call(method) for method in self._methods})

    @asynccontextmanager
    async def server(self, answers: Mapping[str, Message | status_pb2.Status]) -> AsyncIterator[str]:
        """A server of this version, which has these answers to its methods; yields its address."""
        server = grpc.aio.server()
        handlers = {
            method.name: grpc.unary_unary_rpc_method_handler(
                _answerer(answers[method.name]),
                request_deserializer=GetMessageClass(method.input_type).FromString,
                response_serializer=GetMessageClass(method.output_type).SerializeToString,
            )
            for method in self._methods
            if method.name in answers
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(None)


def _answerer(answer: Message | status_pb2.Status) -> Any:
    async def respond(_request: Message, context: Any) -> Message:
        if answer.DESCRIPTOR.full_name != "google.rpc.Status":
            return answer
        status: Any = answer
        await context.abort(CODES[status.code], status.message, ((DETAILS, status.SerializeToString()),))
        raise AssertionError("abort returned")

    return respond


def released() -> Version:
    """The last release."""
    return Version(FileDescriptorSet.FromString((Path(__file__).parent / "baseline.binpb").read_bytes()))


def future() -> Version:
    """A version that doesn't exist: today's, with all added that v1 may add."""
    contract = FileDescriptorSet.FromString((files("agenta_ai.v1") / "descriptor_set.binpb").read_bytes())
    for file in contract.file:
        if file.package == PACKAGE:
            _add(file)
    return Version(contract)


def _add(file: FileDescriptorProto) -> None:
    kind = FieldDescriptorProto
    for message in file.message_type:
        message.field.add(name="added", number=ADDED, type=kind.TYPE_STRING, label=kind.LABEL_OPTIONAL)
        if message.name == "ContentBlock":
            video = message.field.add(name="video", number=ADDED + 1, type=kind.TYPE_MESSAGE, label=kind.LABEL_OPTIONAL)
            video.type_name = f".{PACKAGE}.ImageContent"
            video.oneof_index = 0
    for enum in file.enum_type:
        enum.value.add(name=enum.value[0].name.replace("UNSPECIFIED", "ADDED"), number=ADDED)
    for service in file.service:
        added = service.method.add()
        added.CopyFrom(service.method[-2])
        added.name = "CancelTool"


def filled(version: Version, name: str) -> list[Message]:
    """Messages in which each field of the type is set: one, or one for each choice of its ``oneof``."""
    message = version.message(name)
    choices = [field.name for oneof in message.DESCRIPTOR.oneofs if len(oneof.fields) > 1 for field in oneof.fields]
    return [version.make(name, _values(message.DESCRIPTOR, choice)) for choice in choices or [""]]


def _values(message: Any, choice: str = "") -> dict[str, Any]:
    return {
        field.name: [_value(field)] if field.is_repeated else _value(field)
        for field in message.fields
        if _is_chosen(field, choice)
    }


def _is_chosen(field: FieldDescriptor, choice: str) -> bool:
    # An optional field is in a oneof of its own.
    others = field.containing_oneof.fields if field.containing_oneof else [field]
    return len(others) == 1 or field.name == (choice or others[-1].name)


def _value(field: FieldDescriptor) -> Any:
    """Something in JSON that is not the field's default."""
    if field.message_type:
        name = field.message_type.full_name
        return WELL_KNOWN[name] if name in WELL_KNOWN else _values(field.message_type)
    return field.enum_type.values[-1].name if field.enum_type else SCALARS[field.type]
