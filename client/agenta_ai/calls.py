"""What both clients share: from Python to requests and back. Pure functions, no I/O."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from uuid import uuid4

import grpc
import grpc.experimental
from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value

from agenta_ai import errors, results
from agenta_ai.credentials import Credentials, Metadata, TokenProvider, credentials
from agenta_ai.errors import AgentaError, InvalidInput
from agenta_ai.service_config import CALL_TIMEOUT, CHANNEL_OPTIONS, MAX_TIMEOUT, READ_TIMEOUT, service_config
from agenta_ai.v1 import content_pb2, error_pb2, tool_pb2, tool_service_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from enum import StrEnum

    from google.protobuf.internal.enum_type_wrapper import _EnumTypeWrapper
    from google.protobuf.message import Message

#: Name of the tool that ``refine_prompt`` calls.
REFINE_PROMPT = "tools.agenta.api.refine_prompt"

_Result = TypeVar("_Result")
_State = TypeVar("_State", bound="StrEnum")

# The deepest arguments that a request can hold: protobuf refuses to read messages nested deeper than 100, and each
# level of JSON takes three.
_MAX_DEPTH = 32
_MAX_EXACT_INTEGER = 2**53
_HOST_AND_PORT = re.compile(r"(\[[^\]]+\]|[^:/\[\]]+):[0-9]+")
_SCHEMES = ("dns:", "unix:", "unix-abstract:", "ipv4:", "ipv6:", "vsock:", "xds:")
# gRPC cuts an address off at ? and #, and escapes what is no ASCII: what it then calls is no longer what was written.
_IN_NO_TARGET = re.compile(r"[^!-~]|[?#]")

# What stays on this machine, all of it written out: whatever else gRPC may make of an address, TLS is safe for it.
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_LOCAL_ENDPOINT = rf"(?:(?i:localhost)|\[::1\]|127(?:\.{_OCTET}){{3}}):[0-9]+"
_LOCAL = re.compile(
    rf"dns:(///)?{_LOCAL_ENDPOINT}"
    rf"|ipv[46]:{_LOCAL_ENDPOINT}(,{_LOCAL_ENDPOINT})*"
    r"|unix:(///|(?!//)).+"
    r"|unix-abstract:(?!//).+"
)

_METADATA_KEY = re.compile(r"[0-9A-Za-z_.-]+")
_METADATA_TEXT = re.compile(r"[ -~]*")


class JsonModel(Protocol):
    """A model that writes itself as JSON, as those of pydantic do."""

    def model_dump_json(self, *, by_alias: bool) -> str:
        """The model as a JSON object, its keys as Agenta knows them."""


PromptTemplate = Mapping[str, Any] | str | JsonModel


# --- The connection


@dataclass(frozen=True, slots=True)
class Connection:
    """Where calls go, and what goes with each.

    Attributes:
        target: The server, as the user wrote it.
        address: The same as gRPC wants it.
        channel_credentials: Those of the channel; ``None`` means plaintext.
        options: Those of the channel.
        timeout: Seconds that a tool may take by default.
        caller: Who calls, and what else is sent with every call.
    """

    target: str
    address: str
    channel_credentials: grpc.ChannelCredentials | None
    options: Sequence[tuple[str, str | int]]
    timeout: float
    caller: Credentials

    def timeout_of(self, timeout: float | None) -> float:
        """Seconds that a tool may take: the call's own if it says so."""
        return self.timeout if timeout is None else timeout

    def failed(self, error: grpc.RpcError, exchange: Exchange[Any]) -> errors.CallFailed:
        """What to raise for an error of gRPC."""
        return errors.call_failed(
            error,
            target=self.target,
            tls=self.channel_credentials is not None,
            repeat_id=exchange.repeat_id,
            timeout=exchange.timeout,
            credentials=self.caller.given,
        )


