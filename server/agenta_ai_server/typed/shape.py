"""The shape of a message: its fields, as plain data. What the lock file holds, and descriptors are made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """What one value of a field is, by the name of its type in protobuf."""

    STRING = "string"
    INTEGER = "int64"
    NUMBER = "double"
    BOOLEAN = "bool"
    MESSAGE = "message"
    VALUE = "google.protobuf.Value"
    OBJECT = "google.protobuf.Struct"
    LIST = "google.protobuf.ListValue"

    @property
    def is_scalar(self) -> bool:
        """Whether it can be a map's value."""
        return self in (Kind.STRING, Kind.INTEGER, Kind.NUMBER, Kind.BOOLEAN)


class Label(StrEnum):
    """How many values a field has."""

    SINGLE = "{}"
    REPEATED = "repeated {}"
    MAP = "map<string, {}>"


# Precedes the number in the key of a reserved field whose property now has another number.
REUSED = "#"


@dataclass(frozen=True, slots=True)
class Reserved:
    """A field that was there once: its number and name are never used for another one.

    Attributes:
        number: Its number.
        type: What it held, as :attr:`Field.type`.
    """

    number: int
    type: str


@dataclass(frozen=True, slots=True)
class Field:
    """One property of a JSON Schema as a field.

    Attributes:
        key: Name of the property, and the field's JSON name.
        name: Name of the field, lower_snake_case.
        kind: What one value of it is.
        label: How many values it has.
        required: Whether the property must be there.
        nullable: Whether a field that isn't set means null, because the property may be null but not absent, or is
            null by default.
        comment: What it is, with its bounds; at least one sentence.
        message: The fields of its values; ``None`` unless ``kind`` is ``MESSAGE``.
        number: Its number; 0 until it has one.
    """

    key: str
    name: str
    kind: Kind
    label: Label = Label.SINGLE
    required: bool = False
    nullable: bool = False
    comment: str = ""
    message: Message | None = None
    number: int = 0

    @property
    def type(self) -> str:
        """Its type in protobuf, the name of a message left out: ``"repeated message"``, ``"map<string, int64>"``."""
        return self.label.format(self.kind)


@dataclass(frozen=True, slots=True)
class Message:
    """An object of a JSON Schema as a message.

    Attributes:
        fields: Its fields, in the order of the schema.
        reserved: Fields that were there once, by the names of their properties; if the property has another field
            now, with :data:`REUSED` and the number behind it.
        comment: What it is; may be empty.
    """

    fields: tuple[Field, ...] = ()
    reserved: dict[str, Reserved] = field(default_factory=dict)
    comment: str = ""


@dataclass(frozen=True, slots=True)
class ToolShape:
    """The messages of one tool.

    Attributes:
        arguments: What it takes.
        result: What it gives.
    """

    arguments: Message
    result: Message


@dataclass(frozen=True, slots=True)
class Fault:
    """A reason why a tool has no typed method.

    Attributes:
        path: The place: ``"arguments.ticket"``; the tool's name or the parts of it, if that is why.
        problem: What is wrong, and the way out, in sentences.
    """

    path: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


class Unmapped(ValueError):
    """A tool has no typed method.

    Args:
        faults: Why, at least one.
    """

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = tuple(faults)
