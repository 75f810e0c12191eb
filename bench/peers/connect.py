"""The tool by connectrpc, the other way to serve protobuf from Python: the contract's method by Connect, on granian.

It reads and writes the messages of the service, without credentials and limits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
from bench.peers.hosting import on_granian
from bench.peers.work import LIMITS, TIMEOUT, Answer, Arguments, refine
from connectrpc.code import Code
from connectrpc.compat import google_protobuf_codecs
from connectrpc.errors import ConnectError
from connectrpc.method import IdempotencyLevel, MethodInfo, StreamType
from connectrpc.server import ConnectASGIApplication, Endpoint
from google.protobuf.json_format import MessageToDict
from pydantic import ValidationError

from agenta_ai.v1.tool_service_pb2 import CallToolRequest, CallToolResponse

if TYPE_CHECKING:
    from connectrpc.request import RequestContext

SERVICE = "agenta.ai.v1.ToolService"
METHOD = MethodInfo(
    name="CallTool", service_name=SERVICE, input=CallToolRequest, output=CallToolResponse,
    idempotency_level=IdempotencyLevel.UNKNOWN, stream_type=StreamType.UNARY,
)  # fmt: skip
client = httpx.AsyncClient(timeout=TIMEOUT, limits=LIMITS)


async def call_tool(request: CallToolRequest, _: RequestContext[Any, Any]) -> CallToolResponse:
    try:
        arguments = Arguments.model_validate(MessageToDict(request.arguments))
    except ValidationError as error:
        raise ConnectError(Code.INVALID_ARGUMENT, str(error)) from None
    return message(await refine(client, arguments))


def message(answer: Answer) -> CallToolResponse:
    made = CallToolResponse(is_error=answer.isError)
    for text in answer.content:
        made.content.add(text=text.text)
    if answer.structuredContent:
        made.structured_content.struct_value.update(answer.structuredContent.model_dump())
    return made


class Application(ConnectASGIApplication[None]):  # type: ignore[misc]  # it isn't where types are checked
    @property
    def path(self) -> str:
        return f"/{SERVICE}"


if __name__ == "__main__":
    endpoints = {f"/{SERVICE}/CallTool": Endpoint.unary(METHOD, call_tool)}
    on_granian(
        Application(service=None, endpoints=lambda _: endpoints, codecs=google_protobuf_codecs(), compressions=())
    )
