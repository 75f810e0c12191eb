"""The least that a method of grpcio costs: the same messages are read and written, and nothing is done in between."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import grpc.aio
import uvloop
from bench.rig import TEMPLATE

from agenta_ai.v1.tool_service_pb2 import CallToolRequest, CallToolResponse
from agenta_ai_server.standin.refine import refine


def answer() -> CallToolResponse:
    """The service's own."""
    refined = json.loads(refine(json.dumps(TEMPLATE), ""))
    source = json.dumps(TEMPLATE | {"messages": refined["messages"]}, ensure_ascii=False)
    made = CallToolResponse()
    made.content.add(text=refined["summary"])
    made.structured_content.struct_value.update({**refined, "prompt_template_json": source})
    return made


async def main() -> None:
    answered = answer()

    async def call_tool(request: CallToolRequest, context: grpc.aio.ServicerContext[Any, Any]) -> CallToolResponse:
        return answered

    method = grpc.unary_unary_rpc_method_handler(
        call_tool, CallToolRequest.FromString, CallToolResponse.SerializeToString
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("agenta.ai.v1.ToolService", {"CallTool": method})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    logging.warning("listening on 127.0.0.1:%d", port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