def connection(
    target: str,
    *,
    tls: bool | grpc.ChannelCredentials | None = None,
    timeout: float = CALL_TIMEOUT,
    metadata: Iterable[tuple[str, str | bytes]] = (),
    api_key: str | None = None,
    token: str | None = None,
    token_provider: TokenProvider | None = None,
    project: str | None = None,
    wait_for_limit: bool = False,
) -> Connection:
    """Checks and completes what a client is made with: see :class:`agenta_ai.Client`.

    Raises:
        InvalidInput: If one of them can't be used.
    """
    address = resolve(target)
    local = is_loopback(address)
    channel_credentials = _channel_credentials(not local if tls is None else tls)
    caller = credentials(
        api_key=api_key,
        token=token,
        token_provider=token_provider,
        project=project,
        metadata=call_metadata(metadata),
    )
    if caller.given and channel_credentials is None and not local:
        raise InvalidInput(
            f"{caller.given}: credentials are not sent to another machine in plaintext: "
            "use TLS, or reach the server by a loopback address or a Unix socket"
        )
    options = [*CHANNEL_OPTIONS, ("grpc.service_config", json.dumps(service_config(wait_for_limit=wait_for_limit)))]
    if local:
        # gRPC would hand calls to this machine, in plaintext, to the proxy that http_proxy names.
        options.append(("grpc.enable_http_proxy", 0))
    return Connection(target, address, channel_credentials, options, check_timeout(timeout), caller)


def _channel_credentials(tls: bool | grpc.ChannelCredentials) -> grpc.ChannelCredentials | None:
    # gRPC has credentials that mean plaintext, which must not pass for TLS.
    if not tls or tls is grpc.experimental.insecure_channel_credentials():  # type: ignore[no-untyped-call]
        return None
    return tls if isinstance(tls, grpc.ChannelCredentials) else grpc.ssl_channel_credentials()


def call_metadata(extra: Iterable[tuple[str, str | bytes]]) -> Metadata:
    """The user's own pairs, their keys in lower case.

    Raises:
        InvalidInput: If a pair can't be sent. Its value isn't shown: it may be a secret.
    """
    return tuple(_metadata_pair(pair) for pair in extra)


def _metadata_pair(pair: object) -> tuple[str, str | bytes]:
    match pair:
        case [str(key), value] if _METADATA_KEY.fullmatch(key):
            key = key.lower()
            if key.endswith("-bin"):
                if isinstance(value, bytes):
                    return key, value
                raise InvalidInput(f"metadata: the value of {key!r} must be bytes")
            if isinstance(value, str) and _METADATA_TEXT.fullmatch(value):
                return key, value
            raise InvalidInput(f"metadata: the value of {key!r} must be a line of printable ASCII")
    raise InvalidInput("metadata: must be pairs of a key and a value; keys have letters, digits, '-', '_', '.' alone")


def resolve(target: str) -> str:
    """The target as gRPC wants it: ``"host:port"`` becomes ``"dns:///host:port"``.

    Raises:
        InvalidInput: If it is empty or a web address, lacks a port, or holds what no address does.
    """
    if odd := _IN_NO_TARGET.search(_text(target, "target")):
        raise InvalidInput(f"target {target!r} holds {odd[0]!r}, as no address does: write it as host:port")
    if not target or target.startswith(("http:", "https:")):
        raise InvalidInput(f"target {target!r} is no address of a gRPC server: write it as host:port, without http")
    if target.startswith(_SCHEMES) or "://" in target:
        return target
    # gRPC would try port 443.
    if not _HOST_AND_PORT.fullmatch(target):
        raise InvalidInput(f"target {target!r} names no port: write it as host:port, or as [host]:port for IPv6")
    return f"dns:///{target}"


def is_loopback(address: str) -> bool:
    """Whether a resolved target stays on this machine, so that it needs no TLS."""
    return _LOCAL.fullmatch(address) is not None


