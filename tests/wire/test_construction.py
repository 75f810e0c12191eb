"""How the server is put together: its interceptors, its options, and the longest that a call may take."""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from calls import request
from conftest import connected, settings_for

from agenta_ai_server.assembly import tools as assembled_tools
from agenta_ai_server.domain.outcome import ToolOutcome
from agenta_ai_server.domain.tool import ToolSpec
from agenta_ai_server.pipeline.authorize import Authorize
from agenta_ai_server.pipeline.concurrency import ConcurrencyLimit
from agenta_ai_server.pipeline.idempotency import Idempotency
from agenta_ai_server.pipeline.rate_limit import RateLimit
from agenta_ai_server.rpc.authentication import Authentication
from agenta_ai_server.rpc.boundary import Boundary
from agenta_ai_server.rpc.tool_pipeline import ToolPipeline

if TYPE_CHECKING:
    from agenta_ai_server.domain.tool import RunTool
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.standin.app import StandIn

ROOT = Path(__file__).parents[2]
OPTION = re.compile(r"grpc\.[a-z0-9_.]+")


async def test_authentication_and_the_pipeline_are_interceptors_of_an_async_grpc_server(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    original = grpc.aio.server

    def server(*args: Any, **options: Any) -> Any:
        made.extend(options["interceptors"])
        return original(*args, **options)

    monkeypatch.setattr(grpc.aio, "server", server)
    async with connected(settings_for(standin, AGENTA_AI_GRPC_LIMITS="on")):
        pass
    assert [type(each) for each in made] == [Boundary, Authentication, ToolPipeline]
    assert all(isinstance(each, grpc.aio.ServerInterceptor) for each in made)
    steps = [type(each) for each in made[-1].interceptors]
    assert steps == [Authorize, Idempotency, RateLimit, ConcurrencyLimit]


def names_of_options() -> set[str]:
    texts = (
        node.value
        for source in ("client", "server")
        for path in (ROOT / source).rglob("*.py")
        if "v1" not in path.parts
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return {
        text for text in texts if OPTION.fullmatch(text) and not text.startswith(("grpc.health.", "grpc.reflection."))
    }


def test_grpc_knows_every_option() -> None:
    # It ignores a name that it doesn't know.
    (library,) = Path(grpc.__file__).parent.glob("_cython/cygrpc*.so")
    known = library.read_bytes()
    names = names_of_options()
    assert len(names) > 10
    assert {name for name in names if name.encode() + b"\0" not in known} == set()


@pytest.mark.parametrize("request_id", ["", "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b"])
@pytest.mark.parametrize(("own", "service", "asked"), [(None, "0.3", None), (0.2, "30", None), (0.2, "30", 20.0)])
async def test_a_call_ends_at_the_tools_maximum_or_the_services(
    own: float | None,
    service: str,
    asked: float | None,
    request_id: str,
    standin: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def run(_: ToolCall) -> ToolOutcome:
        await asyncio.Event().wait()
        raise AssertionError

    assert await ending(run, own, service, asked, request_id, standin, monkeypatch) == "DEADLINE_EXCEEDED"


@pytest.mark.parametrize("request_id", ["", "1b4e28ba-2fa1-4d3b-a3f5-ef19b5a7633b"])
async def test_a_tools_own_maximum_may_be_longer_than_the_services(
    request_id: str, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(call: ToolCall) -> ToolOutcome:
        return ToolOutcome("in time" if call.remaining() > 20 else "too little time")

    assert await ending(run, 600, "0.3", 30, request_id, standin, monkeypatch) == "in time"


async def ending(
    run: RunTool,
    own: float | None,
    service: str,
    asked: float | None,
    request_id: str,
    standin: StandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """Call a tool with such a maximum; return what it said, or its status."""
    name = "tools.tests.api.slow"
    spec = ToolSpec(name, "", "", "view", {"type": "object"}, {}, run, max_seconds=own)
    monkeypatch.setattr(assembled_tools, "discover", lambda: {spec.name: lambda _: spec})
    settings = settings_for(standin, AGENTA_AI_GRPC_MAX_CALL_SECONDS=service, AGENTA_AI_GRPC_MIN_REMAINING_SECONDS="0")
    async with connected(settings) as stub:
        try:
            return (await stub.CallTool(request({}, name=name, request_id=request_id), timeout=asked)).content[0].text
        except grpc.aio.AioRpcError as error:
            return error.code().name
