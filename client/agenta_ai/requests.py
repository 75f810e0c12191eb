"""From Python's values to the contract's requests. Pure functions, no I/O."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar
from uuid import uuid4

from agenta_ai import codec, responses
from agenta_ai.attempts import check_retries
from agenta_ai.errors import AgentaError, InvalidInput
from agenta_ai.service_config import MAX_REQUEST_BYTES
from agenta_ai.v1 import tool_service_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.message import Message

    from agenta_ai import cases, results
    from agenta_ai.meta import Metadata

# Name of the tool that ``refine_prompt`` calls.
REFINE_PROMPT = "tools.agenta.api.refine_prompt"
# Name of the tool that ``refine_prompt_with_cases`` calls.
REFINE_PROMPT_WITH_CASES = "tools.agenta.api.refine_prompt_with_cases"
# Pages of tools that a client reads: far more than any server has.
MAX_PAGES = 1_000

_Result = TypeVar("_Result")
_Other = TypeVar("_Other")


class JsonModel(Protocol):
    """A model that writes itself as JSON, as those of pydantic do."""

    def model_dump_json(self, *, by_alias: bool) -> str:
        """Return the model as a JSON object, its keys as Agenta knows them."""


PromptTemplate = Mapping[str, Any] | str | JsonModel


@dataclass(frozen=True, slots=True)
class TypedMethod:
    """One method of a generated stub.

    Attributes:
        path: As gRPC sends it.
        serialize: Makes bytes of a request.
        parse: Makes a response of bytes.
    """

    path: str
    serialize: Callable[[Any], bytes]
    parse: Callable[[bytes], Any]

    def on(self, channel: Any) -> Any:
        """Return the method on one of gRPC's own channels."""
        return channel.unary_unary(self.path, request_serializer=self.serialize, response_deserializer=self.parse)


@dataclass(frozen=True, slots=True)
class Exchange(Generic[_Result]):
    """One request, and how to read its response.

    Attributes:
        method: Name of the method, for example ``"CallTool"``.
        request: The request.
        read: Makes the result from the response and the trailers. A ``ValueError`` means that the response isn't as it
            should be.
        timeout: Seconds that it may take, with all its attempts.
        metadata: What is sent with this call, besides what goes with every call.
        retries: How often it is sent again; ``None`` as the client has it.
        typed: The tool's own method, in place of ``method``; ``None``: there is none.
    """

    method: str
    request: Message
    read: Callable[[Any, Metadata], _Result]
    timeout: float
    metadata: Metadata = ()
    retries: int | None = None
    typed: TypedMethod | None = None

    @property
    def request_id(self) -> str:
        """The idempotency key, by which the server knows a repeat; empty if no tool is called."""
        return getattr(self.request, "request_id", "")

    def streamed(self) -> Exchange[_Result]:
        """Return the same call of a tool by the method that reports progress. Its result is read the same way."""
        request = tool_service_pb2.CallToolStreamRequest.FromString(self.request.SerializeToString())
        return replace(self, method="CallToolStream", request=request)

    def result(self, response: Any, trailers: Metadata = ()) -> _Result:
        """Return the result.

        Args:
            response: The response; ``None`` if there was none, although the call ended well.
            trailers: The metadata at the end of the call.

        Raises:
            ToolFailed: The tool failed, and its failure is not a result.
            AgentaError: The response can't be understood.
        """
        try:
            if response is None:
                raise ValueError("there is no response")
            return self.read(response, trailers)
        except (ValueError, OverflowError, RecursionError):
            error = AgentaError(
                f"The answer of {self.method} has a form that this client doesn't know. "
                "Install the version of agenta-ai that matches the server."
            )
            error.request_id = self.request_id
            raise error from None


def status(timeout: float, metadata: Metadata = ()) -> Exchange[results.ServiceStatus]:
    """Return the exchange for the status: see :meth:`agenta_ai.Client.status`."""
    request = tool_service_pb2.StatusRequest()
    return Exchange("Status", request, lambda response, _: responses.read_status(response), timeout, metadata)


def list_tools(page_token: str, timeout: float, metadata: Metadata = ()) -> Exchange[results.ToolPage]:
    """Return the exchange for one page of tools: see :meth:`agenta_ai.Client.list_tools_page`."""
    request = tool_service_pb2.ListToolsRequest(page_token=_text(page_token, "page_token"))
    return Exchange("ListTools", request, lambda response, _: responses.read_page(response), timeout, metadata)


def check_token(token: str, seen: set[str]) -> None:
    """Note the token of a page.

    Raises:
        AgentaError: It was seen before, or there are more pages than :data:`MAX_PAGES`: they would have no end.
    """
    if token in seen:
        raise AgentaError("The server repeats a page of its tools. Report this to its operator.")
    if len(seen) + 1 >= MAX_PAGES:
        raise AgentaError(f"The server's tools have more than {MAX_PAGES:,} pages. Report this to its operator.")
    seen.add(token)


