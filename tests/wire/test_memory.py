"""What a call leaves behind."""

from __future__ import annotations

import gc
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from calls import refine, streamed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub

CALLS: dict[str, Callable[[ToolServiceAsyncStub], Awaitable[object]]] = {
    "a refinement": lambda stub: stub.CallTool(refine()),
    "a stream": lambda stub: streamed(stub, refine()),
    "a failure": lambda stub: stub.CallTool(refine(guidelines="standin: status=500")),
}


@pytest.fixture
def garbage() -> Iterator[list[object]]:
    """What only a garbage collection would free. It is disabled, and what it would free is put here."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield gc.garbage
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_frees_its_memory_when_it_ends(
    name: str, stub: ToolServiceAsyncStub, garbage: list[object]
) -> None:
    for _ in range(5):
        await CALLS[name](stub)
    gc.collect()
    ours = Counter(f"{each.__module__}.{type(each).__qualname__}" for each in garbage if is_ours(each))
    assert not ours


def is_ours(each: object) -> bool:
    """Whether it is of the service; the stand-in and the client run in this process, too."""
    module = str(getattr(each, "__module__", ""))
    return module.startswith("agenta_ai_server.") and not module.startswith("agenta_ai_server.standin")
