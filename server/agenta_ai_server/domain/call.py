"""One call: who makes it, until when, and what its answer carries besides the result."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

if TYPE_CHECKING:
    from agenta_ai_server.domain.listener import UpstreamRequest

PEER = re.compile(r"ipv[46]:(.+):\d+")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls. Ids are opaque strings; an empty one means that the authority didn't name it.

    Attributes:
        method: How the caller proved it, for example ``"none"`` or ``"api_key"``.
        permissions: Names of what the caller may do; ``None`` means everything, which only the method "none" gives.
    """

    user: str
    project: str = ""
    workspace: str = ""
    organization: str = ""
    plan: str = ""
    permissions: frozenset[str] | None = frozenset()
    method: str = ""

    def may(self, permission: str) -> bool:
        """Say whether the caller has the ``permission``."""
        return self.permissions is None or permission in self.permissions


ANONYMOUS = Principal(user="anonymous", permissions=None, method="none")


class HasDeadline(Protocol):
    """Whoever waits for something that is done for a call."""

    @property
    def deadline(self) -> float | None:
        """When the waiting ends, in seconds on the event loop's clock, as things are now; ``None`` for never."""


@dataclass(slots=True, eq=False)
class Waiters:
    """Those who wait for one run, which they join and leave while it goes on.

    Attributes:
        deadlines: When each of them stops waiting, in seconds on the event loop's clock; infinite for never.
        begun: Whether the run may have cost something by now, so that it goes on for a while when all have left.
    """

    deadlines: list[float] = field(default_factory=list)
    begun: bool = False

    @property
    def deadline(self) -> float:
        """When the last of them stops waiting."""
        return max(self.deadlines, default=-math.inf)


@dataclass(slots=True)
class Call:
    """One call on its way through the service.

    Attributes:
        id: Names the call in logs and errors: 32 hexadecimal digits.
        method: Full method name, ``"/agenta.ai.v1.ToolService/CallTool"``.
        metadata: What the caller sent, in its order; keys are lowercase, values of ``-bin`` keys are bytes.
        peer: Address of the caller as the transport has it, ``"ipv4:127.0.0.1:40112"``.
        deadline: When the call ends, in seconds on the event loop's clock; ``None`` or infinite for never.
        identities: URIs and DNS names of the caller's certificate, which the transport has verified.
        principal: Who calls; ``None`` until the call has been authenticated.
        trailers: Metadata that the answer, whatever it is, will end with.
        request_bytes: Size of its message.
        request_id: What repeats of it share, a UUID; empty if it has none, or none that is valid.
        tool: Name of the tool that it is for, ``"unknown"`` if there is no such, empty if its method takes none.
        trace_id: Its distributed trace, 32 lowercase hexadecimal digits; empty if it has none.
        requests: What was sent to the completion service for it so far.
        callers: Who waits for it, if these are others than who made it.
    """

    id: str
    method: str
    metadata: tuple[tuple[str, str | bytes], ...]
    peer: str
    deadline: float | None
    identities: tuple[str, ...] = ()
    principal: Principal | None = None
    trailers: list[tuple[str, str]] = field(default_factory=list)
    request_bytes: int = 0
    request_id: str = ""
    tool: str = ""
    trace_id: str = ""
    requests: list[UpstreamRequest] = field(default_factory=list)
    callers: Waiters | None = None

    @property
    def waiting(self) -> HasDeadline:
        """Who waits for it: those who have joined its run, or else whoever made it."""
        return self.callers or self

    @property
    def rpc(self) -> str:
        """Name of its method in the contract, ``"CallTool"``."""
        return self.method.rpartition("/")[2]

    @property
    def host(self) -> str:
        """Address of the caller without its port: ``"ipv6:%5B::1%5D:40112"`` gives ``"::1"``."""
        found = PEER.fullmatch(self.peer)
        return unquote(found[1]).strip("[]") if found else self.peer

    @property
    def upstream_seconds(self) -> float:
        """How long its requests to the completion service took together, up to now; one may outlive the call."""
        return sum(request.seconds for request in self.requests)

    def remaining(self, now: float) -> float:
        """Return the seconds that are left at ``now`` on the event loop's clock; infinite if there is no deadline."""
        return math.inf if self.deadline is None else self.deadline - now

    @property
    def caller(self) -> Principal:
        """Who calls; it is a bug to ask before the call has been authenticated."""
        if self.principal is None:
            raise AssertionError("the call passed no authentication")
        return self.principal

    def values(self, key: str) -> list[str]:
        """Return what the caller sent under the ``key`` of its metadata, which has no ``-bin`` at its end."""
        return [value for name, value in self.metadata if name == key and isinstance(value, str)]
