"""The contract as a later version may have it: what the scripted server speaks, and today's clients must bear."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool

import agenta_ai.v1
from agenta_ai.tools.agenta.api.v1 import api_tools_service_pb2

PACKAGE = "agenta.ai.v1"
# Those of a tool are of their own package.
TYPED_FILE = api_tools_service_pb2.DESCRIPTOR
NUMBER = 1000
FIELD = descriptor_pb2.FieldDescriptorProto
# What each message has besides, under that number.
ADDED: dict[str, tuple[str, FIELD.Type.ValueType]] = {
    # On the wire, a new kind of content is a field like any other.
    "ContentBlock": ("table", FIELD.TYPE_STRING),
    "CallToolResponse": ("confidence", FIELD.TYPE_DOUBLE),
    "CallToolStreamResponse": ("note", FIELD.TYPE_STRING),
    "Progress": ("share", FIELD.TYPE_DOUBLE),
    "CallMeta": ("cost", FIELD.TYPE_STRING),
    "ToolError": ("advice", FIELD.TYPE_STRING),
    "Tool": ("price", FIELD.TYPE_FIXED64),
    "ListToolsResponse": ("total", FIELD.TYPE_INT32),
    "StatusResponse": ("region", FIELD.TYPE_STRING),
    "RefinePromptResponse": ("note", FIELD.TYPE_STRING),
}


def response(method: str, content: dict[str, Any]) -> bytes:
    """The response of a method, given as JSON, as it is sent.

    Raises:
        json_format.ParseError: It is none, not even of the later contract.
    """
    name = f"{method}Response"
    package = TYPED_FILE.package if name in TYPED_FILE.message_types_by_name else PACKAGE
    message = message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{package}.{name}"))()
    data: bytes = json_format.ParseDict(content, message).SerializeToString()
    return data


@cache
def _pool() -> DescriptorPool:
    (folder,) = agenta_ai.v1.__path__
    files = descriptor_pb2.FileDescriptorSet.FromString((Path(folder) / "descriptor_set.binpb").read_bytes())
    pool = DescriptorPool()
    typed = descriptor_pb2.FileDescriptorProto()
    TYPED_FILE.CopyToProto(typed)
    for file in (*files.file, typed):
        for message in file.message_type:
            if file.package in (PACKAGE, TYPED_FILE.package) and message.name in ADDED:
                name, kind = ADDED[message.name]
                message.field.add(name=name, number=NUMBER, type=kind, label=FIELD.LABEL_OPTIONAL, json_name=name)
        pool.Add(file)
    return pool
