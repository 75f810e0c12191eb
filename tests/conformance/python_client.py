"""The Python client as a conformance program, which README.md describes."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import sys
import time
from functools import cache
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2  # noqa: F401  # error_details_pb2 knows the details

from agenta_ai import CallFailed, Client, Progress, ToolFailed
from agenta_ai.failures import trailers_of
from agenta_ai.requests import Exchange
from agenta_ai.responses import read_result
from agenta_ai.tools.agenta.api.v1 import api_tools_service_pb2, api_tools_service_pb2_grpc
from agenta_ai.v1 import tool_service_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from agenta_ai.meta import Metadata

METHODS: dict[str, tuple[type[Message], type[Message]]] = {
    "Status": (tool_service_pb2.StatusRequest, tool_service_pb2.StatusResponse),
    "ListTools": (tool_service_pb2.ListToolsRequest, tool_service_pb2.ListToolsResponse),
    "CallTool": (tool_service_pb2.CallToolRequest, tool_service_pb2.CallToolResponse),
    "CallToolStream": (tool_service_pb2.CallToolStreamRequest, tool_service_pb2.CallToolStreamResponse),
    "RefinePrompt": (api_tools_service_pb2.RefinePromptRequest, api_tools_service_pb2.RefinePromptResponse),
}
TYPED = "RefinePrompt"


def main() -> None:
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        try:
            result = run(asked)
        except Exception as error:  # whatever it is, the runner wants to know
            result = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({"id": asked["id"], **result}), flush=True)


@cache
def loop() -> asyncio.Runner:
    return asyncio.Runner()


def run(asked: dict[str, Any]) -> dict[str, Any]:
    return loop().run(call(asked))


async def call(asked: dict[str, Any]) -> dict[str, Any]:
    made = {"bare": bare, "shipped": shipped}[asked["client"]]
    progress: list[tool_service_pb2.Progress] = []
    began = time.monotonic()
    calling = asyncio.ensure_future(made(asked, progress))
    if "cancel_after" in asked:
        asyncio.get_running_loop().call_later(asked["cancel_after"], calling.cancel)
    try:
        result = await calling
    except asyncio.CancelledError:
        result = failed(grpc.StatusCode.CANCELLED, "", ())
    if asked["method"] == "CallToolStream":
        result["progress"] = [json_format.MessageToDict(each) for each in progress]
    return {**result, "seconds": time.monotonic() - began}


@cache
def channel(target: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(target, [("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0)])


async def bare(asked: dict[str, Any], progress: list[tool_service_pb2.Progress]) -> dict[str, Any]:
    request_type, response_type = METHODS[asked["method"]]
    if "request_base64" in asked:
        data = base64.b64decode(asked["request_base64"])
    else:
        data = json_format.ParseDict(asked["request"], request_type()).SerializeToString()
    to = channel(asked["target"])
    streams = asked["method"] == "CallToolStream"
    method: Any = (to.unary_stream if streams else to.unary_unary)(
        f"/{service_of(asked['method'])}/{asked['method']}", response_deserializer=response_type.FromString
    )
    call = method(data, timeout=asked.get("timeout"), metadata=list(asked.get("metadata", {}).items()))
    try:
        await asyncio.sleep(asked.get("read_after", 0))
        response = await last(call, progress) if streams else await call
    except grpc.aio.AioRpcError as error:
        return failed(error.code(), error.details() or "", both(error.initial_metadata(), error.trailing_metadata()))
    return succeeded(response, both(await call.initial_metadata(), await call.trailing_metadata()))


def service_of(method: str) -> str:
    of = api_tools_service_pb2 if method == TYPED else tool_service_pb2
    (service,) = of.DESCRIPTOR.services_by_name.values()
    return str(service.full_name)


async def last(events: Any, progress: list[tool_service_pb2.Progress]) -> Any:
    result = None
    async for event in events:
        match event.WhichOneof("event"):
            case "progress":
                progress.append(event.progress)
            case "result":
                result = event.result
    return result


@cache
def client(target: str, wait_for_limit: bool, retries: int | None) -> Client:
    return Client(target, wait_for_limit=wait_for_limit, retries=retries)


async def shipped(asked: dict[str, Any], progress: list[tool_service_pb2.Progress]) -> dict[str, Any]:
    used = client(asked["target"], asked.get("wait_for_limit", False), None if asked.get("retries", True) else 0)
    closing = None
    if "close_after" in asked:
        client.cache_clear()
        closing = asyncio.ensure_future(closed(used, asked["close_after"]))
    try:
        return await (typed(used, asked) if asked["method"] == TYPED else generic(used, asked, progress))
    except CallFailed as error:
        outcome = {"not_run": error.tool_was_run is False, "request_id": error.request_id, "sentence": str(error)}
        return failed(error.code, error.message, error.trailers) | {"outcome": outcome}
    finally:
        if closing:
            await closing


async def generic(used: Client, asked: dict[str, Any], progress: list[tool_service_pb2.Progress]) -> dict[str, Any]:
    # The client makes a stream of what would be a single call.
    name = asked["method"].removesuffix("Stream")
    exchange = Exchange(
        name,
        json_format.ParseDict(asked["request"], METHODS[name][0]()),
        succeeded,
        asked.get("timeout", 300),
        tuple(asked.get("metadata", {}).items()),
    )
    if name == asked["method"]:
        return await used._send(exchange)
    async for event in used._stream(exchange):
        if not isinstance(event, Progress):
            return event
        progress.append(message(event))
    raise AssertionError("a stream ended without a result")


async def typed(used: Client, asked: dict[str, Any]) -> dict[str, Any]:
    stub: Any = api_tools_service_pb2_grpc.ApiToolsServiceStub(used.channel())
    request = json_format.ParseDict(asked["request"], METHODS[TYPED][0]())
    metadata = tuple(asked.get("metadata", {}).items())
    try:
        response = await stub.RefinePrompt(request, timeout=asked.get("timeout"), metadata=metadata)
    except ToolFailed as error:
        failure = {"reason": f"ERROR_REASON_{error.reason}", "retryable": error.retryable}
        response = json_format.ParseDict({"error": failure, "content": [{"text": error.message}]}, METHODS[TYPED][1]())
    return succeeded(response, ())


def message(progress: Progress) -> tool_service_pb2.Progress:
    made = tool_service_pb2.Progress(
        stage=tool_service_pb2.ProgressStage.Value(f"PROGRESS_STAGE_{progress.stage}"),
        text=progress.text,
        done=progress.done,
        total=progress.total,
        queue_position=progress.queue_position,
    )
    if progress.retry_delay is not None:
        made.retry_delay.FromTimedelta(datetime.timedelta(seconds=progress.retry_delay))
    return made


async def closed(used: Client, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await used.close()


def both(initial: Any, trailing: Any) -> Metadata:
    return (*trailers_of(initial), *trailers_of(trailing))


def succeeded(message: Message, metadata: Metadata) -> dict[str, Any]:
    shown = {"code": "OK", "message": "", "details": [], "metadata": texts(metadata)}
    shown["response"] = json_format.MessageToDict(message)
    if isinstance(message, tool_service_pb2.CallToolResponse) and message.HasField("structured_content"):
        shown["native"] = read_result(message).structured_content
    return shown


def failed(code: grpc.StatusCode, message: str, metadata: Metadata) -> dict[str, Any]:
    packed = next((value for key, value in metadata if key == "grpc-status-details-bin"), b"")
    status = status_pb2.Status.FromString(packed if isinstance(packed, bytes) else b"")
    details = [detail(each) for each in status.details]
    return {"code": code.name, "message": message, "details": details, "metadata": texts(metadata)}


def texts(metadata: Metadata) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for key, value in metadata:
        if isinstance(value, str):
            found.setdefault(key, []).append(value)
    return found


def detail(packed: Any) -> dict[str, Any]:
    try:
        return json_format.MessageToDict(packed)
    except TypeError:  # of a type that isn't known here
        return {"@type": packed.type_url, "value": base64.b64encode(packed.value).decode()}


if __name__ == "__main__":
    main()
