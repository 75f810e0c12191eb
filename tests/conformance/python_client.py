"""The Python client as a conformance program, which README.md describes."""

from __future__ import annotations

import base64
import json
import sys
import threading
import time
from functools import cache
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import json_format
from google.rpc import error_details_pb2  # noqa: F401  # knows the details
from grpc_status import rpc_status

from agenta_ai import calls
from agenta_ai.v1 import tool_service_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

METHODS: dict[str, tuple[type[Message], type[Message]]] = {
    "Status": (tool_service_pb2.StatusRequest, tool_service_pb2.StatusResponse),
    "ListTools": (tool_service_pb2.ListToolsRequest, tool_service_pb2.ListToolsResponse),
    "CallTool": (tool_service_pb2.CallToolRequest, tool_service_pb2.CallToolResponse),
}


def main() -> None:
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        try:
            result = run(asked)
        except Exception as error:  # whatever it is, the runner wants to know
            result = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({"id": asked["id"], **result}), flush=True)


@cache
def channel(target: str, client: str, wait_for_limit: bool) -> grpc.Channel:
    if client == "bare":
        return grpc.insecure_channel(target, [("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)])
    connection = calls.connection(target, wait_for_limit=wait_for_limit)
    return grpc.insecure_channel(connection.address, connection.options)


def run(asked: dict[str, Any]) -> dict[str, Any]:
    request_type, response_type = METHODS[asked["method"]]
    if "request_base64" in asked:
        data = base64.b64decode(asked["request_base64"])
    else:
        data = json_format.ParseDict(asked["request"], request_type()).SerializeToString()
    method: Any = channel(asked["target"], asked["client"], asked.get("wait_for_limit", False)).unary_unary(
        f"/agenta.ai.v1.ToolService/{asked['method']}", response_deserializer=response_type.FromString
    )
    began = time.monotonic()
    call = method.future(data, timeout=asked.get("timeout"), metadata=list(asked.get("metadata", {}).items()))
    if "cancel_after" in asked:
        timer = threading.Timer(asked["cancel_after"], call.cancel)
        timer.start()
    code = call.code()  # waits for the end
    seconds = time.monotonic() - began
    if "cancel_after" in asked:
        timer.cancel()
    result = {"code": code.name, "message": call.details() or "", "seconds": seconds, "metadata": metadata(call)}
    if code is grpc.StatusCode.OK:
        return result | {"details": []} | response(call.result())
    return result | {"details": details(call)}


def metadata(call: grpc.Call) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in (*(call.initial_metadata() or ()), *(call.trailing_metadata() or ())):
        if isinstance(value, str):
            found.setdefault(key, []).append(value)
    return found


def response(message: Message) -> dict[str, Any]:
    shown: dict[str, Any] = {"response": json_format.MessageToDict(message)}
    if isinstance(message, tool_service_pb2.CallToolResponse) and message.HasField("structured_content"):
        shown["native"] = calls.read_result(message, "").structured_content
    return shown


def details(call: grpc.Call) -> list[dict[str, Any]]:
    status = rpc_status.from_call(call)
    return [detail(packed) for packed in status.details] if status else []


def detail(packed: Any) -> dict[str, Any]:
    try:
        return json_format.MessageToDict(packed)
    except TypeError:  # of a type that isn't known here
        return {"@type": packed.type_url, "value": base64.b64encode(packed.value).decode()}


if __name__ == "__main__":
    main()
