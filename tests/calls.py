"""What the tests send, and how they read what comes back."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, cast

from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from agenta_ai.v1 import error_pb2, tool_service_pb2
from agenta_ai_server.domain.arguments import already_read
from agenta_ai_server.domain.call import ANONYMOUS, Principal
from agenta_ai_server.domain.tool import ToolSet
from agenta_ai_server.domain.tool_call import ToolCall

if TYPE_CHECKING:
    from grpc.aio import AioRpcError

    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub
    from agenta_ai_server.domain.callers import Callers

REFINE = "tools.agenta.api.refine_prompt"
WITH_CASES = "tools.agenta.api.refine_prompt_with_cases"
# The template of the recorded answers: they refine its two messages.
TEMPLATE = {
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Extract entities from: {{input_text}}"},
    ],
    "template_format": "curly",
    "input_keys": ["input_text"],
}


def request(arguments: dict[str, Any], *, name: str = REFINE, request_id: str = "") -> tool_service_pb2.CallToolRequest:
    struct = Struct()
    struct.update(arguments)
    return tool_service_pb2.CallToolRequest(name=name, arguments=struct, request_id=request_id)


def refine(template: object = TEMPLATE, **arguments: str) -> tool_service_pb2.CallToolRequest:
    source = template if isinstance(template, str) else json.dumps(template)
    return request({"prompt_template_json": source, **arguments})


async def streamed(
    stub: ToolServiceAsyncStub, asked: tool_service_pb2.CallToolRequest, **options: Any
) -> tuple[list[tool_service_pb2.Progress], tool_service_pb2.CallToolResponse]:
    """Make the call by the method that reports progress: the progress, and the result."""
    call = stub.CallToolStream(as_stream(asked), **options)
    *progress, last = [event async for event in call]
    assert all(event.HasField("progress") for event in progress)
    assert last.HasField("result")
    return [event.progress for event in progress], last.result


def as_stream(asked: tool_service_pb2.CallToolRequest) -> tool_service_pb2.CallToolStreamRequest:
    return tool_service_pb2.CallToolStreamRequest.FromString(asked.SerializeToString())


def tool_call(
    name: str = REFINE,
    arguments: dict[str, Any] | None = None,
    *,
    deadline: float = math.inf,
    callers: Callers | None = None,
    caller: Principal = ANONYMOUS,
    tools: ToolSet | None = None,
    request_id: str = "",
) -> ToolCall:
    """A call as the pipeline gets it, for what is tested without a wire."""
    return ToolCall(
        name, caller, deadline, 60, tools or ToolSet(), already_read(arguments or {}), request_id, callers=callers
    )


def structured(response: tool_service_pb2.CallToolResponse) -> Any:
    assert not response.is_error, response.content[0].text
    return json_format.MessageToDict(response.structured_content)


def reason(response: tool_service_pb2.CallToolResponse) -> str:
    assert response.is_error, response
    return error_pb2.ErrorReason.Name(response.error.reason).removeprefix("ERROR_REASON_")


def trailers(error: AioRpcError) -> dict[str, str]:
    return {key: value for key, value in error.trailing_metadata() or () if isinstance(value, str)}


def details(error: AioRpcError) -> dict[str, Any]:
    """The error's google.rpc details, by the names of their types."""
    status = rpc_status.from_call(cast("Any", error))
    unpacked = {}
    for packed in status.details if status else ():
        name = packed.type_url.rpartition(".")[2]
        message = getattr(error_details_pb2, name)()
        assert packed.Unpack(message)
        unpacked[name] = json_format.MessageToDict(message)
    return unpacked
