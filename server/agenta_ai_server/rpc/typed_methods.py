"""The typed methods of the tools: looked up for each call, because tools come and go while the server runs."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from agenta_ai.codec import CodecError
from agenta_ai.v1 import content_pb2
from agenta_ai_server.domain.errors import Reason, Refused, Violation
from agenta_ai_server.domain.outcome import ToolFailure
from agenta_ai_server.domain.values import MAX_VALUES
from agenta_ai_server.rpc.handler import ToolHandler
from agenta_ai_server.rpc.parsing import invalid_arguments, parse
from agenta_ai_server.rpc.responses import error_message, meta_message
from agenta_ai_server.rpc.typed_fields import fields_of
from agenta_ai_server.rpc.wire_format import Fields
from agenta_ai_server.typed.names import ROOT, snake_case

if TYPE_CHECKING:
    from google.protobuf.message import Message as ProtoMessage

    from agenta_ai_server.domain.call import Call
    from agenta_ai_server.domain.outcome import ToolOutcome
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.domain.values import Json
    from agenta_ai_server.rpc.handler import GrpcHandler
    from agenta_ai_server.rpc.tool_calls import ToolCalls
    from agenta_ai_server.rpc.typed_tools import TypedTools
    from agenta_ai_server.typed.generation import TypedMethod

PREFIX = f"/{ROOT}."
# Names of nonexistent methods come from callers, and must not reach the log.
UNKNOWN_METHOD = f"/{ROOT}/Unknown"
METHOD = re.compile(rf"/{re.escape(ROOT)}\.([a-z0-9_]+)\.([a-z0-9_]+)\.v1\.[A-Za-z0-9]+ToolsService/([A-Za-z0-9]+)")


class TypedMethods(grpc.GenericRpcHandler):
    """Handles the typed methods. Registered before the server starts, and looks up the method of each call.

    Args:
        typed: Knows the methods.
        calls: Builds tool calls.
    """

    def __init__(self, typed: TypedTools, calls: ToolCalls) -> None:
        self._typed = typed
        self._calls = calls

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> GrpcHandler:
        """Return the handler of a typed method, or of one with a similar name; ``None`` for any other."""
        path = str(handler_call_details.method)
        if not path.startswith(PREFIX):
            return None
        method = self._typed.current.methods.get(path)
        if method is None:
            # The pipeline refuses it like a CallTool, so that a hidden tool looks like one that doesn't exist.
            return ToolHandler(partial(self._read_unknown, path), _write_nothing, recorded_as=UNKNOWN_METHOD)
        fields = Fields({1: fields_of(method.shape.arguments)})
        return ToolHandler(partial(self._read, method, fields), partial(write_typed_outcome, method))

    def _read(self, method: TypedMethod, fields: Fields, data: bytes, call: Call) -> ToolCall:
        request: Any = parse(data, method.request.FromString, fields)
        return self._calls.build(
            call,
            method.tool,
            partial(_arguments, method, request.arguments),
            request_id=request.request_id,
            rerun_if_outcome_unknown=request.rerun_if_outcome_unknown,
        )

    def _read_unknown(self, path: str, _: bytes, call: Call) -> ToolCall:
        name = tool_name(path)
        return self._calls.build(call, name, partial(_refuse, name), request_id="", rerun_if_outcome_unknown=False)


def tool_name(path: str) -> str:
    """Return the tool that a method would call; the method itself if its name says nothing of one."""
    found = METHOD.fullmatch(path)
    return f"tools.{found[1]}.{found[2]}.{snake_case(found[3])}" if found else path


def write_typed_outcome(method: TypedMethod, outcome: ToolOutcome) -> bytes:
    """Return the response of a tool's outcome, serialized."""
    response: Any = method.response()
    if outcome.failure is None:
        try:
            response.result.SetInParent()
            method.result.write(response.result, _object(outcome.structured))
        except CodecError as error:
            outcome = _unsendable(outcome, error)
    if outcome.failure:
        # These messages belong to another descriptor pool, so they are copied by their bytes. The oneof drops what was
        # written of the result.
        response.error.MergeFromString(error_message(outcome.failure).SerializeToString())
    block = content_pb2.ContentBlock(text=outcome.text)
    response.content.add().MergeFromString(block.SerializeToString())
    response.meta.MergeFromString(meta_message(outcome).SerializeToString())
    serialized: bytes = response.SerializeToString()
    return serialized


def _write_nothing(_: ToolOutcome) -> bytes:
    raise AssertionError("a method that doesn't exist has an outcome")


def _object(structured: Json) -> dict[str, Json]:
    if not isinstance(structured, dict):
        raise CodecError("Is not an object.")
    return structured


def _arguments(method: TypedMethod, arguments: ProtoMessage, *, max_values: int = MAX_VALUES) -> dict[str, Json]:
    """Return the arguments as JSON.

    Raises:
        Refused: ARGUMENTS_INVALID.
    """
    try:
        return method.arguments.read(arguments, max_values)
    except CodecError as error:
        raise invalid_arguments(error) from None


def _refuse(name: str, **_: int) -> dict[str, Json]:
    message = f"The tool {name[:100]!r} has no typed method on this server. Call it with CallTool."
    raise Refused(Reason.TOOL_NOT_FOUND, message, resource=name)


def _unsendable(outcome: ToolOutcome, error: CodecError) -> ToolOutcome:
    """Return the failure of a result that the method's messages can't hold."""
    wrong = Violation(f"result{error.path}", error.problem)
    text = (
        f"The tool's result can't be sent by this method. {wrong.field}: {wrong.description} CallTool with the same "
        "request_id returns it."
    )
    failure = ToolFailure(Reason.UPSTREAM_OUTPUT_INVALID, violations=(wrong,))
    return replace(outcome, text=text, structured=None, failure=failure)
