"""A server that answers by a script what ours never says, or says only when something is broken."""

from __future__ import annotations

import asyncio
import base64
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from conformance import later
from conformance.arrivals import Arrival, Arrivals, trace_of
from conformance.vectors import REQUESTS, STREAM, TYPED, Reply, expanded
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as PackedDetail
from google.rpc import (
    code_pb2,
    error_details_pb2,  # noqa: F401  # knows the details
    status_pb2,
)
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

SERVICE = "agenta.ai.v1.ToolService"
TYPED_SERVICE = "agenta.ai.tools.agenta.api.v1.ApiToolsService"
# The largest request that a client of the service may want to send, and some more.
OPTIONS = (("grpc.max_receive_message_length", 8 << 20),)
CODES = {code.value[0]: code for code in grpc.StatusCode}


class Scripted:
    """The server.

    Args:
        scripts: The replies to the attempts of each trace, in the order in which they arrive; the last one is repeated.

    Attributes:
        arrivals: What arrived.
        cuts: What cuts the connections of a trace whose script says so.
    """

    def __init__(self, scripts: Mapping[str, tuple[Reply, ...]]) -> None:
        self._scripts = scripts
        self.arrivals = Arrivals()
        self.cuts: dict[str, Callable[[], None]] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Serve on a free port of loopback, whose address is yielded."""
        server = grpc.aio.server(options=OPTIONS)
        for service, methods in ((SERVICE, REQUESTS.keys() - {TYPED}), (TYPED_SERVICE, {TYPED})):
            handlers = {method: self._handler(method) for method in methods}
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        healthy = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
        for service in ("", SERVICE):
            await healthy.set(service, health_pb2.HealthCheckResponse.SERVING)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(None)

    def _handler(self, method: str) -> grpc.RpcMethodHandler[Any, Any]:
        async def run(data: bytes, context: Any) -> bytes:
            metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
            trace = trace_of(metadata)
            request = json_format.MessageToDict(REQUESTS[method].FromString(data))
            arrival = Arrival(method=method, request=request, metadata=metadata, left=context.time_remaining())
            self.arrivals.begin(trace, arrival)
            script = self._scripts.get(trace)
            if not script:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "The call doesn't say what vector it is of.")
                raise AssertionError("abort returned")
            reply = script[min(len(self.arrivals.of(trace)), len(script)) - 1]
            try:
                for event in reply.events:
                    await context.write(later.response(method, expanded(event)))
                await asyncio.sleep(reply.wait)
            except asyncio.CancelledError:
                self.arrivals.end(arrival, closed=True)
                raise
            self.arrivals.end(arrival, closed=False)
            if reply.cut:
                self.cuts[trace]()
                await asyncio.Event().wait()  # the call is cancelled when its connection is gone
            return await _answer(reply, method, context)

        async def stream(data: bytes, context: Any) -> None:
            await context.write(await run(data, context))

        return (
            grpc.unary_stream_rpc_method_handler(stream)
            if method == STREAM
            else grpc.unary_unary_rpc_method_handler(run)
        )


async def _answer(reply: Reply, method: str, context: Any) -> bytes:
    if reply.status is not None:
        status = _status(reply)
        details = (("grpc-status-details-bin", status.SerializeToString()),) if status.details else ()
        await context.abort(CODES[status.code], reply.message, (*details, *reply.metadata.items()))
    context.set_trailing_metadata(tuple(reply.metadata.items()))
    if reply.response_base64 is not None:
        return base64.b64decode(reply.response_base64)
    response = expanded(reply.response)
    return later.response(method, {"result": response} if method == STREAM else response)


def _status(reply: Reply) -> status_pb2.Status:
    status = status_pb2.Status(code=code_pb2.Code.Value(reply.status or ""), message=reply.message)
    for detail in reply.details:
        status.details.append(_detail(expanded(detail)))
    return status


def _detail(detail: dict[str, Any]) -> PackedDetail:
    """The detail as it is packed: of a type that we know, or any other, whose bytes are given in base64."""
    if detail.keys() == {"@type", "value"}:
        return PackedDetail(type_url=detail["@type"], value=base64.b64decode(detail["value"]))
    return json_format.ParseDict(detail, PackedDetail())
