"""Agenta's completion service, over HTTP."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlencode

from agenta_ai_server.agenta import failures
from agenta_ai_server.agenta.addresses import AgentaAddress
from agenta_ai_server.agenta.completion_service import Completion, InlinePrompt
from agenta_ai_server.agenta.credential import ServerKey
from agenta_ai_server.agenta.explanation import explain
from agenta_ai_server.agenta.http import MAX_BODY_BYTES, HttpClient, TransportError
from agenta_ai_server.agenta.routes import CHAT_INVOKE, CHAT_RUN, INVOKE, RUN
from agenta_ai_server.agenta.routes.reply import PromptRun
from agenta_ai_server.domain.agenta_url import check_key
from agenta_ai_server.domain.deadline import MARGIN_SECONDS
from agenta_ai_server.domain.errors import Reason, UpstreamFailed
from agenta_ai_server.domain.listener import CallListener, RequestRecord
from agenta_ai_server.domain.values import Attempt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping
    from pathlib import Path

    from agenta_ai_server.agenta.completion_service import AnyPrompt, Kind
    from agenta_ai_server.agenta.failures import Failure
    from agenta_ai_server.agenta.http import HttpResponse
    from agenta_ai_server.agenta.routes import Route
    from agenta_ai_server.agenta.routes.reply import Reply
    from agenta_ai_server.domain.call import AgentaCredential
    from agenta_ai_server.domain.pace import Pace
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.domain.values import Json

_NEWER: dict[Kind, Route] = {"completion": INVOKE, "chat": CHAT_INVOKE}
_OLDER: dict[Kind, Route] = {"completion": RUN, "chat": CHAT_RUN}
_ROUTES = {"auto": (_NEWER, _OLDER), "invoke": (_NEWER,), "run": (_OLDER,)}

# Answers that are larger take more than about a millisecond to read. Few are so large.
LARGE_BYTES = 1 << 16

OLDER_ROUTE_SECONDS = 60.0
"""How long the older route is tried first after only that one has worked. A proxy may have been the reason,
or Agenta may have been updated since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentaConfig:
    """The address of Agenta, and how to send requests to it.

    Attributes:
        api_url: As :meth:`~agenta_ai_server.agenta.addresses.AgentaAddress.parse` takes it.
        api_key: An Agenta API key, without the scheme. Never shown.
        api_key_file: File that holds the key, in place of that, and is reloaded when it changes.
        environment: Slug of the environment whose deployed prompts are run; empty if each prompt names its own.
        route: How prompts are run; ``"auto"`` takes the newer route where Agenta has it.
        ca_file: Certificates of the authorities to trust, as PEM, in place of the public ones.
        proxy: URL of an HTTP proxy, maybe with credentials. Never shown.
        keep_alive: Whether a connection serves one request after another.
        max_seconds: No call takes longer, whatever its deadline.
        min_seconds: A call that has less time left isn't sent. 0 to ``max_seconds``.

    Raises:
        ValueError: A value can't be used; the sentence says which and why, and doesn't repeat it.
    """

    api_url: str
    api_key: str = field(repr=False)
    environment: str
    api_key_file: Path | None = None
    route: Literal["auto", "invoke", "run"] = "auto"
    ca_file: Path | None = None
    proxy: str | None = field(default=None, repr=False)
    keep_alive: bool = True
    max_seconds: float = 60.0
    min_seconds: float = 1.0

    def __post_init__(self) -> None:
        AgentaAddress.parse(self.api_url)
        try:
            check_key(self.api_key)
        except ValueError as error:
            raise ValueError(f"The API key {error}.") from None
        if not 0 <= self.min_seconds <= self.max_seconds:
            raise ValueError("min_seconds must be from 0 to max_seconds.")


