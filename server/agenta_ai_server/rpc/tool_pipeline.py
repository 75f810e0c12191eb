"""The one place where the pipeline of tool calls meets grpc."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import grpc.aio

from agenta_ai_server.pipeline.pipeline import Pipeline
from agenta_ai_server.rpc.handler import CallHandler, Response, ToolHandler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenta_ai_server.domain.call import Call
    from agenta_ai_server.pipeline.pipeline import Interceptor
    from agenta_ai_server.rpc.handler import Continuation, GrpcHandler, Request
    from agenta_ai_server.rpc.request_reader import RequestReader


class ToolPipeline(grpc.aio.ServerInterceptor):
    """Runs each tool call through the interceptors, for every method.

    Args:
        interceptors: In the order in which a call passes them.
        reader: Reads the requests.

    Attributes:
        interceptors: As given.
    """

    def __init__(self, interceptors: Sequence[Interceptor], reader: RequestReader) -> None:
        self.interceptors = tuple(interceptors)
        self._pipeline = Pipeline(interceptors)
        self._reader = reader

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> GrpcHandler:
        """Put the pipeline between the two halves of a method that calls a tool."""
        handler = await continuation(details)
        if not isinstance(handler, ToolHandler):
            return handler
        read, write = handler.read, handler.write

        async def respond(request: Request, call: Call) -> Response:
            tool_call = await self._reader.read(read, request, call)
            tool_call.write = write
            outcome = await self._pipeline.run(tool_call)
            return Response(outcome.written(write), outcome)

        return CallHandler(
            respond, calls_tool=True, write_progress=handler.write_progress, recorded_as=handler.recorded_as
        )
