"""Agenta's services on loopback, without Agenta and without a model, for development and tests."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeAlias
from uuid import uuid4

from aiohttp import web

from agenta_ai_server.standin import answers, canned, model, prompts
from agenta_ai_server.standin.answers import CannedResponse
from agenta_ai_server.standin.faults import Fault
from agenta_ai_server.standin.management import COMPLETION, Environment, Management
from agenta_ai_server.standin.permissions import PATHS as PERMISSIONS_PATHS
from agenta_ai_server.standin.permissions import Caller, Permissions
from agenta_ai_server.standin.received import CHAT_PATHS, INVOKE_PATHS, RUN_PATHS, Received
from agenta_ai_server.standin.traces import PATH as TRACES_PATH
from agenta_ai_server.standin.traces import Traces

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from agenta_ai_server.standin.canned import CannedPrompt

DIRECTIVE = "standin:"
"""An input that begins with it, such as guidelines, holds the words of a fault."""

FAULT_HEADER = "x-standin-fault"
"""The request header with the words of a fault."""

APP = "ai-refine"
"""The usual slug of the application that refines prompts."""

_MIB_OF_BLANKS = b" " * 1024 * 1024
_GARBAGE = b"\x16\x03\x01 this is not HTTP\r\n\r\n"
_BACKLOG = 4096  # as many may knock at once; the kernel's own limit is net.core.somaxconn
_NO_FAULT = Fault()
# A machine may have only one of them.
_LOOPBACK = ("127.0.0.1", "::1")

_log = logging.getLogger(__name__)


Respond: TypeAlias = Callable[[Received], Awaitable[CannedResponse | Fault | None]]
"""Says what one run is answered: a canned answer, what goes wrong, or ``None`` for the usual. It may wait."""


def in_turn(*replies: CannedResponse | Fault | None) -> Respond:
    """Answer the next runs with these, in order, and later ones as usual."""
    left = deque(replies)

    async def respond(_: Received) -> CannedResponse | Fault | None:
        return left.popleft() if left else None

    return respond


class StandIn:
    """The server. What it answers can be changed while it runs.

    Each run obeys the last of these that says something, and that alone: ``fault``; guidelines that begin with
    ``standin:``, as in ``"standin: status=503 retry-after=2"``; the request header ``x-standin-fault``; ``respond``.
    Words that can't be read get a 400 that says why.

    Args:
        api_key: The key that it accepts, as ``Authorization: ApiKey <key>``.
        app: Slug of the application that there is at the beginning, in the project of the key above; empty for none.
        environment: Slug of the environment that it is deployed to.
        models: The models that Agenta has a credential for; ``None`` for any.
        fault: What goes wrong in all runs.
        respond: Decides for each run.
        callers: Who is known to the check of permissions, by the whole ``Authorization`` header; with ``None`` it is
            the owner of the key above.
        lacks: Paths that an older release of Agenta doesn't have.
        idle: Seconds after which an idle connection is closed; Agenta's own servers wait 5.
        keep: How many requests are remembered, at most.

    Attributes:
        lacks: As given.
        management: The applications and environments of each project.
        traces: What each run cost.
        permissions: The check of permissions: its callers, its fault, and its counters.
        requests: The requests that came, to whatever path, oldest first.
        started: How many runs came.
        finished: How many of them were answered, well or badly; not those that were broken off by either side.
        in_flight: How many run now. A run ends, at the latest, when its connection does.
    """

    def __init__(
        self,
        *,
        api_key: str = "standin-key",
        app: str = APP,
        environment: str = "production",
        models: Collection[str] | None = None,
        fault: Fault = _NO_FAULT,
        respond: Respond | None = None,
        callers: Mapping[str, Caller] | None = None,
        lacks: Collection[str] = (),
        idle: float = 5.0,
        keep: int = 1000,
    ) -> None:
        self.fault = fault
        self.respond = respond
        self.requests: deque[Received] = deque(maxlen=keep)
        self.started = 0
        self.finished = 0
        self.in_flight = 0
        self._api_key = api_key
        self.permissions = Permissions({f"ApiKey {api_key}": Caller()} if callers is None else callers)
        self.lacks = frozenset(lacks)
        self.management = Management()
        self.traces = Traces()
        self._owner = Caller()
        self._models = models
        self._canned: dict[tuple[str, str], CannedPrompt] = {}
        self._app = app
        self._environment = environment
        if app:
            self._deploy(app, environment, {"uri": COMPLETION, "parameters": prompts.PARAMETERS})
        self._idle = idle
        self._changed = asyncio.Event()
        self._server: web.Server | None = None
        self._listener: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, hosts: Sequence[str] = _LOOPBACK, port: int = 0) -> None:
        """Listen on the first of these addresses that this machine has.

        Args:
            hosts: IP addresses.
            port: The port; 0 takes a free one.

        Raises:
            OSError: The port is taken, or the machine has none of them.
        """
        listening = _bound(hosts, port)
        self._server = web.Server(
            self._handle, handler_cancellation=True, access_log=None, keepalive_timeout=self._idle, lingering_time=0
        )
        self._listener = await asyncio.get_running_loop().create_server(self._server, sock=listening, backlog=_BACKLOG)

    async def stop(self) -> None:
        """Close everything at once, also connections whose call runs or stalls."""
        if self._listener is None or self._server is None:
            return
        self._listener.close()
        for connection in self._server.connections:
            if connection.transport is not None:
                connection.transport.abort()
        await self.when(lambda: self.in_flight == 0)
        await self._server.shutdown()
        await self._listener.wait_closed()
        self._listener = None

    @property
    def api_key(self) -> str:
        """The key that it accepts. To set it is to replace it, also for the check of permissions."""
        return self._api_key

    @api_key.setter
    def api_key(self, api_key: str) -> None:
        callers = dict(self.permissions.callers)
        owner = callers.pop(f"ApiKey {self._api_key}", None)
        self.permissions.callers = callers | ({f"ApiKey {api_key}": owner} if owner else {})
        self._api_key = api_key

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end, such as ``http://127.0.0.1:40123``.

        Raises:
            RuntimeError: It doesn't listen.
        """
        return f"http://{self.host}:{self._listening()[1]}"

    @property
    def host(self) -> str:
        """The address of this machine that it listens on: ``127.0.0.1``, or ``[::1]`` if there is no other.

        Raises:
            RuntimeError: It doesn't listen.
        """
        host = self._listening()[0]
        return f"[{host}]" if ":" in host else host

    @property
    def settings(self) -> dict[str, str]:
        """The settings, by their names, of a service that uses it as Agenta, even before the application is there."""
        return {
            "AGENTA_AI_SERVICES_API_URL": self.url,
            "AGENTA_AI_SERVICES_API_KEY": self.api_key,
            "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG": self._environment,
            "AGENTA_AI_SERVICES_REFINE_PROMPT_KEY": self._app or APP,
        }

    @property
    def connections(self) -> int:
        """How many connections are open now, idle ones among them."""
        return len(self._server.connections) if self._server else 0

    async def when(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition on ``started``, ``finished``, ``in_flight``, ``requests`` or ``permissions`` holds."""
        while not condition():
            await self._changed.wait()

    def _listening(self) -> tuple[str, int]:
        if self._listener is None:
            raise RuntimeError("the stand-in was not started, or was stopped")
        host, port = self._listener.sockets[0].getsockname()[:2]
        return host, port

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        # Not request.read(): its limit is 1 MiB, and the request under test may be larger.
        body = await request.content.read()
        headers = {name.lower(): value for name, value in request.headers.items() if name.lower() != "authorization"}
        received = Received(request.method, request.path_qs, headers, body)
        self.requests.append(received)
        self._notify()
        if request.path in self.lacks:
            return _response(answers.of_json(404, {"detail": "Not Found"}))
        match request.method, request.path:
            case "POST", path if path in RUN_PATHS:
                return await self._counted(request, received)
            case "GET", path if path in PERMISSIONS_PATHS:
                return await self._checked(request, received)
            case "GET", "/services/health":
                return _response(answers.health())
        return _response(self._managed(request, received) or answers.failure(404))

    def offer(self, offered: Iterable[CannedPrompt], *, deploy: bool = True) -> None:
        """Answer runs of these prompts by their examples, in place of those that were offered before.

        Args:
            offered: The prompts.
            deploy: Whether to deploy them, too. Prompts that another caller has deployed stay.
        """
        before, self._canned = self._canned, {(each.application, each.environment): each for each in offered}
        project = self.management.projects[self._owner.project_id]
        for place, each in self._canned.items() if deploy else ():
            deployed = project.deployed(*place)
            is_ours = place in before and deployed is not None and deployed["data"] == before[place].data
            if deployed is None or (is_ours and before[place].data != each.data):
                self.deploy(each)

    def deploy(self, prompt: CannedPrompt) -> None:
        """Deploy a prompt, as the owner of the key would."""
        self._deploy(prompt.application, prompt.environment, prompt.data, prompt.description)

    def _deploy(self, app: str, environment: str, data: dict[str, Any], description: str = "") -> None:
        project, user = self.management.projects[self._owner.project_id], self._owner.user_id
        application = project.applications.get(app)
        if application is None:
            application = project.create(app, app, data, user, description)
        else:
            application.commit(data, user)
        where = project.environments.setdefault(environment, Environment(environment))
        project.deploy(application, application.revisions[-1], where, user)

    def _caller(self, request: web.BaseRequest) -> Caller | None:
        authorization = request.headers.get("authorization", "")
        # The key may be unknown to the check of permissions, where a test says so.
        owner = self._owner if authorization == f"ApiKey {self._api_key}" else None
        return self.permissions.caller(authorization) or owner

    def _managed(self, request: web.BaseRequest, received: Received) -> CannedResponse | None:
        caller = self._caller(request)
        if request.method == "GET" and request.path.startswith(TRACES_PATH):
            return self.traces.answer(request.path, caller)
        return self.management.answer(request.method, request.path, caller, received.body)

    async def _counted(self, request: web.BaseRequest, received: Received) -> web.StreamResponse:
        self.started += 1
        self.in_flight += 1
        self._notify()
        try:
            response = await self._run(request, received)
            self.finished += 1
        finally:
            # Before the answer is sent: a reader of the answer must find the run no longer in flight.
            self.in_flight -= 1
            self._notify()
        return response

    async def _checked(self, request: web.BaseRequest, received: Received) -> web.StreamResponse:
        checks = self.permissions
        checks.started += 1
        checks.in_flight += 1
        checks.peak = max(checks.peak, checks.in_flight)
        self._notify()
        try:
            return await self._check(request, received)
        finally:
            checks.in_flight -= 1
            self._notify()

    async def _check(self, request: web.BaseRequest, received: Received) -> web.StreamResponse:
        checks = self.permissions
        reply = await checks.respond(received) if checks.respond else None
        if isinstance(reply, CannedResponse):
            return _response(reply)
        fault = reply or checks.fault
        await asyncio.sleep(fault.delay)
        authorization = request.headers.get("authorization", "")
        answer = _failure(fault) or checks.verdict(authorization, request.query)
        return await _send(request, answers.spoilt(answer, fault), fault)

    async def _run(self, request: web.BaseRequest, received: Received) -> web.StreamResponse:
        content = received.run
        chosen = await self._chosen(received, content)
        if isinstance(chosen, CannedResponse):
            return _response(chosen)
        await asyncio.sleep(chosen.delay)
        answer = _failure(chosen) or self._refusal(request, content)
        if answer is None:
            answer = self._success(request, content, chosen)
        return await _send(request, answers.spoilt(answer, chosen), chosen)

    def _success(self, request: web.BaseRequest, content: Any, fault: Fault) -> CannedResponse:
        caller = self._caller(request)
        parameters = self._deployed(caller, content) if caller else None
        assert caller is not None
        assert parameters is not None
        inputs = content["inputs"]
        text = answers.written(self._written(content, parameters, inputs), fault)
        is_newer = request.path in INVOKE_PATHS
        if request.path in CHAT_PATHS:
            text = {"role": "assistant", "content": text}
        trace_id, span_id = (is_newer and _trace_id(request)) or uuid4().hex, uuid4().hex[:16]
        self.traces.add(caller.project_id, trace_id, span_id, read=len(json.dumps(inputs)), written=len(str(text)))
        return (answers.invoked if is_newer else answers.success)(text, trace_id, span_id)

    def _written(self, content: Any, parameters: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
        offered = self._canned.get((content.get("app"), content.get("environment")))
        example = offered.example(inputs) if offered else None
        if example is not None:
            return example
        if "parameters" in content:
            return model.answer(parameters, inputs)
        if prompts.TEMPLATE in inputs:
            return prompts.written(parameters, inputs, _guidelines(inputs))
        return canned.answer(parameters, inputs)

    async def _chosen(self, received: Received, content: Any) -> CannedResponse | Fault:
        reply = await self.respond(received) if self.respond else None
        if reply is not None:
            return reply
        spec = received.headers.get(FAULT_HEADER, _directive(content))
        if spec is None:
            return self.fault
        try:
            return Fault.parse(spec)
        except ValueError as error:
            _log.warning("the words of a fault can't be read: %s", error)
            return answers.of_json(400, {"detail": str(error)})

    def _refusal(self, request: web.BaseRequest, content: Any) -> CannedResponse | None:
        caller = self._caller(request)
        if caller is None:
            return answers.failure(401)
        parameters = self._deployed(caller, content)
        # A known application needs no environment.
        if not isinstance(content, dict) or not isinstance(parameters or {}, dict):
            return answers.missing_prompt()
        if "environment" not in content and parameters is None:
            return answers.missing_prompt()
        if parameters is None:
            return answers.not_deployed()
        inputs = content.get("inputs") or {}
        if not isinstance(inputs, dict):
            return answers.plain_text(500, "Internal Server Error")
        given = [name for name, value in inputs.items() if value is not None]
        return prompts.refusal(parameters, given, self._models)

    def _deployed(self, caller: Caller, content: Any) -> dict[str, Any] | None:
        """The parameters that the request names, or holds; ``None`` if there are none."""
        if not isinstance(content, dict):
            return None
        if "parameters" in content:
            held: dict[str, Any] = content["parameters"]
            return held
        project = self.management.projects[caller.project_id]
        app = content.get("app")
        environment = content.get("environment", self._environment if app == self._app else None)
        revision = project.deployed(app, environment) if isinstance(app, str) and isinstance(environment, str) else None
        parameters: dict[str, Any] | None = revision["data"].get("parameters", {}) if revision else None
        return parameters


def _trace_id(request: web.BaseRequest) -> str:
    """The trace that the caller has begun, if it has."""
    parts = request.headers.get("traceparent", "").split("-")
    return parts[1] if len(parts) == 4 else ""


def _failure(fault: Fault) -> CannedResponse | None:
    if fault.cause:
        return answers.cause(fault.cause)
    return answers.failure(fault.status) if fault.status else None


def _directive(content: Any) -> str | None:
    """The words of a fault in the first line of a call's guidelines, or of any other input, if there are any."""
    inputs = content.get("inputs") if isinstance(content, dict) else None
    for value in inputs.values() if isinstance(inputs, dict) else ():
        if isinstance(value, str) and value.startswith(DIRECTIVE):
            return value.removeprefix(DIRECTIVE).partition("\n")[0]
    return None


def _guidelines(inputs: Mapping[str, object]) -> str:
    guidelines = str(inputs.get("__ag_guidelines") or "")
    # Its own directive is no wish of the user's.
    return "" if guidelines.startswith(DIRECTIVE) else guidelines


def _response(answer: CannedResponse) -> web.Response:
    return web.Response(status=answer.status, headers=dict(answer.headers), body=answer.body)


async def _send(request: web.BaseRequest, answer: CannedResponse, fault: Fault) -> web.StreamResponse:
    if fault.drip:
        return await _drip(request, answer, fault.drip)
    if fault.huge:
        return await _stream_with_blanks(request, answer, fault.huge)
    if fault.garbage or fault.length is not None or fault.stall or fault.reset or fault.close:
        await _break_off(request, answer, fault)
    return _response(answer)


async def _drip(request: web.BaseRequest, answer: CannedResponse, pause: float) -> web.StreamResponse:
    response = await _begun(request, answer, len(answer.body))
    for byte in answer.body:
        await response.write(bytes([byte]))
        await asyncio.sleep(pause)
    return response


async def _stream_with_blanks(request: web.BaseRequest, answer: CannedResponse, mebibytes: int) -> web.StreamResponse:
    response = await _begun(request, answer, len(answer.body) + mebibytes * len(_MIB_OF_BLANKS))
    await response.write(answer.body)
    for _ in range(mebibytes):
        await response.write(_MIB_OF_BLANKS)
    return response


async def _begun(request: web.BaseRequest, answer: CannedResponse, length: int) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=dict(answer.headers))
    response.content_length = length
    await response.prepare(request)
    return response