class AgentaCompletionService:
    """A :class:`~agenta_ai_server.agenta.completion_service.CompletionService` that is Agenta.

    It belongs to the event loop that runs its first call, and holds that loop's connections until :meth:`aclose`.

    Args:
        config: The address of Agenta, and how to send requests to it.
        listener: Is notified of each request.
        pace: Paces reading large answers; ``None``: not paced.
        clock: Monotonic clock, in seconds.

    Raises:
        ValueError: The proxy isn't the URL of an HTTP proxy, or the file of the key can't be read, or holds none.
        OSError: The file of certificates can't be read, or holds none.
    """

    def __init__(
        self,
        config: AgentaConfig,
        listener: CallListener | None = None,
        *,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._listener = listener or CallListener()
        self._key = ServerKey(config.api_key, config.api_key_file)
        self._address = AgentaAddress.parse(config.api_url)
        self._http = HttpClient(
            self._address.root, ca_file=config.ca_file, proxy=config.proxy, keep_alive=config.keep_alive
        )
        self._pace = pace
        self._clock = clock
        # Until when the older route is tried first, by the kind of application.
        self._older_until: dict[Kind, float] = {}

    async def complete(self, prompt: AnyPrompt, inputs: Mapping[str, Json], call: ToolCall) -> Completion:
        """Run one prompt and return what the model wrote, the empty string included.

        Raises:
            Refused: DEADLINE_TOO_SHORT, before anything was sent.
            UpstreamFailed: No completion, for one of the ``UPSTREAM_`` reasons.
        """
        if isinstance(prompt, InlinePrompt):
            # Only the newer route takes them.
            return await self._run(INVOKE, PromptRun("", "", inputs, prompt.parameters), call, prompt.credential)
        run = PromptRun(prompt.application, prompt.environment or self._config.environment, inputs)
        first, *others = self._in_order(prompt.kind)
        try:
            return await self._run(first, run, call)
        except _MissingRoute:
            if not others:
                raise
        (other,) = others
        completion = await self._run(other, run, call)
        is_older = other is _OLDER[prompt.kind]
        self._older_until[prompt.kind] = self._clock() + OLDER_ROUTE_SECONDS if is_older else 0.0
        return completion

    async def aclose(self) -> None:
        """Close all connections. Calls that run fail."""
        await self._http.aclose()

    def _in_order(self, kind: Kind) -> list[Route]:
        """Return the routes in the order in which they are tried."""
        routes = [routes[kind] for routes in _ROUTES[self._config.route]]
        return routes[::-1] if self._clock() < self._older_until.get(kind, 0.0) else routes

    async def _run(
        self, route: Route, run: PromptRun, call: ToolCall, credential: AgentaCredential | None = None
    ) -> Completion:
        await call.begin_billing()
        # Only now, because recording may have to wait for the disk or for Redis.
        call.require_time(self._config.min_seconds)
        url = self._address.services(route.path)
        if credential and credential.project:
            url += f"?{urlencode({'project_id': credential.project})}"
        authorization = credential.authorization if credential else self._key.authorization
        with RequestRecord(url, self._listener, call.resends) as sent:
            sent.uses_caller_credential = credential is not None
            seconds = self._seconds(call.remaining())
            headers = {"content-type": "application/json", "authorization": authorization, **sent.headers}
            try:
                response = await self._post(url, headers, route.encode(run), seconds, is_inline=run.is_inline)
            except TransportError as error:
                failure = failures.of_connection(error, seconds, self._config.max_seconds)
                raise failure.as_error(Attempt("", sent.seconds)) from error
            sent.status = response.status
            if self._pace and response.body and len(response.body) > LARGE_BYTES:
                reply = await self._read_in_turn(self._pace, route, response, call)
                if reply is None:
                    raise failures.UNREAD.as_error(Attempt("", sent.seconds))
            else:
                reply = route.decode(response.with_bounded_values())
            attempt = Attempt(reply.trace_id, sent.seconds, reply.span_id)
            sent.attempt = attempt
            return _completion(reply, attempt, run, authorization.partition(" ")[2])

    def _post(
        self, url: str, headers: dict[str, str], body: bytes, seconds: float, *, is_inline: bool
    ) -> Awaitable[HttpResponse]:
        # At most half, so that the overall time-out never ends an attempt that is still connecting: if it ends one, the
        # request was sent.
        connect = min(seconds / 2, failures.MAX_CONNECT_SECONDS)
        return self._http.send(
            "POST",
            url,
            headers=headers,
            content=body,
            seconds=seconds,
            connect_seconds=connect,
            max_body_bytes=failures.MAX_INLINE_BODY_BYTES if is_inline else MAX_BODY_BYTES,
        )

    async def _read_in_turn(self, pace: Pace, route: Route, response: HttpResponse, call: ToolCall) -> Reply | None:
        """Return what a large response says; ``None`` if the caller's turn to read it doesn't come in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._seconds(call.remaining())):
                return await pace.run(call.caller.key, _reading(route, response))
        return None

    def _seconds(self, remaining: float) -> float:
        """Return how long the request may take, in seconds, if the call has ``remaining`` seconds left."""
        return min(self._config.max_seconds, remaining - min(MARGIN_SECONDS, remaining / 2))


def _reading(route: Route, response: HttpResponse) -> Generator[None, None, Reply]:
    """Read a large response in steps: count its values, parse it."""
    bounded = response.with_bounded_values()
    yield
    return route.decode(bounded)


def _completion(reply: Reply, attempt: Attempt, run: PromptRun, secret: str) -> Completion:
    if failure := failures.of_reply(reply, is_inline=run.is_inline):
        # Not assigned to a variable, through which the frame would hold its own error, and so the prompt.
        raise _error(failure, reply, attempt, run, secret)
    if problem := failures.problem_of(reply, is_inline=run.is_inline):
        message = f"The completion service's answer can't be used: {problem}"
        raise UpstreamFailed(Reason.UPSTREAM_OUTPUT_INVALID, message, attempt=attempt, may_have_run=True)
    return Completion(reply.output, attempt)


def _error(failure: Failure, reply: Reply, attempt: Attempt, run: PromptRun, secret: str) -> UpstreamFailed:
    explanation = explain(reply, [dict(run.inputs), dict(run.parameters or {})], [secret])
    kind = _MissingRoute if failures.is_missing_route(reply) else UpstreamFailed
    return failure.as_error(attempt, reply, explanation, kind)


class _MissingRoute(UpstreamFailed):
    """This release of Agenta doesn't have the route, or a proxy doesn't find it. Nothing ran."""
