import grpc
from _typeshed import Incomplete
from agenta_ai.meta import CallMeta as CallMeta, FieldViolation as FieldViolation, Metadata as Metadata
from agenta_ai.terminal import printable as printable
from collections.abc import Sequence

CLOSED: str

class AgentaError(Exception):
    request_id: str
    call_id: str

class InvalidInput(AgentaError, ValueError): ...

class CallFailed(AgentaError):
    code: Incomplete
    reason: Incomplete
    message: Incomplete
    field_violations: Incomplete
    retry_delay: Incomplete
    request_id: Incomplete
    call_id: Incomplete
    tool_was_run: Incomplete
    trailers: Incomplete
    def __init__(self, sentence: str, *, code: grpc.StatusCode, reason: str = '', message: str = '', field_violations: Sequence[FieldViolation] = (), retry_delay: float | None = None, request_id: str = '', call_id: str = '', tool_was_run: bool | None = None, trailers: Metadata = ()) -> None: ...

class ToolFailed(AgentaError):
    message: Incomplete
    reason: Incomplete
    meta: Incomplete
    trace_id: Incomplete
    retryable: Incomplete
    retry_delay: Incomplete
    field_violations: Incomplete
    request_id: Incomplete
    call_id: Incomplete
    def __init__(self, message: str, *, reason: str, meta: CallMeta | None = None, retryable: bool = False, retry_delay: float | None = None, field_violations: Sequence[FieldViolation] = (), request_id: str = '', call_id: str = '') -> None: ...

def sentence(message: str, violations: Sequence[FieldViolation] = (), retry_delay: float | None = None) -> str: ...
