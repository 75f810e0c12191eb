"""Builds the typed methods of one generation of the catalog, with their own descriptor pool.

A pool refuses a file that has changed, and messages of two pools don't mix: each generation has its own, and a call
keeps the one that it began with.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files as resources
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

import agenta_ai.v1
from agenta_ai_server.typed.conversion import MessageCodec
from agenta_ai_server.typed.descriptors import files
from agenta_ai_server.typed.shape import Fault
from agenta_ai_server.typed.tools import typed_tools

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.message import Message

    from agenta_ai_server.domain.tool import ToolSpec
    from agenta_ai_server.typed.descriptors import TypedTool
    from agenta_ai_server.typed.lock import Lock


class TypedMethod:
    """The method of one tool.

    Args:
        tool: The tool.
        pool: Knows the messages.

    Attributes:
        tool: Name of the tool.
        shape: Its messages.
        request: Class of the request.
        response: Class of the response.
        arguments: Converts what the tool takes.
        result: Converts what it gives.
    """

    def __init__(self, tool: TypedTool, pool: descriptor_pool.DescriptorPool) -> None:
        self.tool = tool.name
        self.shape = tool.shape
        self.request: Any = _message_class(pool, f"{tool.method.package}.{tool.method.method}Request")
        self.response: Any = _message_class(pool, f"{tool.method.package}.{tool.method.method}Response")
        self.arguments = MessageCodec(tool.shape.arguments)
        self.result = MessageCodec(tool.shape.result)


class Generation:
    """The typed methods of one set of tools.

    Args:
        tools: The tools.
        lock: The numbers of their fields.

    Attributes:
        files: The descriptors of their files, with comments, by name.
        services: Names of their services, sorted.
        methods: The methods by their paths.
        faults: Why some tools have none.
        pool: Knows their messages, and those of the contract.
    """

    def __init__(self, tools: Iterable[ToolSpec], lock: Lock) -> None:
        typed, self.faults = typed_tools(tools, lock)
        self.pool = descriptor_pool.DescriptorPool()
        for file in contract_files():
            self.pool.Add(file)
        self.files: dict[str, FileDescriptorProto] = {}
        for file in files(typed):
            try:
                self.pool.Add(file)
            except TypeError:
                # The names of its fields and messages contradict each other in a way that only protobuf finds.
                self.faults.append(Fault(file.package, "protobuf refuses its messages. Rename properties."))
            else:
                self.files[file.name] = file
        self.services = tuple(f"{file.package}.{file.service[0].name}" for file in self.files.values())
        self.methods: Mapping[str, TypedMethod] = {
            tool.method.path: TypedMethod(tool, self.pool) for tool in typed if tool.method.file in self.files
        }


@cache
def contract_files() -> tuple[FileDescriptorProto, ...]:
    """Return the files that typed methods may import, each after those that it imports itself."""
    shipped = FileDescriptorSet.FromString((resources(agenta_ai.v1) / "descriptor_set.binpb").read_bytes())
    return tuple(shipped.file)


def _message_class(pool: descriptor_pool.DescriptorPool, name: str) -> type[Message]:
    descriptor: Any = pool.FindMessageTypeByName(name)
    found: type[Message] = message_factory.GetMessageClass(descriptor)
    return found
