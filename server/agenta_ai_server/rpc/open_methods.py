"""Handlers of the methods that are open to everyone, such as health: they keep nothing large of a request.

grpc itself would keep a request for as long as its call lasts, and strangers may let many calls last.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from agenta_ai_server.rpc.messages import receive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from agenta_ai_server.rpc.messages import Context

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
AnyRequest = TypeVar("AnyRequest", bound=Message)

# Far more than the name of a service or of a file has.
MAX_BYTES = 4096


def answers_once(request: type[AnyRequest], answer: Callable[[AnyRequest, Context], Awaitable[Message]]) -> Handler:
    """Return the handler of a method with one request and one response.

    Args:
        request: The class of its request.
        answer: Answers it.
    """

    async def run(_: object, context: Context) -> bytes:
        response = await answer(await _read(request, context), context)
        return response.SerializeToString()

    # On the wire the request is unary: see the boundary.
    return grpc.stream_unary_rpc_method_handler(run)


def answers_often(
    request: type[AnyRequest], answer: Callable[[AnyRequest, Context], AsyncIterator[Message]]
) -> Handler:
    """Return the handler of a method with one request and several responses.

    Args:
        request: The class of its request.
        answer: Answers it.
    """

    async def run(_: object, context: Context) -> AsyncIterator[bytes]:
        async for response in answer(await _read(request, context), context):
            yield response.SerializeToString()

    return grpc.stream_stream_rpc_method_handler(run)


async def _read(request: type[AnyRequest], context: Context) -> AnyRequest:
    """Return the request, or end the call if it is too large, takes too long or can't be read."""
    data = await receive(context.read)
    if data is None:
        await _abort(context, grpc.StatusCode.DEADLINE_EXCEEDED, "The request hasn't arrived in time. Send it again.")
    if len(data) > MAX_BYTES:
        data = b""
        await _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "The request is larger than 4 KiB. Send less.")
    message = None
    with suppress(DecodeError):
        message = request.FromString(data)
    if message is None:
        await _abort(context, grpc.StatusCode.INVALID_ARGUMENT, "The request can't be read as this method's message.")
    return message


async def _abort(context: Context, code: grpc.StatusCode, message: str) -> NoReturn:
    await context.abort(code, message)
    raise AssertionError("abort returned")
