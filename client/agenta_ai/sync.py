"""The client for programs without asyncio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc

from agenta_ai import calls, errors
from agenta_ai.service_config import CALL_TIMEOUT
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from agenta_ai.results import RefinedPrompt, ServiceStatus, Tool, ToolResult

_Result = TypeVar("_Result")


class SyncClient:
    """:class:`agenta_ai.Client` without ``await``: the same arguments, results and errors. Threads may share one.

    A ``token_provider`` returns the token itself, and is called by each thread that makes a call.
    """

    def __init__(
        self,
        target: str,
        *,
        tls: bool | grpc.ChannelCredentials | None = None,
        timeout: float = CALL_TIMEOUT,
        metadata: Iterable[tuple[str, str | bytes]] = (),
        api_key: str | None = None,
        token: str | None = None,
        token_provider: Callable[[], str] | None = None,
        project: str | None = None,
        wait_for_limit: bool = False,
    ) -> None:
        self._connection = calls.connection(
            target,
            tls=tls,
            timeout=timeout,
            metadata=metadata,
            api_key=api_key,
            token=token,
            token_provider=token_provider,
            project=project,
            wait_for_limit=wait_for_limit,
        )
        to = self._connection
        if to.channel_credentials is None:
            self._channel = grpc.insecure_channel(to.address, to.options)
        else:
            self._channel = grpc.secure_channel(to.address, to.channel_credentials, to.options)
        self._stub = ToolServiceStub(self._channel)
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """As :meth:`agenta_ai.Client.close`."""
        self._closed = True
        self._channel.close()

    def status(self, *, timeout: float | None = None) -> ServiceStatus:
        """As :meth:`agenta_ai.Client.status`."""
        return self._send(calls.status(timeout))

    def list_tools(self, *, timeout: float | None = None) -> list[Tool]:
        """As :meth:`agenta_ai.Client.list_tools`."""
        tools, token = self._send(calls.list_tools("", timeout))
        seen: set[str] = set()
        while token:
            calls.check_token(token, seen)
            page, token = self._send(calls.list_tools(token, timeout))
            tools += page
        return tools

    def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> ToolResult:
        """As :meth:`agenta_ai.Client.call_tool`."""
        seconds = self._connection.timeout_of(timeout)
        return self._send(calls.call_tool(name, arguments, request_id, seconds))

    def refine_prompt(
        self,
        template: calls.PromptTemplate,
        *,
        guidelines: str = "",
        context: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> RefinedPrompt:
        """As :meth:`agenta_ai.Client.refine_prompt`."""
        seconds = self._connection.timeout_of(timeout)
        return self._send(calls.refine_prompt(template, guidelines, context, request_id, seconds))

    def _send(self, exchange: calls.Exchange[_Result]) -> _Result:
        caller = self._connection.caller
        metadata = caller.metadata if caller.provider is None else caller.with_token(caller.provider())
        method = getattr(self._stub, exchange.method)
        try:
            response = method(exchange.request, timeout=exchange.timeout, metadata=metadata)
        except grpc.RpcError as error:
            if self._closed and error.code() is grpc.StatusCode.CANCELLED:
                raise errors.closed_during(exchange.repeat_id) from None
            raise self._connection.failed(error, exchange) from None
        except ValueError:
            # How gRPC says it. Asking before would be too early: another thread may be closing.
            if self._closed:
                raise errors.AgentaError(errors.CLOSED) from None
            raise
        return exchange.result(response)
