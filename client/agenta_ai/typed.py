"""Calls with stubs generated from the ``.proto`` files of tools, with everything that the client adds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4

from agenta_ai import responses
from agenta_ai.errors import InvalidInput, ToolFailed
from agenta_ai.failures import call_id_of
from agenta_ai.requests import Exchange, TypedMethod, check_size

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from agenta_ai.meta import Metadata

Send = Callable[[TypedMethod, Any, float | None, Any], Any]


class StubChannel:
    """The channel for a generated stub. Its calls go through a client.

    Args:
        send: Sends a request through the client; takes the method, the request, the timeout and the metadata.
    """

    def __init__(self, send: Send) -> None:
        self._send = send

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        **_: Any,
    ) -> Callable[..., Any]:
        """Return a method, as gRPC's channels do."""
        typed = TypedMethod(method, request_serializer, response_deserializer)

        def call(request: Message, *, timeout: float | None = None, metadata: Any = (), **options: Any) -> Any:
            if options:
                raise InvalidInput(f"{', '.join(options)}: can't be set for one call. Set it for the client.")
            return self._send(typed, request, timeout, metadata or ())

        return call

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):  # of Python itself, such as copy() looks for
            raise AttributeError(name)
        raise InvalidInput(
            f"{name}: this channel is for the methods of tools. Use the client's own methods for others."
        )


def exchange(method: TypedMethod, request: Any, timeout: float, metadata: Metadata) -> Exchange[Any]:
    """Return a call by a typed method. It is given a ``request_id`` if it has none.

    Raises:
        InvalidInput: The request has more than 1 MiB.
    """
    sent = type(request)()
    sent.CopyFrom(request)
    sent.request_id = request.request_id or str(uuid4())
    check_size(sent)
    return Exchange(
        "CallTool",
        sent,
        lambda response, trailers: _checked(response, sent.request_id, trailers),
        timeout,
        metadata,
        typed=method,
    )


def _checked(response: Any, request_id: str, trailers: Metadata) -> Any:
    """Return the response of a tool that succeeded.

    Raises:
        ToolFailed: The tool failed.
    """
    if response.WhichOneof("outcome") != "error":
        return response
    error = responses.read_tool_error(response.error)
    raise ToolFailed(
        response.content[0].text if response.content else "",
        reason=error.reason,
        meta=responses.read_meta(response.meta),
        retryable=error.retryable,
        retry_delay=error.retry_delay,
        field_violations=error.field_violations,
        request_id=request_id,
        call_id=call_id_of(trailers),
    )
