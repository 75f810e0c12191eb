"""The client for programs without asyncio."""

from __future__ import annotations

import inspect
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

import grpc

from agenta_ai import errors, failures, requests, typed
from agenta_ai.connection import connection, read_timeout
from agenta_ai.credentials import AUTHORIZATION, note_failure
from agenta_ai.responses import read_progress
from agenta_ai.results import Progress
from agenta_ai.service_config import CALL_TIMEOUT
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

    from agenta_ai.attempts import Attempts
    from agenta_ai.cases import PromptCase, RefinedWithCases
    from agenta_ai.meta import Metadata
    from agenta_ai.requests import Exchange, PromptTemplate, TypedMethod
    from agenta_ai.results import RefinedPrompt, ServiceStatus, Tool, ToolPage, ToolResult

_Result = TypeVar("_Result")


class SyncClient:
    """Calls Agenta AI services without asyncio. Threads may share a client; create one and keep it.

    Args:
        target: The server, such as ``"host:port"`` with a port from 1 to 65535, or ``"unix:/run/agenta.sock"``.
        tls: ``True`` uses TLS with the system's certificate authorities (or those in the file that
            ``GRPC_DEFAULT_SSL_ROOTS_FILE_PATH`` names), ``False`` uses plaintext, and ``None`` uses plaintext for this
            machine and TLS for any other. Channel credentials use TLS as they define:
            ``grpc.ssl_channel_credentials(ca, key, certificate)``, each the bytes of a PEM file, also sends a client
            certificate.
        timeout: Seconds that a tool may take, unless a call sets another timeout. Greater than 0, at most a year.
        metadata: Pairs to send with every call. Keys are lowercased. Values are bytes if the key ends in ``-bin``, and
            otherwise a line of printable ASCII.
        api_key: An API key of the server, ``"aai_…"``, or of Agenta. 1 to 8192 visible ASCII characters. Pass at most
            one of ``api_key``, ``token`` and ``token_provider``.
        token: A bearer token, with the same limits.
        token_provider: A function that returns the bearer token of each call, just before it is sent, in the thread of
            the call. If creating a token takes time, the function must cache it. Its time counts towards the timeout,
            but it isn't interrupted. If it raises an exception, the call raises it unchanged, and nothing was sent.
        project: Id of the project to act in, for credentials of Agenta. 1 to 8192 visible ASCII characters.
        wait_for_limit: Whether a rate-limited call of a tool waits as long as the server says, and is then sent again
            with the same request_id, within its timeout. Otherwise it fails at once, and ``retry_delay`` says how long
            to wait. A refused call runs no tool, so waiting costs nothing.
        retries: How often a call is retried if its connection breaks or the server is unavailable: ``None`` means 4
            times (3 times for ``status`` and ``list_tools``), ``0`` means never. All attempts have the same request_id
            and share one timeout.
        connections: Number of connections that the calls use in turn, 1 to 100. One connection can carry a thousand
            calls at a time. Use more if the server balances connections instead of calls, as several processes on one
            port or a TCP load balancer do.

    Raises:
        InvalidInput: The target is not an address, another argument can't be used, or credentials would be sent to
            another machine in plaintext.
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
        retries: int | None = None,
        connections: int = 1,
    ) -> None:
        self._connection = connection(
            target,
            tls=tls,
            timeout=timeout,
            metadata=metadata,
            api_key=api_key,
            token=token,
            token_provider=token_provider,
            project=project,
            wait_for_limit=wait_for_limit,
            retries=retries,
            connections=connections,
        )
        self._channels = [self._open() for _ in range(connections)]
        # Threads may share it: a turn is one step of the interpreter.
        self._turns = cycle([(channel, ToolServiceStub(channel)) for channel in self._channels])
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections.

        Running calls of other threads end at once with :class:`agenta_ai.CallFailed`, code CANCELLED; their outcome is
        unknown. New calls, and those that are still waiting for a token, fail with :class:`agenta_ai.AgentaError`, and
        nothing is sent.
        """
        self._closing.set()
        for channel in self._channels:
            channel.close()

    def status(
        self, *, timeout: float | None = None, metadata: Iterable[tuple[str, str | bytes]] = ()
    ) -> ServiceStatus:
        """Return whether the service is enabled and healthy, and which tools this caller may use.

        Args:
            timeout: Seconds that it may take; 10 if not given.
            metadata: Pairs to send with this call, in addition to the client's own.

        Raises:
            CallFailed: There was no response.
        """
        extra = self._connection.extra_metadata(metadata)
        return self._send(requests.status(read_timeout(timeout), extra))

    def list_tools(
        self, *, timeout: float | None = None, metadata: Iterable[tuple[str, str | bytes]] = ()
    ) -> list[Tool]:
        """Return all tools that this caller may call, sorted by name.

        Args:
            timeout: Seconds that each page may take; 10 if not given.
            metadata: Pairs to send with each call, in addition to the client's own.

        Raises:
            CallFailed: There was no response.
            AgentaError: The pages never end: the server repeats one, or sends more than 1,000.
        """
        seconds, extra = read_timeout(timeout), self._connection.extra_metadata(metadata)
        page = self._send(requests.list_tools("", seconds, extra))
        tools = [*page.tools]
        seen: set[str] = set()
        while page.next_page_token:
            requests.check_token(page.next_page_token, seen)
            page = self._send(requests.list_tools(page.next_page_token, seconds, extra))
            tools += page.tools
        return tools

    def list_tools_page(
        self,
        page_token: str = "",
        *,
        timeout: float | None = None,
        metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> ToolPage:
        """Return one page of the tools that this caller may call, and how long it may be cached.

        Args:
            page_token: ``next_page_token`` of the previous page; empty for the first page.
            timeout: Seconds that it may take; 10 if not given.
            metadata: Pairs to send with this call, in addition to the client's own.

        Raises:
            CallFailed: There was no response, or the server didn't issue the token.
        """
        extra = self._connection.extra_metadata(metadata)
        return self._send(requests.list_tools(page_token, read_timeout(timeout), extra))

    def call_tool(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        request_id: str | None = None,
        timeout: float | None = None,
        rerun_if_outcome_unknown: bool = False,
        metadata: Iterable[tuple[str, str | bytes]] = (),
        retries: int | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> ToolResult:
        """Run a tool. If the tool fails, this returns a result with ``is_error``.

        The call is retried if its connection breaks or the server is unavailable. Every attempt has the same
        request_id, so the server runs and bills the call only once.

        Args:
            name: Full name of the tool, for example ``"tools.agenta.api.refine_prompt"``.
            arguments: JSON values that match the tool's ``input_schema``. At most 32 levels; integers up to 2**53.
            request_id: The idempotency key, a UUID of version 4: a repeat with the same tool and arguments joins the
                running call, or gets its result while the server stores it. By default, a new one is created.
            timeout: Seconds that it may take; the client's own if not given.
            rerun_if_outcome_unknown: Whether the server may run the tool again if an earlier call with this request_id
                may have been billed and its result is lost; the call may then be billed twice. Otherwise, it fails with
                the reason ``OUTCOME_UNKNOWN``.
            metadata: Pairs to send with this call. They replace the client's own pairs with the same keys.
            retries: How often the call is retried; ``0`` means never; the client's own if not given.
            on_progress: Called with the progress of the tool while it runs: see :meth:`stream_tool`.

        Raises:
            InvalidInput: An argument can't be sent, or the request has more than 1 MiB. Nothing was sent.
            CallFailed: The call was refused, or there was no response. If ``tool_was_run`` is ``None``, the outcome is
                unknown: call again with the same arguments and the error's ``request_id`` to get the result.
        """
        exchange = self._call(name, arguments, request_id, timeout, rerun_if_outcome_unknown, metadata, retries)
        return self._watched(exchange, on_progress)

    def stream_tool(
        self,
        name: str,
        arguments: Mapping[str, Any],
        *,
        request_id: str | None = None,
        timeout: float | None = None,
        rerun_if_outcome_unknown: bool = False,
        metadata: Iterable[tuple[str, str | bytes]] = (),
        retries: int | None = None,
    ) -> Generator[Progress | ToolResult, None, None]:
        """Run a tool, and yield its progress while it runs; the last event is the result.

        It is retried like :meth:`call_tool`, even if its stream breaks. A repeat of a running call yields the progress
        from then on. Progress that isn't read in time is dropped. A server that is older than this method reports none.
        To end the call early, close the generator, for example with :func:`contextlib.closing`.

        Args:
            name: As for :meth:`call_tool`.
            arguments: As for :meth:`call_tool`.
            request_id: As for :meth:`call_tool`.
            timeout: As for :meth:`call_tool`.
            rerun_if_outcome_unknown: As for :meth:`call_tool`.
            metadata: As for :meth:`call_tool`.
            retries: As for :meth:`call_tool`.

        Yields:
            :class:`agenta_ai.Progress`, any number of times, and then the :class:`agenta_ai.ToolResult`.

        Raises:
            InvalidInput: As for :meth:`call_tool`.
            CallFailed: As for :meth:`call_tool`.
        """
        exchange = self._call(name, arguments, request_id, timeout, rerun_if_outcome_unknown, metadata, retries)
        return self._stream(exchange)

    def refine_prompt(
        self,
        template: PromptTemplate,
        *,
        guidelines: str = "",
        context: str = "",
        request_id: str | None = None,
        timeout: float | None = None,
        rerun_if_outcome_unknown: bool = False,
        metadata: Iterable[tuple[str, str | bytes]] = (),
        retries: int | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> RefinedPrompt:
        """Have a model improve the messages of a prompt template. Variables, roles and everything else stay the same.

        Args:
            template: The whole template: a mapping, its JSON, or a model with ``model_dump_json``.
            guidelines: Instructions for the refinement.
            context: What the prompt is for.
            request_id: As for :meth:`call_tool`.
            timeout: As for :meth:`call_tool`.
            rerun_if_outcome_unknown: As for :meth:`call_tool`.
            metadata: As for :meth:`call_tool`.
            retries: As for :meth:`call_tool`.
            on_progress: As for :meth:`call_tool`.

        Raises:
            InvalidInput: The template is not a JSON object, or the request has more than 1 MiB. Nothing was sent.
            CallFailed: As for :meth:`call_tool`.
            ToolFailed: The tool failed.
        """

        def call(name: str, arguments: Mapping[str, Any]) -> Exchange[ToolResult]:
            return self._call(name, arguments, request_id, timeout, rerun_if_outcome_unknown, metadata, retries)

        exchange = requests.refine_prompt(template, guidelines, context, call)
        return self._watched(exchange, on_progress)

    def refine_prompt_with_cases(
        self,
        template: PromptTemplate,
        cases: Iterable[PromptCase],
        *,
        guidelines: str = "",
        context: str = "",
        max_rounds: int | None = None,
        repeat: int | None = None,
        pass_at_least: int | None = None,
        max_model_calls: int | None = None,
        request_id: str | None = None,
        timeout: float | None = None,
        rerun_if_outcome_unknown: bool = False,
        metadata: Iterable[tuple[str, str | bytes]] = (),
        retries: int | None = None,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> RefinedWithCases:
        """Have a model improve a prompt template until it passes its test cases.

        In the reported runs, the new prompt passes every case that the original passed. If no refinement is better, the
        template is returned unchanged.

        Args:
            template: The whole template: a mapping, its JSON, or a model with ``model_dump_json``.
            cases: The test cases, 1 to 20.
            guidelines: Instructions for the refinement, at most 8,000 characters.
            context: What the prompt is for, at most 5,000 characters.
            max_rounds: Maximum number of refinements, 1 to 3; 2 if not given.
            repeat: How often each case is run, 1 to 5; once if not given.
            pass_at_least: Number of runs in which a case must pass, 1 to ``repeat``; all runs if not given.
            max_model_calls: Maximum number of model calls, 1 to 1,000; 40 if not given. A request that may need more is
                refused before anything is billed.
            request_id: As for :meth:`call_tool`.
            timeout: Seconds that it may take; if not given, 300, or the client's own if that is more.
            rerun_if_outcome_unknown: As for :meth:`call_tool`.
            metadata: As for :meth:`call_tool`.
            retries: As for :meth:`call_tool`.
            on_progress: As for :meth:`call_tool`.

        Raises:
            InvalidInput: The template is not a JSON object, a case can't be sent, or the request has more than 1 MiB.
                Nothing was sent.
            CallFailed: As for :meth:`call_tool`.
            ToolFailed: No run of the original prompt produced an output.
        """
        seconds = self._connection.cases_timeout_of(timeout)

        def call(name: str, arguments: Mapping[str, Any]) -> Exchange[ToolResult]:
            return self._call(name, arguments, request_id, seconds, rerun_if_outcome_unknown, metadata, retries)

        options = {
            "guidelines": guidelines,
            "context": context,
            "max_rounds": max_rounds,
            "repeat": repeat,
            "pass_at_least": pass_at_least,
            "max_model_calls": max_model_calls,
        }
        exchange = requests.refine_prompt_with_cases(template, cases, options, call)
        return self._watched(exchange, on_progress)

    def refine_prompts(
        self,
        templates: Iterable[PromptTemplate],
        *,
        guidelines: str = "",
        context: str = "",
        concurrency: int = 8,
        timeout: float | None = None,
        progress: Callable[[int, RefinedPrompt | errors.AgentaError], None] | None = None,
    ) -> list[RefinedPrompt | errors.AgentaError]:
        """Refine many prompt templates with bounded concurrency.

        Args:
            templates: The templates, as for :meth:`refine_prompt`. They are read one by one, when there is room.
            guidelines: Instructions for each refinement.
            context: What the prompts are for.
            concurrency: Number of templates to refine at the same time, at least 1.
            timeout: Seconds that each may take; the client's own if not given.
            progress: Called after each template with its position, from 0, and its result or error.

        Returns:
            A result or an error for each template, in order. One failure doesn't stop the others.

        Raises:
            InvalidInput: ``concurrency`` is less than 1.
        """
        numbered, taking, stopped = enumerate(templates), threading.Lock(), threading.Event()
        done: dict[int, RefinedPrompt | errors.AgentaError] = {}

        def take() -> tuple[int, PromptTemplate] | None:
            with taking:
                return None if stopped.is_set() else next(numbered, None)

        def work() -> None:
            while taken := take():
                index, template = taken
                try:
                    done[index] = self.refine_prompt(template, guidelines=guidelines, context=context, timeout=timeout)
                except errors.AgentaError as error:
                    done[index] = error
                if progress:
                    progress(index, done[index])

        workers = requests.check_concurrency(concurrency)
        pool = ThreadPoolExecutor(workers, thread_name_prefix="agenta-ai")
        try:
            for worker in as_completed([pool.submit(work) for _ in range(workers)]):
                worker.result()
        finally:
            # After an error or Ctrl-C nothing new begins, and what runs isn't waited for.
            stopped.set()
            pool.shutdown(wait=False)
        return [done[index] for index in sorted(done)]

    def channel(self) -> grpc.Channel:
        """Return a channel for a stub generated from a tool's ``.proto`` file.

        Its calls have this client's credentials, timeout and retries, and a request_id. They return the response of a
        tool that succeeded, and raise the same errors as :meth:`refine_prompt`::

            tools = SupportToolsServiceStub(client.channel())
            response = tools.ClassifyTicket(ClassifyTicketRequest(arguments={"ticket": "My invoice is wrong."}))

        Besides the request, these calls take only ``timeout`` and ``metadata``.
        """
        return cast("grpc.Channel", typed.StubChannel(self._send_typed))

    def _send_typed(self, method: TypedMethod, request: Any, timeout: float | None, metadata: Any) -> Any:
        to = self._connection
        return self._send(typed.exchange(method, request, to.timeout_of(timeout), to.extra_metadata(metadata)))

    def _call(
        self,
        name: str,
        arguments: Mapping[str, Any],
        request_id: str | None,
        timeout: float | None,
        rerun_if_outcome_unknown: bool,
        metadata: Iterable[tuple[str, str | bytes]],
        retries: int | None,
    ) -> Exchange[ToolResult]:
        return requests.call_tool(
            name,
            arguments,
            request_id,
            self._connection.timeout_of(timeout),
            rerun_if_outcome_unknown=rerun_if_outcome_unknown,
            metadata=self._connection.extra_metadata(metadata),
            retries=retries,
        )

    def _watched(self, exchange: Exchange[_Result], on_progress: Callable[[Progress], None] | None) -> _Result:
        if on_progress is None:
            return self._send(exchange)
        events = self._stream(exchange)
        with closing(events):
            for event in events:
                if not isinstance(event, Progress):
                    return event
                on_progress(event)
        raise AssertionError("a stream ended without a result")

    def _send(self, exchange: Exchange[_Result]) -> _Result:
        attempts = self._connection.attempts(exchange.method, exchange.timeout, exchange.retries)
        return self._attempt(exchange, self._metadata(exchange, attempts), attempts)

    def _attempt(self, exchange: Exchange[_Result], metadata: Metadata, attempts: Attempts) -> _Result:
        while True:
            try:
                with self._told_if_closed(exchange):
                    channel, stub = next(self._turns)
                    method = exchange.typed.on(channel) if exchange.typed else getattr(stub, exchange.method)
                    response, call = method.with_call(exchange.request, timeout=attempts.remaining(), metadata=metadata)
            except grpc.RpcError as error:
                self._pause_after(error, exchange, attempts)
            else:
                return exchange.result(response, failures.trailers_of(call.trailing_metadata()))

    def _stream(self, exchange: Exchange[_Result]) -> Generator[Progress | _Result, None, None]:
        streamed = exchange.streamed()
        attempts = self._connection.attempts(streamed.method, streamed.timeout, streamed.retries)
        metadata = self._metadata(streamed, attempts)
        while True:
            call: Any = None
            result = None
            try:
                with self._told_if_closed(streamed):
                    _, stub = next(self._turns)
                    method: Any = stub.CallToolStream
                    call = method(streamed.request, timeout=attempts.remaining(), metadata=metadata)
                    for response in call:
                        if response.HasField("progress"):
                            yield read_progress(response.progress)
                        elif response.HasField("result"):
                            result = response.result
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    break
                self._pause_after(error, streamed, attempts)
            else:
                yield streamed.result(result, failures.trailers_of(call.trailing_metadata()))
                return
            finally:
                if call:
                    call.cancel()
        # The server is older than the method.
        answer = self._attempt(exchange, metadata, attempts)
        yield answer

    @contextmanager
    def _told_if_closed(self, exchange: Exchange[Any]) -> Iterator[None]:
        if self._closing.is_set():
            raise errors.AgentaError(errors.CLOSED)
        try:
            yield
        except grpc.RpcError as error:
            if self._closing.is_set() and error.code() is grpc.StatusCode.CANCELLED:
                raise failures.closed_during(exchange.request_id) from None
            raise
        except ValueError:
            # How gRPC says that another thread has closed the channel meanwhile.
            if self._closing.is_set():
                raise errors.AgentaError(errors.CLOSED) from None
            raise

    def _pause_after(self, error: grpc.RpcError, exchange: Exchange[Any], attempts: Attempts) -> None:
        """Wait until the call may be retried.

        Raises:
            CallFailed: It may not.
        """
        to = self._connection
        failure = to.failed(error, exchange.request_id, exchange.timeout, open_before=attempts.is_open)
        delay = attempts.delay_after(failure)
        if delay is None:
            raise failure from None
        if self._closing.wait(delay):
            raise failures.closed_during(exchange.request_id, is_open=attempts.is_open)
        if attempts.remaining() == 0:
            raise failures.timed_out(to.target, exchange.timeout, exchange.request_id, is_open=attempts.is_open)

    def _open(self) -> grpc.Channel:
        to = self._connection
        if to.channel_credentials is None:
            return grpc.insecure_channel(to.address, to.options)
        return grpc.secure_channel(to.address, to.channel_credentials, to.options)

    def _metadata(self, exchange: Exchange[Any], attempts: Attempts) -> Metadata:
        caller = self._connection.caller
        if caller.provider is None or requests.sends(AUTHORIZATION, exchange.metadata):
            return requests.merged(caller.metadata, exchange.metadata)
        try:
            token = caller.provider()
            if inspect.iscoroutine(token):
                token.close()
                raise errors.InvalidInput(
                    "token_provider: must return a token directly. Only Client accepts an async function."
                )
        except Exception as error:
            note_failure(error)
            raise
        if attempts.remaining() == 0:
            raise failures.no_token_in_time(exchange.timeout, exchange.request_id)
        return requests.merged(caller.with_token(token), exchange.metadata)
