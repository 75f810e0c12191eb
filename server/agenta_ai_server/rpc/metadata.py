"""Limits the metadata of a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from agenta_ai_server.rpc.status import abort

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agenta_ai_server.rpc.handler import GrpcHandler

# grpc's own limit on metadata, counted as in RFC 7541, section 4.1.
MAX_BYTES, ENTRY_BYTES = 16 << 10, 32


def is_too_large(metadata: Iterable[tuple[str, str | bytes]] | None) -> bool:
    """Return whether the metadata exceeds the limit.

    grpc doesn't count headers that are sent by reference to an earlier one (RFC 7541, 6.1). In one byte each, fifteen
    thousand of them become four megabytes here.
    """
    return sum(len(key) + len(value) + ENTRY_BYTES for key, value in metadata or ()) > MAX_BYTES


async def _refuse(_: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    await abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "The metadata is larger than 16 KiB. Send less of it.")


REFUSE_TOO_LARGE: GrpcHandler = grpc.stream_unary_rpc_method_handler(_refuse)
"""Refuses a call because its metadata is too large."""
