"""Builds the descriptors of files, including comments, from numbered shapes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from agenta_ai.v1 import content_pb2, error_pb2, tool_service_pb2
from agenta_ai_server.typed.names import MethodName, field_name, json_name, method_name
from agenta_ai_server.typed.schema import nested_name
from agenta_ai_server.typed.shape import REUSED, Kind, Label, Message, ToolShape

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agenta_ai_server.typed.shape import Field

# Field numbers of the descriptors' messages, which form the paths of comments.
_MESSAGE, _SERVICE = (FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER, FileDescriptorProto.SERVICE_FIELD_NUMBER)
_SYNTAX = FileDescriptorProto.SYNTAX_FIELD_NUMBER
_FIELD, _NESTED = DescriptorProto.FIELD_FIELD_NUMBER, DescriptorProto.NESTED_TYPE_FIELD_NUMBER
_ONEOF, _METHOD = DescriptorProto.ONEOF_DECL_FIELD_NUMBER, ServiceDescriptorProto.METHOD_FIELD_NUMBER

SCALARS = {
    Kind.STRING: FieldDescriptorProto.TYPE_STRING,
    Kind.INTEGER: FieldDescriptorProto.TYPE_INT64,
    Kind.NUMBER: FieldDescriptorProto.TYPE_DOUBLE,
    Kind.BOOLEAN: FieldDescriptorProto.TYPE_BOOL,
}
STRUCT_FILE = "google/protobuf/struct.proto"
CONTRACT_FILES = (content_pb2.DESCRIPTOR.name, error_pb2.DESCRIPTOR.name, tool_service_pb2.DESCRIPTOR.name)
# Java's code has a class of this name in each message.
TAKEN_NAMES = ("Builder",)
GO_ROOT = "github.com/Agenta-AI/agenta-ai-grpc/clients/go/"
OWN_PROVIDER = "agenta"

REQUEST_ID = (
    "Makes retries safe: a UUID, version 4, in its 36-character form. Create a new one for each new call, and keep it "
    "for retries. CallTool uses the same ids: the same id with the same arguments is the same call in both methods. "
    "If empty, each call is a new one."
)
RERUN = (
    "What to do if the first run of the request_id may have been billed but its result is lost: false fails with "
    "ERROR_REASON_OUTCOME_UNKNOWN, true runs the tool again, which may be billed twice. Ignored without a request_id."
)


@dataclass(frozen=True, slots=True)
class TypedTool:
    """The parts of one tool's method.

    Attributes:
        name: ``"tools.acme.support.classify_ticket"``.
        title: Name for people.
        description: What it does.
        shape: Its messages, with numbers.
    """

    name: str
    title: str
    description: str
    shape: ToolShape

    @property
    def method(self) -> MethodName:
        """Where its method is."""
        return method_name(self.name)


def files(tools: Iterable[TypedTool]) -> list[FileDescriptorProto]:
    """Return one file for each group of tools, with the comments of everything in ``source_code_info``."""
    ordered = sorted(tools, key=lambda tool: tool.name)
    return [_File(list(group)).descriptor for _, group in groupby(ordered, key=lambda tool: tool.method.file)]


class _File:
    """Builds the file of one group."""

    def __init__(self, tools: list[TypedTool]) -> None:
        where = tools[0].method
        provider, group = where.package.split(".")[-3:-1]
        self._package = where.package
        self.descriptor = file = FileDescriptorProto(name=where.file, package=where.package, syntax="proto3")
        self._comment((_SYNTAX,), f"The tools of the group {group} of {provider}.")
        _set_options(file, where, own=provider == OWN_PROVIDER)
        service = file.service.add(name=where.service)
        self._comment((_SERVICE, 0), f"{where.service} calls the tools of the group {group} of {provider}.")
        for index, tool in enumerate(tools):
            self._add_method(service.method.add(), tool, index)
            self._add_request(file.message_type.add(), tool, len(file.message_type) - 1)
            self._add_response(file.message_type.add(), tool, len(file.message_type) - 1)
        structs = (STRUCT_FILE,) if _needs_struct(tools) else ()
        file.dependency.extend((*CONTRACT_FILES, *structs))

    def _comment(self, path: tuple[int, ...], text: str) -> None:
        location = self.descriptor.source_code_info.location.add(path=path, span=(0, 0, 0))
        location.leading_comments = "".join(f" {line}\n" for line in text.splitlines())

    def _add_method(self, method: MethodDescriptorProto, tool: TypedTool, index: int) -> None:
        method.name = tool.method.method
        method.input_type = f".{self._package}.{method.name}Request"
        method.output_type = f".{self._package}.{method.name}Response"
        self._comment((_SERVICE, 0, _METHOD, index), f"{tool.title or method.name}: {tool.name}.\n{tool.description}")

    def _add_request(self, request: DescriptorProto, tool: TypedTool, index: int) -> None:
        name, path = tool.method.method, (_MESSAGE, index)
        request.name = f"{name}Request"
        self._comment(path, f"{request.name} is a call of {tool.name}. At most 1 MiB when serialized.")
        arguments = request.field.add(name="arguments", number=1)
        self._set_message(arguments, f".{self._package}.{request.name}.Arguments")
        self._comment((*path, _FIELD, 0), "The arguments of the tool.")
        request.field.add(name="request_id", number=2, type=FieldDescriptorProto.TYPE_STRING, json_name="requestId")
        self._comment((*path, _FIELD, 1), REQUEST_ID)
        request.field.add(
            name="rerun_if_outcome_unknown",
            number=3,
            type=FieldDescriptorProto.TYPE_BOOL,
            json_name="rerunIfOutcomeUnknown",
        )
        self._comment((*path, _FIELD, 2), RERUN)
        _single(request)
        self._add_nested(request, "Arguments", tool.shape.arguments, path, "Arguments are the arguments of the tool.")

    def _add_response(self, response: DescriptorProto, tool: TypedTool, index: int) -> None:
        name, path = tool.method.method, (_MESSAGE, index)
        response.name = f"{name}Response"
        self._comment(path, f"{response.name} is the response of {tool.name}.")
        response.oneof_decl.add(name="outcome")
        self._comment((*path, _ONEOF, 0), "The outcome of the call.")
        fields = (
            ("result", f"{self._package}.{response.name}.Result", "The result, if the tool succeeded."),
            ("error", error_pb2.ToolError.DESCRIPTOR.full_name, "Why the tool failed, if it ran and failed."),
            (
                "content",
                content_pb2.ContentBlock.DESCRIPTOR.full_name,
                "The result for people, at least one block. If the tool failed, a single text that says what went "
                "wrong.",
            ),
            ("meta", tool_service_pb2.CallMeta.DESCRIPTOR.full_name, "How the result was produced."),
        )
        for number, (field_, type_name, comment) in enumerate(fields, 1):
            field = response.field.add(name=field_, number=number, json_name=field_)
            self._set_message(field, f".{type_name}")
            self._comment((*path, _FIELD, number - 1), comment)
        _single(response)
        response.field[0].oneof_index = response.field[1].oneof_index = 0
        response.field[2].label = FieldDescriptorProto.LABEL_REPEATED
        self._add_nested(response, "Result", tool.shape.result, path, "Result is the result of the tool.")

    def _add_nested(
        self, parent: DescriptorProto, name: str, shape: Message, path: tuple[int, ...], about: str
    ) -> None:
        """Add the message of a shape to the message that uses it."""
        prefix = ".".join((self._package, parent.name))
        inner = _Nesting(f".{prefix}.{name}", (parent.name, name), (*path, _NESTED, len(parent.nested_type)))
        self._comment(inner.path, shape.comment or about)
        self._fill(parent.nested_type.add(name=name), shape, inner)

    def _fill(self, message: DescriptorProto, shape: Message, at: _Nesting) -> None:
        for index, field in enumerate(shape.fields):
            added = message.field.add(name=field.name, number=field.number, json_name=field.key)
            added.label = FieldDescriptorProto.LABEL_OPTIONAL
            self._comment((*at.path, _FIELD, index), field.comment)
            if field.label is Label.MAP:
                self._add_map(message, added, field, at)
            elif field.kind is Kind.MESSAGE:
                self._add_message(message, added, field, at)
            elif field.kind.is_scalar:
                added.type = SCALARS[field.kind]
            else:
                self._set_message(added, f".{field.kind}")
            if field.label is Label.REPEATED:
                added.label = FieldDescriptorProto.LABEL_REPEATED
        _add_presence(message, shape.fields)
        used = {field.name for field in shape.fields}
        for name, reserved in sorted(shape.reserved.items(), key=lambda each: each[1].number):
            message.reserved_range.add(start=reserved.number, end=reserved.number + 1)
            if REUSED not in name and field_name(name) not in used:
                message.reserved_name.append(field_name(name))

    def _add_message(self, message: DescriptorProto, added: FieldDescriptorProto, field: Field, at: _Nesting) -> None:
        name = nested_name(field)
        while name in (*at.enclosing, *TAKEN_NAMES):
            name += "Object"
        inner = _Nesting(f"{at.full_name}.{name}", (*at.enclosing, name), (*at.path, _NESTED, len(message.nested_type)))
        shape = field.message or Message()
        self._set_message(added, inner.full_name)
        self._comment(inner.path, shape.comment or f"{name} is a value of {field.name}.")
        self._fill(message.nested_type.add(name=name), shape, inner)

    def _add_map(self, message: DescriptorProto, added: FieldDescriptorProto, field: Field, at: _Nesting) -> None:
        # As protoc writes "map<string, T>".
        entry = message.nested_type.add(name=nested_name(field))
        entry.options.map_entry = True
        entry.field.add(name="key", number=1, type=FieldDescriptorProto.TYPE_STRING, json_name="key")
        entry.field.add(name="value", number=2, type=SCALARS[field.kind], json_name="value")
        _single(entry)
        self._set_message(added, f"{at.full_name}.{entry.name}")
        added.label = FieldDescriptorProto.LABEL_REPEATED

    def _set_message(self, field: FieldDescriptorProto, type_name: str) -> None:
        field.type = FieldDescriptorProto.TYPE_MESSAGE
        field.type_name = type_name
        field.json_name = field.json_name or json_name(field.name)


@dataclass(frozen=True, slots=True)
class _Nesting:
    """Where a message is.

    Attributes:
        full_name: With a leading dot.
        enclosing: Names of the messages around it, and its own.
        path: That of its descriptor in the file.
    """

    full_name: str
    enclosing: tuple[str, ...]
    path: tuple[int, ...]


def _single(message: DescriptorProto) -> None:
    for field in message.field:
        field.label = FieldDescriptorProto.LABEL_OPTIONAL


def _add_presence(message: DescriptorProto, fields: Iterable[Field]) -> None:
    """Make the scalars ``optional``, which is a oneof of its own for each."""
    for added, field in zip(message.field, fields, strict=True):
        if field.kind.is_scalar and field.label is Label.SINGLE:
            added.proto3_optional = True
            added.oneof_index = len(message.oneof_decl)
            message.oneof_decl.add(name=f"_{added.name}")


def _set_options(file: FileDescriptorProto, where: MethodName, *, own: bool) -> None:
    folder = where.file.rpartition("/")[0]
    group = where.package.split(".")[-2]
    file.options.go_package = f"{GO_ROOT if own else ''}{folder};{group.replace('_', '')}v1"
    file.options.java_multiple_files = True
    file.options.java_outer_classname = f"{where.service}Proto"
    file.options.java_package = f"ai.{where.package}"


def _needs_struct(tools: Iterable[TypedTool]) -> bool:
    return any(_uses_struct(message) for tool in tools for message in (tool.shape.arguments, tool.shape.result))


def _uses_struct(message: Message) -> bool:
    return any(
        field.kind in (Kind.VALUE, Kind.OBJECT, Kind.LIST) or (field.message and _uses_struct(field.message))
        for field in message.fields
    )
