"""Health for load balancers and clients: ``grpc.health.v1``.

Not the servicer of grpcio-health-checking: that holds a lock while it writes to a watcher, so that one who doesn't read
keeps all others from being told, and the server from stopping.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from agenta_ai_server.rpc.open_methods import answers_often, answers_once
from agenta_ai_server.rpc.status import SERVICE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from google.protobuf.message import Message

    from agenta_ai_server.rpc.messages import Context

NAMES = ("", SERVICE)
NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

Response = health_pb2.HealthCheckResponse


class Health:
    """Reports NOT_SERVING to those who check as soon as the server is about to stop, and to watchers shortly before.

    Balancers check. grpc's clients watch: they stop using a connection whose server isn't serving, but don't open
    another one, and behind a balancer of connections, or on a shared port, it is the only one they have.

    Args:
        services: Returns the names of the tools' services, which come and go.

    Attributes:
        draining: Whether the server is to stop.
        stopping: Set when it stops.
    """

    def __init__(self, services: Callable[[], Collection[str]]) -> None:
        self._services = services
        self.draining = False
        self.stopping = asyncio.Event()

    def handlers(self) -> grpc.GenericRpcHandler:
        """Return the methods."""
        methods = {
            "Check": answers_once(health_pb2.HealthCheckRequest, self._check),
            "Watch": answers_often(health_pb2.HealthCheckRequest, self._watch),
        }
        messages: Any = health_pb2
        # Only if grpcio-health-checking is new enough to have the messages.
        if hasattr(messages, "HealthListRequest"):
            methods["List"] = answers_once(messages.HealthListRequest, self._list)
        return grpc.method_handlers_generic_handler(NAME, methods)

    async def _check(self, request: health_pb2.HealthCheckRequest, context: Context) -> Message:
        """Answer a check."""
        if not self._knows(request.service):
            await context.abort(grpc.StatusCode.NOT_FOUND, "There is no service of this name.")
        return self._response()

    async def _list(self, _: Message, context: Context) -> Message:
        """Answer a check of all services."""
        messages: Any = health_pb2
        answer: Message = messages.HealthListResponse(
            statuses=dict.fromkeys((*NAMES, *self._services()), self._response())
        )
        return answer

    async def _watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> AsyncIterator[Message]:
        """Send the status to a watcher, now and when it changes."""
        if not self._knows(request.service):
            yield Response(status=Response.SERVICE_UNKNOWN)
        else:
            if not self.stopping.is_set():
                yield Response(status=Response.SERVING)
            await self.stopping.wait()
            yield Response(status=Response.NOT_SERVING)
        # A watch lasts until the caller or the server ends it.
        await asyncio.get_running_loop().create_future()

    def _knows(self, service: str) -> bool:
        return service in NAMES or service in self._services()

    def _response(self) -> Response:
        return Response(status=Response.NOT_SERVING if self.draining else Response.SERVING)