async def _break_off(request: web.BaseRequest, answer: CannedResponse, fault: Fault) -> NoReturn:
    """Send what the fault lets through, past aiohttp, which would mend it; then wait for the end of the connection."""
    transport = request.transport
    if transport is not None:
        transport.write(_torso(answer, fault))
        if fault.reset:
            # To close without lingering is to reset.
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        elif not fault.stall:
            transport.close()
    await asyncio.Event().wait()  # a lost connection cancels its handler
    raise AssertionError("nothing sets the event")


def _torso(answer: CannedResponse, fault: Fault) -> bytes:
    if fault.garbage:
        return _GARBAGE
    if "headers" in (fault.stall, fault.reset, fault.close):
        return b""
    length = len(answer.body) if fault.length is None else fault.length
    headers = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
    status = f"HTTP/1.1 {answer.status} {answers.phrase(answer.status)}\r\n"
    end = len(answer.body) if fault.length is not None else len(answer.body) // 2
    return f"{status}{headers}content-length: {length}\r\n\r\n".encode() + answer.body[:end]


def _bound(hosts: Sequence[str], port: int) -> socket.socket:
    missing = OSError(errno.EADDRNOTAVAIL, "no address of this machine")
    for host in hosts:
        try:
            return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
            missing = error
    raise missing
