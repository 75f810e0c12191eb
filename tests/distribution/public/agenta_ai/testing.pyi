from _typeshed import Incomplete
from agenta_ai.client import Client as Client
from agenta_ai.codec import from_struct as from_struct
from agenta_ai.errors import AgentaError as AgentaError, CLOSED as CLOSED
from agenta_ai.meta import Metadata as Metadata
from agenta_ai.requests import Exchange as Exchange
from agenta_ai.results import RefinedPrompt as RefinedPrompt, ServiceStatus as ServiceStatus, Tool as Tool, ToolResult as ToolResult
from agenta_ai.sync import SyncClient as SyncClient
from agenta_ai.v1 import tool_service_pb2 as tool_service_pb2
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

@dataclass(frozen=True, slots=True)
class RecordedCall:
    method: str
    timeout: float
    metadata: Metadata = ...
    name: str = ...
    arguments: dict[str, Any] = field(default_factory=dict)
    request_id: str = ...
Answer = RefinedPrompt | ToolResult | ServiceStatus | list[Tool] | BaseException
Scripted = Answer | Callable[[RecordedCall], Answer]

class _Script:
    answers: Incomplete
    calls: list[RecordedCall]
    def __init__(self, answers: tuple[Scripted, ...]) -> None: ...
    def play(self, exchange: Exchange[_Result]) -> _Result: ...

class FakeClient(Client):
    calls: Incomplete
    def __init__(self, *answers: Scripted) -> None: ...
    def add_answers(self, *answers: Scripted) -> None: ...

class FakeSyncClient(SyncClient):
    calls: Incomplete
    def __init__(self, *answers: Scripted) -> None: ...
    def add_answers(self, *answers: Scripted) -> None: ...