def call_tool(
    name: str,
    arguments: Mapping[str, Any],
    request_id: str | None,
    timeout: float,
    *,
    rerun_if_outcome_unknown: bool = False,
    metadata: Metadata = (),
    retries: int | None = None,
) -> Exchange[results.ToolResult]:
    """Return a call: see :meth:`agenta_ai.Client.call_tool`."""
    # Every call has one, because calls are sent again, and the server knows by it what it has run.
    request_id = str(uuid4()) if request_id is None else _text(request_id, "request_id")
    if not request_id:
        raise InvalidInput("request_id: is empty. Pass the id of the call to repeat, or leave it out for a new call.")
    if not isinstance(arguments, Mapping):
        raise InvalidInput(f"arguments: must be a mapping, not a {type(arguments).__name__}.")
    request = tool_service_pb2.CallToolRequest(
        name=_text(name, "name"),
        arguments=_struct(arguments),
        request_id=request_id,
        rerun_if_outcome_unknown=rerun_if_outcome_unknown,
    )
    check_size(request)
    return Exchange(
        "CallTool",
        request,
        lambda response, trailers: responses.read_result(response, request_id, trailers),
        timeout,
        metadata,
        check_retries(retries),
    )


def check_size(request: Message) -> None:
    """Check that the request isn't too large for the server.

    Raises:
        InvalidInput: It is.
    """
    if (size := request.ByteSize()) > MAX_REQUEST_BYTES:
        raise InvalidInput(
            f"The request has {size:,} bytes, and the limit is {MAX_REQUEST_BYTES:,}. Nothing was sent. "
            "Shorten the arguments."
        )


def refine_prompt(
    template: PromptTemplate,
    guidelines: str,
    context: str,
    call: Callable[[str, dict[str, Any]], Exchange[results.ToolResult]],
) -> Exchange[results.RefinedPrompt]:
    """Return a refinement: see :meth:`agenta_ai.Client.refine_prompt`.

    Args:
        template: The template.
        guidelines: What the refinement should follow.
        context: What the prompt is for.
        call: Makes the call of a tool from its name and its arguments.
    """
    template_json, original = read_template(template)
    arguments = {"prompt_template_json": template_json, "guidelines": guidelines, "context": context}
    exchange = call(REFINE_PROMPT, arguments)
    return with_result(exchange, lambda result: responses.read_refined(result, original))


def refine_prompt_with_cases(
    template: PromptTemplate,
    given: Iterable[cases.PromptCase],
    options: Mapping[str, Any],
    call: Callable[[str, dict[str, Any]], Exchange[results.ToolResult]],
) -> Exchange[cases.RefinedWithCases]:
    """Return a refinement against test cases: see :meth:`agenta_ai.Client.refine_prompt_with_cases`.

    Args:
        template: The template.
        given: The cases.
        options: The other arguments of the tool; those that are ``None`` are left out.
        call: Makes the call of a tool from its name and its arguments.
    """
    template_json, original = read_template(template)
    arguments = {name: value for name, value in options.items() if value is not None}
    arguments |= {"prompt_template_json": template_json, "cases": [_case(case) for case in given]}
    exchange = call(REFINE_PROMPT_WITH_CASES, arguments)
    return with_result(exchange, lambda result: responses.read_refined_with_cases(result, original))


def _case(case: object) -> dict[str, Any]:
    if not isinstance(case, Mapping):
        raise InvalidInput(f"cases: each must be a mapping with inputs and expected, not a {type(case).__name__}.")
    return dict(case)


def with_result(exchange: Exchange[_Result], convert: Callable[[_Result], _Other]) -> Exchange[_Other]:
    """Return the same exchange with another result."""
    return Exchange(
        exchange.method,
        exchange.request,
        lambda response, trailers: convert(exchange.read(response, trailers)),
        exchange.timeout,
        exchange.metadata,
        exchange.retries,
    )


def check_concurrency(concurrency: int) -> int:
    """Return how many calls may run at the same time.

    Raises:
        InvalidInput: It is not an integer of at least 1.
    """
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise InvalidInput("concurrency: must be an integer of at least 1.")
    return concurrency


def sends(key: str, metadata: Metadata) -> bool:
    """Return whether the metadata has this key."""
    return any(name == key for name, _ in metadata)


def merged(metadata: Metadata, extra: Metadata) -> Metadata:
    """Return the metadata of the client with those of a call, whose keys replace the client's."""
    if not extra:
        return metadata
    replaced = {key for key, _ in extra}
    return (*(pair for pair in metadata if pair[0] not in replaced), *extra)


def read_template(template: PromptTemplate) -> tuple[str, dict[str, Any]]:
    """Return the template as JSON text and as a dictionary.

    Raises:
        InvalidInput: It is not a JSON object.
    """
    try:
        text = _template_json(template)
        if not text.strip():
            raise ValueError("it is empty")
        parsed = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"The template is not JSON: {error}.") from None
    if not isinstance(parsed, dict):
        raise InvalidInput('The template is not a JSON object. It should look like {"messages": [...]}.')
    return text, parsed


def _template_json(template: PromptTemplate) -> str:
    if isinstance(template, str):
        return template
    if isinstance(template, Mapping):
        return json.dumps(dict(template), ensure_ascii=False, allow_nan=False)
    if hasattr(template, "model_dump_json"):
        return template.model_dump_json(by_alias=True)
    raise TypeError(f"a {type(template).__name__} is neither a mapping nor a string nor a model")


def _struct(arguments: Mapping[str, Any]) -> Any:
    try:
        return codec.to_struct(arguments)
    except codec.CodecError as error:
        raise InvalidInput(f"arguments{error.path}: {error.problem}") from None


def _text(text: object, name: str) -> str:
    if not isinstance(text, str):
        raise InvalidInput(f"{name}: must be a string, not a {type(text).__name__}.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{name}: character {error.start} is half of a surrogate pair, not text.") from None
    return text
