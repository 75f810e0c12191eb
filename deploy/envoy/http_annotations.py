"""Makes the description of the contract that Envoy needs to serve the paths of the old REST endpoint.

Envoy finds the paths in the options ``google.api.http`` of the methods. They are added here, for Envoy alone, so that
the contract itself imports nothing of Google's. Some names in JSON are changed, too; nothing changes on gRPC's wire.

    python http_annotations.py < descriptor_set.binpb > rest.binpb
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = "agenta.ai.v1.ToolService"
RULES = {
    "Status": http_pb2.HttpRule(
        get="/ai/services/status",
        additional_bindings=[http_pb2.HttpRule(get="/preview/ai/services/status")],
    ),
    "CallTool": http_pb2.HttpRule(
        post="/ai/services/tools/call",
        body="*",
        additional_bindings=[http_pb2.HttpRule(post="/preview/ai/services/tools/call", body="*")],
    ),
}
# Where the old endpoint didn't write camelCase, and what it called the text of an error: Envoy has a type of its own
# for that, but takes the one of the set.
JSON_NAMES = {
    "agenta.ai.v1.CallMeta.trace_id": "trace_id",
    "agenta.ai.v1.Attempt.trace_id": "trace_id",
    "google.rpc.Status.message": "detail",
}


def annotated(data: bytes) -> bytes:
    """Return the descriptor set ``data`` with the paths in it."""
    contract = descriptor_pb2.FileDescriptorSet.FromString(data)
    for file in contract.file:
        for service in file.service:
            for method in service.method:
                if f"{file.package}.{service.name}" == SERVICE and method.name in RULES:
                    method.options.Extensions[annotations_pb2.http].CopyFrom(RULES[method.name])
    for name, field in _fields(contract):
        if name in JSON_NAMES:
            field.json_name = JSON_NAMES[name]
    return contract.SerializeToString()


def _fields(contract: descriptor_pb2.FileDescriptorSet) -> Iterator[tuple[str, descriptor_pb2.FieldDescriptorProto]]:
    for file in contract.file:
        for message in file.message_type:
            for field in message.field:
                yield f"{file.package}.{message.name}.{field.name}", field


if __name__ == "__main__":
    sys.stdout.buffer.write(annotated(sys.stdin.buffer.read()))