def check_timeout(timeout: float) -> float:
    """The time-out in seconds.

    Raises:
        InvalidInput: If it isn't greater than 0 and at most a year.
    """
    if not isinstance(timeout, int | float) or not 0 < timeout <= MAX_TIMEOUT:
        raise InvalidInput(f"timeout: must be a number of seconds, greater than 0 and at most {MAX_TIMEOUT}")
    return timeout


def _read_timeout(timeout: float | None) -> float:
    return READ_TIMEOUT if timeout is None else check_timeout(timeout)


# --- Requests


@dataclass(frozen=True, slots=True)
class Exchange(Generic[_Result]):
    """One request and what to make of its response.

    Attributes:
        method: Name of the method, for example ``"CallTool"``.
        request: The request.
        read: Makes the result from the response. A ``ValueError`` means that the response isn't as it should be.
        timeout: Seconds that it may take.
    """

    method: str
    request: Message
    read: Callable[[Any], _Result]
    timeout: float

    @property
    def repeat_id(self) -> str:
        """The request_id, by which the server knows a repeat; empty if no tool is called."""
        return self.request.request_id if isinstance(self.request, tool_service_pb2.CallToolRequest) else ""

    def result(self, response: Any) -> _Result:
        """The result.

        Raises:
            ToolFailed: If a tool failed whose failure is no result.
            AgentaError: If the response can't be understood.
        """
        try:
            return self.read(response)
        except (ValueError, OverflowError, RecursionError):
            raise AgentaError(
                f"the answer of {self.method} is not of the form that this client knows: "
                "install the version of agenta-ai that fits the server"
            ) from None


def status(timeout: float | None) -> Exchange[results.ServiceStatus]:
    """Asks for the status: see :meth:`agenta_ai.Client.status`."""
    return Exchange("Status", tool_service_pb2.StatusRequest(), read_status, _read_timeout(timeout))


def list_tools(page_token: str, timeout: float | None) -> Exchange[tuple[list[results.Tool], str]]:
    """Asks for one page of tools, and the token of the next: empty on the last one."""
    request = tool_service_pb2.ListToolsRequest(page_token=page_token)
    return Exchange("ListTools", request, read_page, _read_timeout(timeout))


def check_token(token: str, seen: set[str]) -> None:
    """Notes the token of a page.

    Raises:
        AgentaError: If it was seen before: the pages would go round without an end.
    """
    if token in seen:
        raise AgentaError("the server repeats a page of its tools: report it to its operator")
    seen.add(token)


def call_tool(
    name: str, arguments: Mapping[str, Any], request_id: str | None, timeout: float
) -> Exchange[results.ToolResult]:
    """Asks for a call: see :meth:`agenta_ai.Client.call_tool`."""
    # Every call has one, because gRPC repeats calls, and the server knows by it what it has run.
    request_id = _text(request_id or str(uuid4()), "request_id")
    if not isinstance(arguments, Mapping):
        raise InvalidInput(f"arguments: a {type(arguments).__name__} is no mapping")
    struct = _to_struct(arguments, "arguments", _MAX_DEPTH)
    request = tool_service_pb2.CallToolRequest(name=_text(name, "name"), arguments=struct, request_id=request_id)
    return Exchange("CallTool", request, partial(read_result, request_id=request_id), check_timeout(timeout))


def refine_prompt(
    template: PromptTemplate, guidelines: str, context: str, request_id: str | None, timeout: float
) -> Exchange[results.RefinedPrompt]:
    """Asks for a refinement: see :meth:`agenta_ai.Client.refine_prompt`."""
    template_json, original = read_template(template)
    arguments = {"prompt_template_json": template_json, "guidelines": guidelines, "context": context}
    call = call_tool(REFINE_PROMPT, arguments, request_id, timeout)
    return Exchange(call.method, call.request, lambda response: read_refined(call.read(response), original), timeout)


