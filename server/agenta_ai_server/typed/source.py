"""Writes a file's descriptor as text, formatted like ``buf format``."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto

from agenta_ai_server.typed.names import json_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor_pb2 import ServiceDescriptorProto

WIDTH = 120
SCALARS = {
    FieldDescriptorProto.TYPE_STRING: "string",
    FieldDescriptorProto.TYPE_INT64: "int64",
    FieldDescriptorProto.TYPE_DOUBLE: "double",
    FieldDescriptorProto.TYPE_BOOL: "bool",
}
Path = tuple[int, ...]


def source(file: FileDescriptorProto) -> str:
    """Return the text of a file that :func:`agenta_ai_server.typed.descriptors.files` has made."""
    return "\n".join(_Writer(file).lines()) + "\n"


class _Writer:
    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file
        self._comments = {tuple(each.path): each.leading_comments for each in file.source_code_info.location}

    def lines(self) -> Iterator[str]:
        file, options = self._file, self._file.options
        yield from self._comment((FileDescriptorProto.SYNTAX_FIELD_NUMBER,), 0)
        yield from ('syntax = "proto3";', "", f"package {file.package};", "")
        yield from (f'import "{name}";' for name in sorted(file.dependency))
        yield ""
        yield f'option go_package = "{options.go_package}";'
        yield f"option java_multiple_files = {str(options.java_multiple_files).lower()};"
        yield f'option java_outer_classname = "{options.java_outer_classname}";'
        yield f'option java_package = "{options.java_package}";'
        for index, service in enumerate(file.service):
            yield ""
            yield from self._service(service, (FileDescriptorProto.SERVICE_FIELD_NUMBER, index))
        for index, message in enumerate(file.message_type):
            yield ""
            yield from self._message(message, (FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER, index), 0)

    def _service(self, service: ServiceDescriptorProto, path: Path) -> Iterator[str]:
        yield from self._comment(path, 0)
        yield f"service {service.name} {{"
        for index, method in enumerate(service.method):
            if index:
                yield ""
            yield from self._comment((*path, service.METHOD_FIELD_NUMBER, index), 1)
            yield f"  rpc {method.name}({method.input_type}) returns ({method.output_type});"
        yield "}"

    def _message(self, message: DescriptorProto, path: Path, depth: int) -> Iterator[str]:
        indent = "  " * depth
        yield from self._comment(path, depth)
        body = list(self._body(message, path, depth + 1))
        if body:
            yield f"{indent}message {message.name} {{"
            yield from body
            yield f"{indent}}}"
        else:
            yield f"{indent}message {message.name} {{}}"

    def _body(self, message: DescriptorProto, path: Path, depth: int) -> Iterator[str]:
        indent = "  " * depth
        if message.reserved_range:
            numbers = ", ".join(str(each.start) for each in message.reserved_range)
            yield f"{indent}reserved {numbers};"
        if message.reserved_name:
            names = ", ".join(f'"{name}"' for name in message.reserved_name)
            yield f"{indent}reserved {names};"
        oneofs = {index for index, each in enumerate(message.oneof_decl) if not each.name.startswith("_")}
        begun = set()
        for index, field in enumerate(message.field):
            place = (*path, message.FIELD_FIELD_NUMBER, index)
            if not (field.HasField("oneof_index") and field.oneof_index in oneofs):
                yield from self._field(message, field, place, depth)
            elif field.oneof_index not in begun:
                begun.add(field.oneof_index)
                yield from self._oneof(message, field.oneof_index, path, depth)
        for index, nested in enumerate(message.nested_type):
            if not nested.options.map_entry:
                yield ""
                yield from self._message(nested, (*path, message.NESTED_TYPE_FIELD_NUMBER, index), depth)

    def _oneof(self, message: DescriptorProto, oneof: int, path: Path, depth: int) -> Iterator[str]:
        indent = "  " * depth
        yield from self._comment((*path, message.ONEOF_DECL_FIELD_NUMBER, oneof), depth)
        yield f"{indent}oneof {message.oneof_decl[oneof].name} {{"
        for index, field in enumerate(message.field):
            if field.HasField("oneof_index") and field.oneof_index == oneof:
                yield from self._field(message, field, (*path, message.FIELD_FIELD_NUMBER, index), depth + 1)
        yield f"{indent}}}"

    def _field(self, message: DescriptorProto, field: FieldDescriptorProto, path: Path, depth: int) -> Iterator[str]:
        yield from self._comment(path, depth)
        option = f' [json_name = "{field.json_name}"]' if field.json_name != json_name(field.name) else ""
        yield f"{'  ' * depth}{_type(message, field)} {field.name} = {field.number}{option};"

    def _comment(self, path: Path, depth: int) -> Iterator[str]:
        indent = "  " * depth
        for line in self._comments.get(path, "").splitlines():
            wrapped = textwrap.wrap(
                line.strip(), WIDTH - len(indent) - 3, break_long_words=False, break_on_hyphens=False
            )
            yield from (f"{indent}// {part}" for part in wrapped)


def _type(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    for nested in message.nested_type:
        if nested.options.map_entry and field.type_name.endswith(f".{message.name}.{nested.name}"):
            return f"map<string, {SCALARS[nested.field[1].type]}>"
    name = field.type_name or SCALARS[field.type]
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return f"repeated {name}"
    return f"optional {name}" if field.proto3_optional else name
