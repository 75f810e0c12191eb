"""The client for asyncio."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc
import grpc.aio

from agenta_ai import calls, errors
from agenta_ai.service_config import CALL_TIMEOUT
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agenta_ai.credentials import Metadata, TokenProvider
    from agenta_ai.results import RefinedPrompt, ServiceStatus, Tool, ToolResult
    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub

_Result = TypeVar("_Result")


class Client:
    """Calls Agenta AI services. One client serves many calls at once; keep it for as long as there are some.

    It belongs to the event loop of its first call.

    Args:
        target: The server, ``"host:port"`` or any name that gRPC knows, such as ``"unix:/run/agenta.sock"``.
        tls: ``True``: with the system's certificate authorities (or those of the file that
            ``GRPC_DEFAULT_SSL_ROOTS_FILE_PATH`` names). Credentials: with these. ``False``: plaintext. ``None``:
            plaintext to this machine, TLS to any other. ``grpc.ssl_channel_credentials(ca, key, certificate)``, each
            the bytes of a PEM file, also proves by a certificate who calls.
        timeout: Seconds that a tool may take, unless a call says otherwise. Greater than 0, at most a year.
        metadata: Pairs to send with every call. Keys are lowercased; those that end in ``-bin`` take bytes, all others
            a line of printable ASCII.
        api_key: Says who calls: a key of the server, ``"aai_…"``, or of Agenta. 1 to 8192 visible ASCII characters. At
            most one of ``api_key``, ``token`` and ``token_provider`` is given.
        token: Says who calls: a bearer token, of the same characters.
        token_provider: Makes the bearer token of each call, just before it: a function, or one to be awaited. It keeps
            the token until that expires, if making one takes time, and its time is not part of the time-out. What it
            raises is raised by the call, unchanged, and nothing was sent.
        project: Id of the project to act in, for credentials of Agenta. 1 to 8192 visible ASCII characters.
        wait_for_limit: Whether a call of a tool that a rate limit refuses waits as long as the server says, and is sent
            again: within its time-out, and four times at most, which many calls that wait together can use up, and
            repeats after a broken connection count too. Else, and where the wait would outlast the time-out, it fails
            at once, and ``retry_delay`` says how long to wait. A refused call runs no tool, so none is paid for twice.

    Raises:
        InvalidInput: If the target is no address, the time-out, a pair of the metadata or a credential can't be used,
            or credentials would be sent to another machine in plaintext.
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
        token_provider: TokenProvider | None = None,
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
        self._channel: grpc.aio.Channel | None = None
        self._opened: ToolServiceAsyncStub | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections. Calls that are running end with :class:`agenta_ai.CallFailed`; no new ones begin."""
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    async def status(self, *, timeout: float | None = None) -> ServiceStatus:
        """Whether the service is switched on and healthy, and what this caller may use.

        Args:
            timeout: Seconds that it may take; 10 if not given.

        Raises:
            CallFailed: If there was no answer.
        """
        return await self._send(calls.status(timeout))

    async def list_tools(self, *, timeout: float | None = None) -> list[Tool]:
        """All tools that this caller may call, sorted by name.

        Args:
            timeout: Seconds that each page may take; 10 if not given.

        Raises:
            CallFailed: If there was no answer.
            AgentaError: If the pages have no end, because the server repeats one.
        """
        tools, token = await self._send(calls.list_tools("", timeout))
        seen: set[str] = set()
        while token:
            calls.check_token(token, seen)
            page, token = await self._send(calls.list_tools(token, timeout))
            tools += page
        return tools

    async def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> ToolResult:
        """Runs a tool. A tool that failed is a result too: see ``is_error``.

        gRPC repeats the call, within its time-out and four times at most, when the connection breaks or the server is
        unavailable. Each repeat has the same request_id, which the server runs once: one process by itself, several
        replicas if they share a Redis. Whoever repeats the call, too, should pass the same request_id.

        Args:
            name: Full name of the tool, for example ``"tools.agenta.api.refine_prompt"``.
            arguments: JSON values, as the tool's ``input_schema`` has them.
            request_id: A UUID, version 4, that names the call: a repeat with the same tool and arguments joins it, or
                gets its result for as long as the server keeps it. A new one is made if not given.
            timeout: Seconds that it may take; the client's own if not given.

        Raises:
            InvalidInput: If an argument can't be sent, or what a token_provider returned.
            CallFailed: If the call was refused, or there was no answer: unless ``tool_was_run`` is ``False``, the tool
                may have run then and may have been paid for, and the same call with the same request_id gets its
                result, if there is one.
        """
        seconds = self._connection.timeout_of(timeout)
        return await self._send(calls.call_tool(name, arguments, request_id, seconds))

    async def refine_prompt(
        self,
        template: calls.PromptTemplate,
        *,
        guidelines: str = "",
        context: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> RefinedPrompt:
        """Lets a model improve the messages of a prompt template. Variables, roles and everything else stay.

        It is repeated as ``call_tool`` is.

        Args:
            template: The whole template: a mapping, its JSON, or a model that has ``model_dump_json``.
            guidelines: What to mind, in plain words.
            context: What the prompt is for, in plain words.
            request_id: As for ``call_tool``.
            timeout: As for ``call_tool``.

        Raises:
            InvalidInput: If the template is no JSON object.
            CallFailed: As for ``call_tool``.
            ToolFailed: If the tool failed.
        """
        seconds = self._connection.timeout_of(timeout)
        return await self._send(calls.refine_prompt(template, guidelines, context, request_id, seconds))

    @property
    def _stub(self) -> ToolServiceAsyncStub:
        if self._closed:
            raise errors.AgentaError(errors.CLOSED)
        # Opened late, because a channel belongs to the event loop that it is opened in.
        loop = asyncio.get_running_loop()
        if self._opened is None:
            self._loop = loop
            to = self._connection
            if to.channel_credentials is None:
                self._channel = grpc.aio.insecure_channel(to.address, to.options)
            else:
                self._channel = grpc.aio.secure_channel(to.address, to.channel_credentials, to.options)
            self._opened = ToolServiceStub(self._channel)
        if self._loop is not loop:
            raise errors.InvalidInput("this client was used in another event loop: make one for each loop")
        return self._opened

    async def _metadata(self) -> Metadata:
        caller = self._connection.caller
        if caller.provider is None:
            return caller.metadata
        token = caller.provider()
        return caller.with_token(await token if inspect.isawaitable(token) else token)

    async def _send(self, exchange: calls.Exchange[_Result]) -> _Result:
        # First, because a provider is awaited, and the client may be closed meanwhile.
        metadata = await self._metadata()
        method = getattr(self._stub, exchange.method)
        cancelled_before = _cancellations()
        try:
            response = await method(exchange.request, timeout=exchange.timeout, metadata=metadata)
        except grpc.RpcError as error:
            raise self._connection.failed(error, exchange) from None
        except asyncio.CancelledError:
            # gRPC raises it for a channel that is closed, too, although nobody cancelled this task.
            if self._closed and _cancellations() == cancelled_before:
                raise errors.closed_during(exchange.repeat_id) from None
            raise
        return exchange.result(response)


def _cancellations() -> int:
    """How often somebody asked for the end of the current task."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0
