"""The base of the interceptors behind the boundary."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import grpc
import grpc.aio

from agenta_ai.v1 import tool_service_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from agenta_ai_server.domain.call import Call

SERVICE = tool_service_pb2.DESCRIPTOR.services_by_name["ToolService"].full_name

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"
Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]
Proceed: TypeAlias = "Callable[[Message, Call], Awaitable[Message]]"


def is_tool_method(handler: Handler, details: grpc.HandlerCallDetails) -> TypeGuard[grpc.RpcMethodHandler[Any, Any]]:
    """Say whether this is one of the contract's methods.

    It isn't for an unknown method, whose handler is None, nor for health and reflection, which are served as they come.
    """
    return handler is not None and details.method.startswith(f"/{SERVICE}/")


class Interceptor(ABC, grpc.aio.ServerInterceptor):
    """Sees each call between the boundary and the servicer, and lets it proceed or raises.

    Before the request is parsed, it is bytes.
    """

    @abstractmethod
    async def intercept(self, request: Message, call: Call, proceed: Proceed) -> Message:
        """Answer the ``call``, as a rule by ``await proceed(request, call)``; raise ``Refused`` to refuse it."""

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Handler:
        """Wrap the next handler. Called by grpc for each call."""
        handler = await continuation(details)
        if not is_tool_method(handler, details):
            return handler
        proceed: Any = handler.unary_unary

        # Not a coroutine of its own: a call that waits holds one for each interceptor already.
        def run(request: Message, call: Call) -> Awaitable[Message]:
            return self.intercept(request, call, proceed)

        return grpc.unary_unary_rpc_method_handler(run, handler.request_deserializer, handler.response_serializer)
