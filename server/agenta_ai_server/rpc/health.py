"""Health for load balancers and clients: ``grpc.health.v1``.

Not the servicer of grpcio-health-checking: that holds a lock while it writes to a watcher, so that one who doesn't read
keeps all others from being told, and the server from stopping.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agenta_ai_server.rpc.status import SERVICE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from google.protobuf.message import Message

NAMES = ("", SERVICE)

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Response = health_pb2.HealthCheckResponse


class Health(health_pb2_grpc.HealthServicer):
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

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> Response:  # noqa: N802
        """Answer a check."""
        if not self._knows(request.service):
            await context.abort(grpc.StatusCode.NOT_FOUND, "There is no service of this name.")
        return self._response()

    async def List(self, request: Message, context: Context) -> Message:  # noqa: N802
        """Answer a check of all services. Called only if grpcio-health-checking is new enough to have the messages."""
        messages: Any = health_pb2
        answer: Message = messages.HealthListResponse(
            statuses=dict.fromkeys((*NAMES, *self._services()), self._response())
        )
        return answer

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncIterator[Response]:
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