def read_template(template: PromptTemplate) -> tuple[str, dict[str, Any]]:
    """The template as JSON text and as a dictionary.

    Raises:
        InvalidInput: If it is no JSON object.
    """
    try:
        text = _template_json(template)
        if not text.strip():
            raise ValueError("it is empty")
        parsed = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"the template is no JSON: {error}") from None
    if not isinstance(parsed, dict):
        raise InvalidInput('the template is no JSON object: it should look like {"messages": [...]}')
    return text, parsed


def _template_json(template: PromptTemplate) -> str:
    if isinstance(template, str):
        return template
    if isinstance(template, Mapping):
        return json.dumps(dict(template), ensure_ascii=False, allow_nan=False)
    if hasattr(template, "model_dump_json"):
        return template.model_dump_json(by_alias=True)
    raise TypeError(f"a {type(template).__name__} is neither a mapping nor a string nor a model")


def _to_struct(fields: Mapping[str, Any], path: str, depth: int) -> Struct:
    return Struct(fields={_key(key, path): _to_value(item, f"{path}.{key}", depth - 1) for key, item in fields.items()})


def _key(key: object, path: str) -> str:
    if not isinstance(key, str):
        raise InvalidInput(f"{path}: the key {key!r} is no string")
    return _text(key, f"{path}: the key {key!r}")


def _to_value(item: object, path: str, depth: int) -> Value:
    if isinstance(item, Mapping | list | tuple) and depth == 0:
        raise InvalidInput(f"{path[:80]}…: nested too deep to be sent; send it as a string that holds JSON")
    match item:
        case None:
            return Value(null_value=NULL_VALUE)
        case bool():
            return Value(bool_value=item)
        case int() | float():
            return Value(number_value=_number(item, path))
        case str():
            return Value(string_value=_text(item, path))
        case Mapping():
            return Value(struct_value=_to_struct(item, path, depth))
        case list() | tuple():
            values = [_to_value(one, f"{path}[{index}]", depth - 1) for index, one in enumerate(item)]
            return Value(list_value=ListValue(values=values))
    raise InvalidInput(f"{path}: a {type(item).__name__} is no JSON value")


def _number(number: float, path: str) -> float:
    if isinstance(number, int) and abs(number) > _MAX_EXACT_INTEGER:
        raise InvalidInput(f"{path}: an integer beyond 2**53 would not arrive unchanged; send it as a string")
    if not math.isfinite(number):
        raise InvalidInput(f"{path}: {number} is no JSON value")
    return float(number)


def _text(text: object, path: str) -> str:
    if not isinstance(text, str):
        raise InvalidInput(f"{path}: a {type(text).__name__} is no string")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{path}: character {error.start} is half of a surrogate pair, not text") from None
    return text


# --- Answers


def read_status(response: tool_service_pb2.StatusResponse) -> results.ServiceStatus:
    """The service's status in Python's types."""
    return results.ServiceStatus(
        enabled=response.enabled,
        state=_state(tool_service_pb2.ServiceState, response.state, results.ServiceState.SERVING),
        missing_settings=tuple(response.missing_settings),
        server_version=response.server_version,
        start_time=response.start_time.ToDatetime(tzinfo=UTC) if response.HasField("start_time") else None,
        tools=tuple(
            results.ToolStatus(
                read_tool(status.tool), _rate_limit(status.rate_limit) if status.HasField("rate_limit") else None
            )
            for status in response.tools
        ),
        rate_limiter_state=_state(
            tool_service_pb2.RateLimiterState, response.rate_limiter_state, results.RateLimiterState.UNSPECIFIED
        ),
    )


def read_page(response: tool_service_pb2.ListToolsResponse) -> tuple[list[results.Tool], str]:
    """A page of tools in Python's types, and the token of the next page."""
    return [read_tool(tool) for tool in response.tools], response.next_page_token


