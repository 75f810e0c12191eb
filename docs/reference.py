"""Prints the reference of the contract, docs/reference.md, from the descriptor set that is made of protos/."""

from __future__ import annotations

import html
from importlib.resources import files
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    EnumValueDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    MethodOptions,
    ServiceDescriptorProto,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

INTRODUCTION = """\
# Reference of the contract

[contract.md](contract.md) explains how to use these messages, and what stays stable. In JSON, names are the same in
lowerCamelCase. `make docs` generates this page from [protos/agenta/ai/v1](../protos/agenta/ai/v1)."""

# What is called comes first, and then what it needs.
FILES = ("tool_service", "tool", "content", "error")
WELL_KNOWN = "https://protobuf.dev/reference/protobuf/google.protobuf/#"


def main() -> None:
    shipped = FileDescriptorSet.FromString((files("agenta_ai.v1") / "descriptor_set.binpb").read_bytes())
    by_name = {file.name: file for file in shipped.file}
    print(INTRODUCTION)
    for name in FILES:
        for line in reference(by_name[f"agenta/ai/v1/{name}.proto"]):
            print(line)


def reference(file: FileDescriptorProto) -> Iterator[str]:
    comments = Comments(file)
    for number, service in enumerate(file.service):
        path = (FileDescriptorProto.SERVICE_FIELD_NUMBER, number, ServiceDescriptorProto.METHOD_FIELD_NUMBER)
        yield f"\n## {service.name}\n\n{comments.text(*path[:2])}"
        yield "\n| method | takes | gives | meaning |\n| --- | --- | --- | --- |"
        for position, method in enumerate(service.method):
            yield (
                f"| `{method.name}` | {linked(method.input_type)} | {linked(method.output_type)} "
                f"| {deprecation(method)}{comments.cell(*path, position)}{side_effects(method)} |"
            )
    for number, message in enumerate(file.message_type):
        path = (FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER, number, DescriptorProto.FIELD_FIELD_NUMBER)
        yield f"\n## {message.name}\n\n{comments.text(*path[:2])}"
        if message.field:
            yield "\n| number | field | type | meaning |\n| --- | --- | --- | --- |"
        for position, field in enumerate(message.field):
            meaning = deprecation(field) + comments.cell(*path, position)
            yield f"| {field.number} | `{field.name}` | {kind(field, message)} | {meaning} |"
    for number, enum in enumerate(file.enum_type):
        path = (FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER, number, EnumDescriptorProto.VALUE_FIELD_NUMBER)
        yield f"\n## {enum.name}\n\n{comments.text(*path[:2])}"
        yield "\n| number | value | meaning |\n| --- | --- | --- |"
        for position, value in enumerate(enum.value):
            yield f"| {value.number} | `{value.name}` | {deprecation(value)}{comments.cell(*path, position)} |"


class Comments:
    """The comments of a file, by the path of what they are about: numbers of fields and positions in turn."""

    def __init__(self, file: FileDescriptorProto) -> None:
        self._comments = {tuple(each.path): each.leading_comments for each in file.source_code_info.location}

    def text(self, *path: int) -> str:
        lines = self._comments[path].splitlines()
        return "\n".join(html.escape(line.removeprefix(" "), quote=False) for line in lines)

    def cell(self, *path: int) -> str:
        """In one line, as tables need it. What is indented is an example."""
        lines = (line.removeprefix(" ") for line in self._comments[path].splitlines() if line)
        parts = (f"`{line.strip()}`" if line.startswith("    ") else html.escape(line, quote=False) for line in lines)
        return " ".join(parts).replace("|", "\\|")


def kind(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    name = linked(field.type_name) if field.type_name else FieldDescriptorProto.Type.Name(field.type)[5:].lower()
    if field.proto3_optional:
        return f"optional {name}"
    if field.HasField("oneof_index"):
        return f"{name}, one of `{message.oneof_decl[field.oneof_index].name}`"
    return f"repeated {name}" if field.label == FieldDescriptorProto.LABEL_REPEATED else name


def linked(type_name: str) -> str:
    package, _, name = type_name.removeprefix(".").rpartition(".")
    target = f"{WELL_KNOWN}{name.lower()}" if package == "google.protobuf" else f"#{name.lower()}"
    return f"[{name}]({target})"


def side_effects(method: MethodDescriptorProto) -> str:
    return " Has no side effects." if method.options.idempotency_level == MethodOptions.NO_SIDE_EFFECTS else ""


def deprecation(described: MethodDescriptorProto | FieldDescriptorProto | EnumValueDescriptorProto) -> str:
    return "**Deprecated.** " if described.options.deprecated else ""


if __name__ == "__main__":
    main()
