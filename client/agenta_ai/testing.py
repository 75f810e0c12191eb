"""Clients for tests of your own code. They send nothing, return scripted answers, and record the calls.

For example::

    from agenta_ai import RefinedPrompt, ToolFailed
    from agenta_ai.testing import FakeSyncClient

    client = FakeSyncClient(RefinedPrompt({"messages": []}), ToolFailed("No model.", reason="UPSTREAM_UNAVAILABLE"))
    assert client.refine_prompt({"messages": []}).template == {"messages": []}
    assert client.calls[0].arguments["guidelines"] == ""

Arguments are checked as by the real clients, so a test detects those that can't be sent. pytest isn't required.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

from agenta_ai.cases import RefinedWithCases
from agenta_ai.client import Client
from agenta_ai.codec import from_struct
from agenta_ai.errors import CLOSED, AgentaError
from agenta_ai.results import Progress, RefinedPrompt, ServiceStatus, Tool, ToolPage, ToolResult
from agenta_ai.sync import SyncClient
from agenta_ai.v1 import tool_service_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Iterator

    from agenta_ai.meta import Metadata
    from agenta_ai.requests import Exchange

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """One call of a fake client.

    Attributes:
        method: ``"Status"``, ``"ListTools"``, ``"CallTool"`` or ``"CallToolStream"``.
        timeout: The timeout of the call, in seconds.
        metadata: Pairs that were passed with the call.
        name: Name of the tool; empty if none was called.
        arguments: The tool's arguments, as the server would read them.
        request_id: The idempotency key; empty if no tool was called.
    """

    method: str
    timeout: float
    metadata: Metadata = ()
    name: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    request_id: str = ""


Outcome = RefinedPrompt | RefinedWithCases | ToolResult | ServiceStatus | ToolPage | list[Tool] | BaseException
# A result or an error to raise; in a tuple, the progress that a call reports before it.
Answer = Outcome | tuple[Progress | Outcome, ...]
# What a fake client answers: an answer, or a function that makes one from the call.
Scripted = Answer | Callable[[RecordedCall], Answer]


class _Script:
    def __init__(self, answers: tuple[Scripted, ...]) -> None:
        self.answers = list(answers)
        self.calls: list[RecordedCall] = []

    def play(self, exchange: Exchange[_Result]) -> Iterator[Progress | _Result]:
        call = _recorded(exchange)
        self.calls.append(call)
        if not self.answers:
            raise AssertionError(
                f"The fake client has no answer for call {len(self.calls)}, {call.method} {call.name}".rstrip()
                + ". Give it one more with add_answers()."
            )
        scripted = self.answers.pop(0)
        answer = scripted(call) if callable(scripted) else scripted
        *progress, outcome = answer if isinstance(answer, tuple) else (answer,)
        yield from cast("list[Progress]", progress)
        if isinstance(outcome, BaseException):
            raise outcome
        yield cast("_Result", _completed(outcome, call))


class FakeClient(Client):
    """:class:`agenta_ai.Client` without a server.

    Args:
        answers: What the calls return or raise, in order: see :data:`Scripted`.

    Attributes:
        calls: The calls that were made, in order.
    """

    def __init__(self, *answers: Scripted) -> None:
        super().__init__("unix:fake")
        self._script = _Script(answers)
        self.calls = self._script.calls

    def add_answers(self, *answers: Scripted) -> None:
        """Add answers for further calls."""
        self._script.answers += answers

    async def _send(self, exchange: Exchange[_Result]) -> _Result:
        if self._closing.is_set():
            raise AgentaError(CLOSED)
        events = self._script.play(exchange)
        return _last(events)

    async def _stream(self, exchange: Exchange[_Result]) -> AsyncGenerator[Progress | _Result, None]:
        if self._closing.is_set():
            raise AgentaError(CLOSED)
        events = self._script.play(exchange.streamed())
        for event in events:
            yield event


class FakeSyncClient(SyncClient):
    """:class:`agenta_ai.SyncClient` without a server.

    Args:
        answers: What the calls return or raise, in order: see :data:`Scripted`.

    Attributes:
        calls: The calls that were made, in order.
    """

    def __init__(self, *answers: Scripted) -> None:
        super().__init__("unix:fake")
        self._script = _Script(answers)
        self.calls = self._script.calls

    def add_answers(self, *answers: Scripted) -> None:
        """Add answers for further calls."""
        self._script.answers += answers

    def _send(self, exchange: Exchange[_Result]) -> _Result:
        if self._closing.is_set():
            raise AgentaError(CLOSED)
        events = self._script.play(exchange)
        return _last(events)

    def _stream(self, exchange: Exchange[_Result]) -> Generator[Progress | _Result, None, None]:
        if self._closing.is_set():
            raise AgentaError(CLOSED)
        events = self._script.play(exchange.streamed())
        yield from events


def _last(events: Iterator[Progress | _Result]) -> _Result:
    """Return the result; a call that isn't streamed reports no progress."""
    *_, result = events
    return cast("_Result", result)


def _recorded(exchange: Exchange[Any]) -> RecordedCall:
    request = exchange.request
    if not isinstance(request, tool_service_pb2.CallToolRequest | tool_service_pb2.CallToolStreamRequest):
        return RecordedCall(exchange.method, exchange.timeout, exchange.metadata)
    return RecordedCall(
        exchange.method,
        exchange.timeout,
        exchange.metadata,
        request.name,
        from_struct(request.arguments),
        request.request_id,
    )


def _completed(answer: Progress | Outcome, call: RecordedCall) -> object:
    """Return the answer with what follows from the call, such as the original of a refinement."""
    if isinstance(answer, list):
        return ToolPage(tuple(answer))
    if isinstance(answer, RefinedPrompt | RefinedWithCases) and not answer.original:
        answer = replace(answer, original=json.loads(call.arguments.get("prompt_template_json", "{}")))
    if isinstance(answer, RefinedPrompt | RefinedWithCases | ToolResult) and not answer.request_id:
        return replace(answer, request_id=call.request_id)
    return answer
