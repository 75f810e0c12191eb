"""Reads the request: after it is known who calls, because it costs far more than that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from agenta_ai.v1 import tool_service_pb2
from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.rpc.idempotency import UUID4
from agenta_ai_server.rpc.interceptor import is_tool_method

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from agenta_ai_server.domain.call import Call
    from agenta_ai_server.rpc.interceptor import Continuation, Handler

MAX_REQUEST_BYTES = 1 << 20


class Parsing(grpc.aio.ServerInterceptor):
    """Makes a message of the bytes that the interceptors before it have passed on.

    Args:
        tools: Names of the tools that there are.
    """

    def __init__(self, tools: Collection[str]) -> None:
        self._tools = frozenset(tools)

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler:
        """Wrap the rest of the chain. Called by grpc for each call."""
        handler = await continuation(details)
        if not is_tool_method(handler, details):
            return handler
        proceed: Any = handler.unary_unary
        deserializer: Any = handler.request_deserializer

        async def run(data: bytes, call: Call) -> Message:
            request = _parse(data, deserializer)
            self._describe(call, request)
            response: Message = await proceed(request, call)
            return response

        return grpc.unary_unary_rpc_method_handler(run)

    def _describe(self, call: Call, request: Message) -> None:
        """Note what listeners want to know of the request."""
        if isinstance(request, tool_service_pb2.CallToolRequest):
            if request.name in self._tools:
                call.tool = request.name
            if UUID4.fullmatch(request.request_id):
                call.request_id = request.request_id


def _parse(data: bytes, deserializer: Callable[[bytes], Message]) -> Message:
    if len(data) > MAX_REQUEST_BYTES:
        raise Refused(
            Reason.REQUEST_TOO_LARGE,
            f"The request has {len(data):,} bytes, and {MAX_REQUEST_BYTES:,} are allowed: send a smaller one.",
        )
    try:
        return deserializer(data)
    except DecodeError:
        raise Refused(
            Reason.REQUEST_MALFORMED,
            "The request can't be read as this method's message: generate the client from the contract, and nest "
            "arguments at most 32 levels deep.",
        ) from None
