"""The state of all connections of this process, for those who debug it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from grpc_channelz.v1 import channelz_pb2
from grpc_channelz.v1.channelz import aio

from agenta_ai_server.rpc.boundary import authenticate_or_abort

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

    from agenta_ai_server.domain.call import Call
    from agenta_ai_server.domain.listener import CallListener
    from agenta_ai_server.rpc.boundary import Context

CONTRACT = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"]


def handler(identify: Callable[[Call], Awaitable[None]], listener: CallListener) -> grpc.GenericRpcHandler:
    """Make the handler of channelz. It tells every caller's address, so it answers none that isn't known.

    Args:
        identify: Finds out who calls, or raises ``Refused``.
        listener: Is told of those who are refused.
    """
    servicer = aio.ChannelzServicer()

    def answering(method: Any) -> grpc.RpcMethodHandler[Any, Any]:
        kind = GetMessageClass(method.input_type)
        answer: Any = getattr(servicer, method.name)

        async def run(data: bytes, context: Context) -> Message:
            await authenticate_or_abort(identify, f"/{CONTRACT.full_name}/{method.name}", context, listener)
            message: Message = await answer(_request(kind, data), context)
            return message

        return grpc.unary_unary_rpc_method_handler(run, None, GetMessageClass(method.output_type).SerializeToString)

    return grpc.method_handlers_generic_handler(
        CONTRACT.full_name, {method.name: answering(method) for method in CONTRACT.methods}
    )


def _request(kind: type[Message], data: bytes) -> Message:
    """Read a request; an unreadable one is as good as an empty one, of which grpc doesn't tell why."""
    try:
        return kind.FromString(data)
    except DecodeError:
        return kind()
