"""InFlightCalls a call once, however often it is sent."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from agenta_ai.v1 import tool_service_pb2
from agenta_ai_server.domain.errors import Reason, Refused, Violation
from agenta_ai_server.idempotency.store import Outcome
from agenta_ai_server.rpc.interceptor import Interceptor, Proceed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.message import Message

    from agenta_ai_server.domain.call import Call, Principal, Waiters
    from agenta_ai_server.idempotency.in_flight import InFlightCalls

UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.IGNORECASE)


class Idempotency(Interceptor):
    """Gives repeats of a ``CallTool``, which have its request_id, the result of the first.

    Args:
        runs: What runs, and what has been run.
        min_seconds: What a caller must have left for a run to be begun for it.
    """

    def __init__(self, runs: InFlightCalls, min_seconds: float) -> None:
        self._runs = runs
        self._min_seconds = min_seconds

    async def intercept(self, request: Message, call: Call, proceed: Proceed) -> Message:
        """Begin the run, join it, or answer with its result."""
        if not isinstance(request, tool_service_pb2.CallToolRequest):
            return await proceed(request, call)
        _check(request.request_id)
        if not request.request_id:
            return await proceed(request, call)

        async def work(deadline: float, callers: Waiters) -> Outcome:
            if callers.deadline - asyncio.get_running_loop().time() < self._min_seconds:
                raise self._too_little_time()
            # The run belongs to the id: it has a deadline of its own, and outlives its first caller.
            response = await proceed(request, replace(call, deadline=deadline, callers=callers))
            return _outcome(response)

        key, fingerprint = _key(call.caller, request.request_id), _fingerprint(request)
        replay = await self._runs.run(key, fingerprint, work, math.inf if call.deadline is None else call.deadline)
        response = tool_service_pb2.CallToolResponse.FromString(replay.data)
        response.meta.replayed = replay.replayed
        return response

    def _too_little_time(self) -> Refused:
        unit = "second is" if self._min_seconds == 1 else "seconds are"
        return Refused(
            Reason.DEADLINE_TOO_SHORT,
            f"Less than {self._min_seconds:g} {unit} left of the call's deadline, which is too little to run the tool: "
            "allow more time.",
        )


def _check(request_id: str) -> None:
    if request_id and not UUID4.fullmatch(request_id):
        wrong = Violation(
            "request_id", "Must be a UUID, version 4, such as 1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b, or absent."
        )
        raise Refused(Reason.REQUEST_INVALID, f"{wrong.field}: {wrong.description}", violations=[wrong])


def _outcome(response: Message) -> Outcome:
    assert isinstance(response, tool_service_pb2.CallToolResponse)
    # Retryable means that nothing was bought: the same id may be sent again, and is then run again.
    return Outcome(response.SerializeToString(), keep=not response.error.retryable)


def _key(principal: Principal, request_id: str) -> str:
    identity = (principal.method, principal.user, principal.organization, principal.workspace, principal.project)
    return _digest(part.encode() for part in (*identity, request_id.lower()))


def _fingerprint(request: tool_service_pb2.CallToolRequest) -> bytes:
    # Sorted keys make it canonical, as JSON with sorted keys would be, and cost a tenth.
    arguments = request.arguments.SerializeToString(deterministic=True)
    return bytes.fromhex(_digest((request.name.encode(), arguments)))


def _digest(parts: Iterable[bytes]) -> str:
    """Return a hash that differs wherever a part does: each goes in with its length."""
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        hashed.update(len(part).to_bytes(8) + part)
    return hashed.hexdigest()
