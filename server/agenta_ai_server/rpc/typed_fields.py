"""Which fields of a typed message lead to values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.rpc.wire_format import LIST, STRUCT, VALUE, Fields, Packed
from agenta_ai_server.typed.shape import Kind, Label

if TYPE_CHECKING:
    from agenta_ai_server.typed.shape import Message

STRUCTS = {Kind.VALUE: VALUE, Kind.OBJECT: STRUCT, Kind.LIST: LIST}
PACKED = {Kind.INTEGER: Packed.VARINTS, Kind.BOOLEAN: Packed.VARINTS, Kind.NUMBER: Packed.DOUBLES}


def fields_of(message: Message) -> Fields:
    """Return the fields of a message that lead to values."""
    fields = Fields({}, are_values=True)
    for field in message.fields:
        held: Fields | Packed | None = fields_of(field.message) if field.message else STRUCTS.get(field.kind)
        if held is None and field.label is Label.REPEATED:
            held = PACKED.get(field.kind)
        fields.held[field.number] = held
    return fields
