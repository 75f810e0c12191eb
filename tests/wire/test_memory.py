"""What a call leaves in memory when it has ended."""

from __future__ import annotations

import gc
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from calls import refine, streamed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceAsyncStub

FAULTS = ("status=500", "cause=not-deployed", "answer=prose", "answer=lossy", "body=plain", "reset=headers", "garbage")


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


@pytest.mark.parametrize("guidelines", ["", *(f"standin: {fault}" for fault in FAULTS)])
async def test_a_call_is_freed_without_a_garbage_collection(
    guidelines: str, stub: ToolServiceAsyncStub, garbage: list[object]
) -> None:
    for _ in range(3):
        await stub.CallTool(refine(guidelines=guidelines))
        await streamed(stub, refine(guidelines=guidelines))
    gc.collect()
    assert not Counter(type(each).__qualname__ for each in garbage if is_ours(each))


def is_ours(each: object) -> bool:
    """Whether it is of the service; the stand-in and the client run in this process, too."""
    module = str(getattr(each, "__module__", ""))
    return module.startswith("agenta_ai_server.") and not module.startswith("agenta_ai_server.standin")
