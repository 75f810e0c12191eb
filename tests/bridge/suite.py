"""A service with the tools that the official suite of conformance calls, for the bridge to stand in front of."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.json_format import ParseDict
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from agenta_ai.v1 import tool_service_pb2 as pb
from agenta_ai.v1 import tool_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SOUND = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="
OBJECT = {"type": "object"}
SCHEMA_2020_12 = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
RESULTS: dict[str, dict[str, Any]] = {
    "test_simple_text": {"content": [{"text": "This is a simple text response for testing."}]},
    "test_image_content": {"content": [{"image": {"data": PIXEL, "mimeType": "image/png"}}]},
    "test_audio_content": {"content": [{"audio": {"data": SOUND, "mimeType": "audio/wav"}}]},
    "test_error_handling": {
        "content": [{"text": "This tool intentionally returns an error for testing"}],
        "isError": True,
        "error": {"reason": "ERROR_REASON_UPSTREAM_FAILED"},
    },
    "test_tool_with_progress": {"content": [{"text": "Done."}]},
    "test_logging_tool": {"content": [{"text": "Done."}]},
    "json_schema_2020_12_tool": {"content": [{"text": "Done."}]},
}
NOT_FOUND = status_pb2.Status(code=grpc.StatusCode.NOT_FOUND.value[0], message="There is no such tool.")
_WHY = AnyMessage()
_WHY.Pack(error_details_pb2.ErrorInfo(domain="agenta.ai", reason="ERROR_REASON_TOOL_NOT_FOUND"))
NOT_FOUND.details.append(_WHY)


class SuiteService(tool_service_pb2_grpc.ToolServiceServicer):
    """Has these tools, for everybody."""

    async def Status(self, _: Any, __: Any) -> pb.StatusResponse:  # noqa: N802
        return pb.StatusResponse(enabled=True)

    async def ListTools(self, _: Any, __: Any) -> pb.ListToolsResponse:  # noqa: N802
        schemas = {name: SCHEMA_2020_12 if "schema" in name else OBJECT for name in sorted(RESULTS)}
        tools = [{"name": name, "description": name, "inputSchema": schema} for name, schema in schemas.items()]
        return ParseDict({"tools": tools, "ttl": "60s", "cacheScope": "CACHE_SCOPE_PUBLIC"}, pb.ListToolsResponse())

    async def CallTool(self, _: Any, context: Any) -> Any:  # noqa: N802
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "The bridge calls CallToolStream.")

    async def CallToolStream(self, request: Any, context: Any) -> AsyncIterator[pb.CallToolStreamResponse]:  # noqa: N802
        if request.name not in RESULTS:
            await context.abort_with_status(rpc_status.to_status(NOT_FOUND))
        for done in (0, 50, 100):
            progress = pb.Progress(text=f"{done} of 100 are done.", done=done, total=100)
            yield pb.CallToolStreamResponse(progress=progress)
        yield pb.CallToolStreamResponse(result=ParseDict(RESULTS[request.name], pb.CallToolResponse()))


@contextmanager
def suite_service() -> Iterator[str]:
    """Run the service on a free port, in a thread of its own, and yield its address."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> tuple[grpc.aio.Server, int]:
        server = grpc.aio.server()
        tool_service_pb2_grpc.add_ToolServiceServicer_to_server(SuiteService(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    server, port = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(None), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
