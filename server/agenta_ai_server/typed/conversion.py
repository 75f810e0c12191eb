"""Converts between a typed message and the JSON of a tool's arguments or result."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

from agenta_ai.codec import CodecError, Reader, fill, fill_list, fill_struct, finite
from agenta_ai_server.typed.shape import Kind, Label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from google.protobuf.message import Message as ProtoMessage

    from agenta_ai_server.domain.values import Json
    from agenta_ai_server.typed.shape import Field, Message

    Read = Callable[[Any, "Reader"], Json]

INT64 = range(-(2**63), 2**63)
# A result that was billed is sent, even though only a few clients can read this many levels.
MAX_DEPTH = 100


class MessageCodec:
    """Converts the messages of one shape.

    Args:
        shape: Its fields, with numbers.
    """

    def __init__(self, shape: Message) -> None:
        self._fields = {field.number: _FieldCodec(field) for field in shape.fields}
        self._by_key = {codec.key: codec for codec in self._fields.values()}
        # A field that isn't set still says something where the property can't be absent.
        self._empty = [(codec.key, codec.empty) for codec in self._fields.values() if codec.empty]

    def read(self, message: ProtoMessage, max_values: int | None = None) -> dict[str, Json]:
        """Return the message as JSON. Unknown fields are left out.

        Args:
            message: One of this shape.
            max_values: How many values it may hold at most, nested ones included; ``None`` for any number.

        Raises:
            CodecError: A number isn't finite, or there are more than ``max_values`` values.
        """
        return self._read(message, Reader(max_values))

    def _read(self, message: ProtoMessage, reader: Reader) -> dict[str, Json]:
        result: dict[str, Json] = {name: make() for name, make in self._empty}
        fields = self._fields
        listed = message.ListFields()
        for descriptor, value in listed:
            field = fields[descriptor.number]
            try:
                result[field.key] = field.read(value, reader)
            except CodecError as error:
                error.at(field.key)
                raise
        # Unset ones are values, too: a few bytes could contain many of them.
        for _ in range(len(result) - len(listed)):
            reader.count()
        return result

    def write(self, message: ProtoMessage, values: Mapping[str, Json]) -> None:
        """Make ``message``, which must be empty, hold ``values``. Keys that have no field are left out.

        Raises:
            CodecError: A value doesn't fit its field: it is of another type, not finite, or beyond 64 bits.
        """
        for name, value in values.items():
            field = self._by_key.get(name)
            if field is None:
                continue
            try:
                field.write(message, value)
            except CodecError as error:
                error.at(name)
                raise


class _FieldCodec:
    """Converts one field."""

    def __init__(self, field: Field) -> None:
        self.key = field.key
        # Makes what an unset field means; ``None``: that the property is absent.
        self.empty: Callable[[], Json] | None = None
        self._name = field.name
        self._nullable = field.nullable
        self._codec = MessageCodec(field.message) if field.message else None
        self._kind = field.kind
        self.read: Read
        match field.label:
            case Label.SINGLE:
                self.read, self.write = self._reader_of_one(), self._writer_of_one()
                if field.nullable and field.required:
                    self.empty = lambda: None
            case Label.REPEATED:
                self.read, self.write = self._read_many, self._write_many
                if field.required:
                    self.empty = list
            case Label.MAP:
                self.read, self.write, self.empty = self._read_map, self._write_map, dict
        self._read_one = self._reader_of_one()

    def _reader_of_one(self) -> Read:
        match self._kind:
            case Kind.STRING | Kind.BOOLEAN | Kind.INTEGER:
                return _read_plain
            case Kind.NUMBER:
                return _read_number
            case Kind.VALUE:
                return _read_value
            case Kind.OBJECT:
                return _read_struct
            case Kind.LIST:
                return _read_list
        return self._read_message

    def _read_message(self, message: Any, reader: Reader) -> Json:
        assert self._codec is not None
        reader.count()
        return self._codec._read(message, reader)

    def _read_many(self, values: Iterable[Any], reader: Reader) -> Json:
        reader.count()
        result: list[Json] = []
        read = self._read_one
        for index, value in enumerate(values):
            try:
                result.append(read(value, reader))
            except CodecError as error:
                error.at(index)
                raise
        return result

    def _read_map(self, values: Mapping[str, Any], reader: Reader) -> Json:
        reader.count()
        result: dict[str, Json] = {}
        read = self._read_one
        for key, value in values.items():
            try:
                result[key] = read(value, reader)
            except CodecError as error:
                error.at(key)
                raise
        return result

    def _writer_of_one(self) -> Callable[[Any, Any], None]:
        match self._kind:
            case Kind.VALUE:
                return self._write_value
            case Kind.OBJECT:
                return self._write_struct
            case Kind.LIST:
                return self._write_list
            case Kind.MESSAGE:
                return self._write_message
        return self._write_scalar

    def _write_scalar(self, message: Any, value: Any) -> None:
        if not self._is_null(value):
            setattr(message, self._name, _scalar(self._kind, value))

    def _write_value(self, message: Any, value: Any) -> None:
        fill(getattr(message, self._name), value, exact=False, max_depth=MAX_DEPTH)

    def _write_struct(self, message: Any, value: Any) -> None:
        if not self._is_null(value):
            struct = getattr(message, self._name)
            struct.SetInParent()
            fill_struct(struct, _object(value), exact=False, max_depth=MAX_DEPTH)

    def _write_list(self, message: Any, value: Any) -> None:
        if not self._is_null(value):
            items = getattr(message, self._name)
            items.SetInParent()
            fill_list(items, _array(value), exact=False, max_depth=MAX_DEPTH)

    def _write_message(self, message: Any, value: Any) -> None:
        if not self._is_null(value):
            assert self._codec is not None
            inner = getattr(message, self._name)
            inner.SetInParent()
            self._codec.write(inner, _object(value))

    def _write_many(self, message: Any, value: Any) -> None:
        target = getattr(message, self._name)
        codec = self._codec
        for index, item in enumerate(_array(value)):
            try:
                if codec is None:
                    target.append(_scalar(self._kind, item))
                else:
                    codec.write(target.add(), _object(item))
            except CodecError as error:
                error.at(index)
                raise

    def _write_map(self, message: Any, value: Any) -> None:
        target = getattr(message, self._name)
        for key, item in _object(value).items():
            try:
                target[key] = _scalar(self._kind, item)
            except CodecError as error:
                error.at(key)
                raise

    def _is_null(self, value: Any) -> bool:
        return value is None and self._nullable


def _read_plain(value: Any, reader: Reader) -> Json:
    reader.count()
    plain: Json = value
    return plain


def _read_number(value: float, reader: Reader) -> Json:
    reader.count()
    return finite(value)


def _read_value(value: Any, reader: Reader) -> Json:
    plain: Json = reader.value(value)
    return plain


def _read_struct(value: Any, reader: Reader) -> Json:
    reader.count()
    return reader.struct(value)


def _read_list(value: Any, reader: Reader) -> Json:
    reader.count()
    return reader.items(value)


def _scalar(kind: Kind, value: Any) -> Any:
    """Return a value as its field takes it.

    Raises:
        CodecError: It doesn't fit.
    """
    match kind, value:
        case Kind.STRING, str():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise CodecError(f"Character {error.start} is half of a surrogate pair, not text.") from None
            return value
        case Kind.BOOLEAN, bool():
            return value
        case ((Kind.INTEGER | Kind.NUMBER), bool()):
            pass
        case Kind.NUMBER, int() | float():
            return _double(value)
        case Kind.INTEGER, int() | float() if isfinite(value) and value == int(value):
            if int(value) not in INT64:
                raise CodecError("Is beyond 64 bits: an integer must be from -2**63 to 2**63 - 1.")
            return int(value)
    raise CodecError(f"Must be of the type {kind}, but is a {type(value).__name__}.")


def _double(value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        raise CodecError("Is beyond 1e308, too large for a double.") from None
    if not isfinite(number):
        raise CodecError("Must be a finite number: JSON has no NaN and no infinity.")
    return number


def _object(value: Any) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise CodecError(f"Must be an object, but is a {type(value).__name__}.")
    return value


def _array(value: Any) -> list[Json]:
    if not isinstance(value, list):
        raise CodecError(f"Must be an array, but is a {type(value).__name__}.")
    return value
