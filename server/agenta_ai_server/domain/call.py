"""One RPC: its caller, its deadline, and what metrics, traces and logs record of it."""

from __future__ import annotations

import math
import re
import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from agenta_ai_server.domain.record import record

if TYPE_CHECKING:
    from agenta_ai_server.domain.progress import Watch
    from agenta_ai_server.domain.values import Attempt

TYPED_METHODS = "/agenta.ai.tools"
PEER = re.compile(r"ipv[46]:(.+):\d+")


@record
class Principal:
    """A caller. Ids are opaque strings; an empty one means that the authority didn't name it.

    Attributes:
        method: How the caller was authenticated, for example ``"none"`` or ``"api_key"``.
        permissions: Names of what the caller may do; ``None`` means everything, which only the method "none" gives.
    """

    user: str
    project: str = ""
    workspace: str = ""
    organization: str = ""
    plan: str = ""
    permissions: frozenset[str] | None = frozenset()
    method: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """Organization and user: who counts as one caller when the service is shared out."""
        return self.organization, self.user

    @property
    def is_known_to_agenta(self) -> bool:
        """Whether the caller sent a credential of Agenta, with which prompts can be run."""
        return self.method == "agenta"

    def may(self, permission: str) -> bool:
        """Return whether the caller has the ``permission``."""
        return self.permissions is None or permission in self.permissions


ANONYMOUS = Principal(user="anonymous", permissions=None, method="none")


@dataclass(frozen=True, slots=True)
class AgentaCredential:
    """A caller's own credential in Agenta, which Agenta has accepted. ``repr()`` shows no secret.

    Attributes:
        authorization: As the header ``Authorization`` has it, its scheme included.
        project: Id of the project that the caller acts in; empty for the credential's own.
    """

    authorization: str = field(repr=False)
    project: str = ""


@dataclass(slots=True, eq=False)
class UpstreamRequest:
    """One request to the completion service. Its result is filled in when it has ended.

    Attributes:
        url: Where it goes.
        headers: Headers that listeners add to it.
        status: HTTP status of the answer; 0 if none came.
        outcome: ``"OK"``, the name of a ``Reason``, ``"CANCELLED"``, or ``"INTERNAL"`` for a bug; empty while it runs.
        attempt: The part of it that the caller gets; ``None`` while it runs, and if there is none.
        began: When it began, in seconds on the clock of ``time.perf_counter``.
        ended: When it ended, on the same clock; ``None`` while it runs.
        explanation: Agenta's own sentence about its failure, without secrets and prompts; for operators only.
        resends: How often the same request was sent before.
        uses_caller_credential: Whether it was made with the caller's own credential: this server can't read its trace.
    """

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 0
    outcome: str = ""
    attempt: Attempt | None = None
    began: float = field(default_factory=time.perf_counter)
    ended: float | None = None
    explanation: str = ""
    resends: int = 0
    uses_caller_credential: bool = False

    @property
    def trace_id(self) -> str:
        """Its trace in Agenta; empty if unknown."""
        return self.attempt.trace_id if self.attempt else ""

    @property
    def seconds(self) -> float:
        """How long it took, or has taken so far."""
        return (time.perf_counter() if self.ended is None else self.ended) - self.began


@dataclass(slots=True)
class Call:
    """One RPC on its way through the service.

    Attributes:
        id: The server's own id of the call, in logs and errors: 32 hexadecimal digits.
        method: Full method name, ``"/agenta.ai.v1.ToolService/CallTool"``.
        metadata: What the caller sent, in its order; keys are lowercase, values of ``-bin`` keys are bytes.
        peer: Address of the caller as the transport writes it.
        arrived: When it arrived, in seconds on the event loop's clock.
        client_deadline: The caller's own deadline, on the same clock; infinite if there is none.
        deadline: When the call stops waiting to be read, and retrying it becomes pointless: at the caller's deadline
            or after the service's maximum, on the same clock. A tool call has a deadline of its own.
        identities: URIs and DNS names of the caller's certificate, which the transport has verified.
        principal: The caller; ``None`` until the call has been authenticated.
        credential: The caller's own credential in Agenta; ``None`` if it was authenticated by another.
        response_metadata: Metadata of the response.
        request_bytes: Size of the request's message; 0 until it has been read.
        request_id: The caller's idempotency key, if it is well-formed; empty otherwise.
        tool: Name of the tool that is called, for labels; never a name that no tool has.
        trace_id: The trace that the call belongs to; empty if unknown.
        requests: Its requests to the completion service, in their order.
        watch: Takes the progress of its tool; ``None`` for a method that reports none.
    """

    id: str
    method: str
    metadata: tuple[tuple[str, str | bytes], ...]
    peer: str
    arrived: float = 0.0
    client_deadline: float = math.inf
    deadline: float = math.inf
    identities: tuple[str, ...] = ()
    principal: Principal | None = None
    credential: AgentaCredential | None = None
    response_metadata: list[tuple[str, str]] = field(default_factory=list)
    request_bytes: int = 0
    request_id: str = ""
    tool: str = ""
    trace_id: str = ""
    requests: list[UpstreamRequest] = field(default_factory=list)
    watch: Watch | None = None

    @property
    def rpc(self) -> str:
        """Name of its method in the contract, ``"CallTool"``; the same for a tool's own method."""
        return rpc_name(self.method)

    @property
    def host(self) -> str:
        """Address of the caller without its port: ``"ipv6:%5B::1%5D:40112"`` gives ``"::1"``."""
        return _host(self.peer)

    @property
    def upstream_seconds(self) -> float:
        """How long requests of it to the completion service were under way, up to now; one may outlive the call."""
        seconds, until = 0.0, -math.inf
        for request in self.requests:
            # Those that were under way at the same time count once.
            end = request.began + request.seconds
            seconds += max(end - max(request.began, until), 0.0)
            until = max(until, end)
        return seconds

    @property
    def caller(self) -> Principal:
        """The caller. It is a bug to read it before the call has been authenticated."""
        if self.principal is None:
            raise AssertionError("the call passed no authentication")
        return self.principal

    def values(self, key: str) -> list[str]:
        """Return what the caller sent under the ``key`` of its metadata, which has no ``-bin`` at its end."""
        return [value for name, value in self.metadata if name == key and isinstance(value, str)]


def rpc_name(method: str) -> str:
    """Return the name of a method in the contract, ``"CallTool"``; the same for a tool's own method."""
    return "CallTool" if method.startswith(TYPED_METHODS) else method.rpartition("/")[2]


@lru_cache(maxsize=1024)
def _host(peer: str) -> str:
    found = PEER.fullmatch(peer)
    return unquote(found[1]).strip("[]") if found else peer


CURRENT_CALL: ContextVar[Call | None] = ContextVar("current_call", default=None)
"""The current call. In a run that others have joined, it is that of the first caller."""