def read_tool(tool: tool_pb2.Tool) -> results.Tool:
    """A tool in Python's types."""
    hints = tool.annotations
    return results.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=_from_struct(tool.input_schema),
        output_schema=_from_struct(tool.output_schema),
        annotations=results.ToolAnnotations(
            read_only=hints.read_only_hint,
            destructive=hints.destructive_hint if hints.HasField("destructive_hint") else True,
            idempotent=hints.idempotent_hint,
            open_world=hints.open_world_hint if hints.HasField("open_world_hint") else True,
        ),
        icons=tuple(results.Icon(icon.src, icon.mime_type, tuple(icon.sizes)) for icon in tool.icons),
    )


def read_result(response: tool_service_pb2.CallToolResponse, request_id: str) -> results.ToolResult:
    """What a tool answered, in Python's types."""
    blocks = (_content(block) for block in response.content)
    return results.ToolResult(
        content=tuple(block for block in blocks if block is not None),
        structured_content=_from_value(response.structured_content),
        is_error=response.is_error,
        error=_tool_error(response.error) if response.HasField("error") else None,
        meta=results.CallMeta(
            trace_id=response.meta.trace_id,
            attempts=tuple(
                results.Attempt(attempt.trace_id, errors.seconds(attempt.duration))
                for attempt in response.meta.attempts
            ),
            repaired=response.meta.repaired,
            replayed=response.meta.replayed,
            warnings=tuple(response.meta.warnings),
        ),
        request_id=request_id,
    )


def read_refined(result: results.ToolResult, original: dict[str, Any]) -> results.RefinedPrompt:
    """What ``tools.agenta.api.refine_prompt`` answered.

    Raises:
        ToolFailed: If the tool failed.
        ValueError: If the answer isn't of the form that this version knows.
    """
    result.raise_for_error()
    match result.structured_content:
        case {"prompt_template_json": str(text), "messages": list(messages), "summary": str(summary)}:
            template = json.loads(text)
            if isinstance(template, dict):
                return results.RefinedPrompt(template, text, messages, summary, result.meta, original)
    raise ValueError("this is no refinement")


def _content(block: content_pb2.ContentBlock) -> results.Content | None:
    match block.WhichOneof("kind"):
        case "text":
            return results.TextContent(block.text)
        case "image":
            return results.ImageContent(block.image.data, block.image.mime_type)
        case "audio":
            return results.AudioContent(block.audio.data, block.audio.mime_type)
        case "resource_link":
            link = block.resource_link
            size = link.size if link.HasField("size") else None
            return results.ResourceLink(link.uri, link.name, link.title, link.description, link.mime_type, size)
    return None


def _tool_error(error: error_pb2.ToolError) -> results.ToolError:
    return results.ToolError(
        reason=_enum_name(error_pb2.ErrorReason, error.reason).removeprefix(errors.REASON_PREFIX),
        retryable=error.retryable,
        retry_delay=errors.seconds(error.retry_delay) if error.HasField("retry_delay") else None,
        field_violations=tuple(errors.FieldViolation(v.field, v.description) for v in error.field_violations),
    )


def _rate_limit(limit: tool_service_pb2.RateLimit) -> results.RateLimit:
    return results.RateLimit(
        limit.burst, limit.refill_per_minute, limit.remaining, errors.seconds(limit.next_call_delay)
    )


def _enum_name(enum: _EnumTypeWrapper[Any], number: int) -> str:
    """The value's name, or its number as text if this version doesn't know it."""
    return enum.Name(number) if number in enum.values() else str(number)


def _state(enum: _EnumTypeWrapper[Any], number: int, unknown: _State) -> _State:
    prefix = enum.Name(0).removesuffix("UNSPECIFIED")
    try:
        return type(unknown)(_enum_name(enum, number).removeprefix(prefix))
    except ValueError:
        return unknown


def _from_struct(struct: Struct) -> dict[str, Any]:
    return {key: _from_value(value) for key, value in struct.fields.items()}


def _from_value(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() and abs(number) <= _MAX_EXACT_INTEGER else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return _from_struct(value.struct_value)
        case "list_value":
            return [_from_value(item) for item in value.list_value.values]
    return None
