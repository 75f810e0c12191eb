"""Typed methods of tools that come and go: what is served, described and reported healthy, and what of it stays."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
from calls import details
from grpc_health.v1 import health_pb2, health_pb2_grpc
from ops.test_grpcurl import grpcurl
from typed.schemas import properties, tool

from agenta_ai.v1 import error_pb2
from agenta_ai_server.auth.policy import AccessPolicy
from agenta_ai_server.domain.outcome import ToolOutcome
from agenta_ai_server.domain.tool import ToolSet, ToolSpec
from agenta_ai_server.pipeline.authorize import Authorize
from agenta_ai_server.rpc import reflection
from agenta_ai_server.rpc.authentication import Authentication
from agenta_ai_server.rpc.boundary import Boundary
from agenta_ai_server.rpc.health import Health
from agenta_ai_server.rpc.request_reader import RequestReader
from agenta_ai_server.rpc.server import Server
from agenta_ai_server.rpc.tool_calls import ToolCalls
from agenta_ai_server.rpc.tool_pipeline import ToolPipeline
from agenta_ai_server.rpc.typed_methods import TypedMethods
from agenta_ai_server.rpc.typed_tools import TypedTools
from agenta_ai_server.tools.catalog import Catalog
from agenta_ai_server.typed.generation import Generation
from agenta_ai_server.typed.lock import Lock, updated, with_numbers
from agenta_ai_server.typed.tools import shapes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agenta_ai_server.domain.tool_call import ToolCall

TEXT, NUMBER = {"type": "string", "description": "Some text."}, {"type": "integer"}
SERVICE = "agenta.ai.tools.acme.support.v1.SupportToolsService"


class Tools:
    """A server whose tools change, and a client that is generated from them."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.catalog = Catalog(ToolSet())
        self.channel: Any = None
        self.address = ""

    def serve(self, *specs: ToolSpec, numbered: bool = True) -> Generation:
        """Serve these tools from now on; return what a client is generated from."""
        if numbered:
            self.lock = updated(self.lock, shapes(specs)[0])
        self.catalog.current = ToolSet(with_numbers(specs, self.lock))
        return Generation(specs, self.lock)

    async def call(self, stub: Generation, arguments: dict[str, Any], name: str = "Classify") -> Any:
        """Call a tool by a stub that was generated at some time."""
        method = stub.methods[f"/{SERVICE}/{name}"]
        request: Any = method.request()
        method.arguments.write(request.arguments, arguments)
        call = self.channel.unary_unary(
            f"/{SERVICE}/{name}", method.request.SerializeToString, method.response.FromString
        )
        return await call(request)


@pytest.fixture
async def tools() -> AsyncIterator[Tools]:
    tools = Tools()
    typed = TypedTools(tools.catalog)
    boundary = Boundary(10)
    typed.on_change(boundary.forget_methods)
    server = Server(
        boundary,
        [Authentication(None), ToolPipeline([Authorize(AccessPolicy())], RequestReader(100))],
        [TypedMethods(typed, ToolCalls(tools.catalog, max_seconds=10)), *reflection.handlers(typed)],
        Health(lambda: typed.current.services),
        max_call_seconds=10,
        max_connection_age_seconds=0,
        max_pending_calls=1000,
        max_connections=1000,
    )
    tools.address = await server.start("127.0.0.1:0")
    async with grpc.aio.insecure_channel(tools.address) as tools.channel:
        yield tools
    await server.stop(0, 1)


def echo(arguments: dict[str, Any], result: dict[str, Any] | None = None, **more: Any) -> ToolSpec:
    """A tool that gives back its arguments."""
    spec = tool(arguments, result or arguments)

    async def run(call: ToolCall) -> ToolOutcome:
        return ToolOutcome("text", structured={**call.arguments, **more})

    return ToolSpec(**{name: getattr(spec, name) for name in spec.__slots__} | {"run": run})


async def test_arguments_and_result(tools: Tools) -> None:
    stub = tools.serve(echo(properties(text=TEXT, count=NUMBER, tags={"type": "array", "items": TEXT})))
    response = await tools.call(stub, {"text": "", "count": 2**53 + 1, "tags": ["a"]})
    assert (response.result.text, response.result.count, list(response.result.tags)) == ("", 2**53 + 1, ["a"])
    assert response.content[0].text == "text"
    assert not (await tools.call(stub, {})).result.HasField("text")


async def test_numbers_that_json_lacks_are_refused_with_their_place(tools: Tools) -> None:
    stub = tools.serve(echo(properties(inner=properties(numbers={"type": "array", "items": {"type": "number"}}))))
    method = stub.methods[f"/{SERVICE}/Classify"]
    request: Any = method.request()
    request.arguments.inner.numbers.extend([1, float("inf")])
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await tools.channel.unary_unary(f"/{SERVICE}/Classify")(request.SerializeToString())
    found = details(raised.value)
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert found["BadRequest"]["fieldViolations"][0]["field"] == "arguments.inner.numbers[1]"


async def test_a_flood_of_values_is_refused(tools: Tools) -> None:
    schema = properties(tags={"type": "array", "items": TEXT}, counts={"type": "array", "items": NUMBER})
    stub = tools.serve(echo(schema))
    assert (await tools.call(stub, {"tags": ["x" * 20] * 5000})).result.tags
    for arguments in ({"tags": [""] * 500_000}, {"tags": [""] * 10_001}, {"counts": [1] * 900_000}):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await tools.call(stub, arguments)
        assert details(raised.value)["ErrorInfo"]["reason"] == "ERROR_REASON_ARGUMENTS_INVALID"


async def test_a_result_that_the_message_cannot_hold(tools: Tools) -> None:
    stub = tools.serve(echo(properties(), properties(inner=properties(x=NUMBER)), inner={"x": 2**64}))
    response = await tools.call(stub, {})
    assert response.WhichOneof("outcome") == "error"
    assert response.error.reason == error_pb2.ERROR_REASON_UPSTREAM_OUTPUT_INVALID
    assert response.error.field_violations[0].field == "result.inner.x"
    assert "CallTool" in response.content[0].text


NEW = {"more": TEXT, "inner": properties(text=TEXT)}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (properties(text=TEXT), properties(text=TEXT, **NEW)),
        (properties(("text",), text=TEXT), properties(text=TEXT, **NEW)),
        (properties(text=TEXT, gone=NUMBER), properties(text=TEXT)),
        (properties(inner=properties(text=TEXT), text=TEXT), properties(**NEW, text={**TEXT, "maxLength": 10})),
    ],
)
async def test_old_stubs_work_after_compatible_changes(
    tools: Tools, before: dict[str, Any], after: dict[str, Any]
) -> None:
    old = tools.serve(echo(before))
    assert (await tools.call(old, {"text": "a"})).result.text == "a"
    new = tools.serve(echo(after, more="new"))
    for stub in (old, new):
        assert (await tools.call(stub, {"text": "a"})).result.text == "a"
    assert tools.serve(echo(after), tool(properties(), name="tools.acme.support.other"))
    assert (await tools.call(old, {"text": "a"})).result.text == "a"


async def test_calls_of_an_old_generation_end_well(tools: Tools) -> None:
    began, go_on = asyncio.Semaphore(0), asyncio.Event()
    schema = properties(text=TEXT)
    spec = echo(schema)

    async def run(call: ToolCall) -> ToolOutcome:
        began.release()
        await go_on.wait()
        return ToolOutcome("text", structured=dict(call.arguments))

    slow = ToolSpec(**{name: getattr(spec, name) for name in spec.__slots__} | {"run": run})
    old = tools.serve(slow)
    calls = [asyncio.ensure_future(tools.call(old, {"text": str(index)})) for index in range(20)]
    for _ in calls:
        await began.acquire()
    # Under a new generation the same field has another type, which no message of the old one could be.
    new = tools.serve(echo(properties(text=NUMBER)))
    assert (await tools.call(new, {"text": 1})).result.text == 1
    tools.serve()
    go_on.set()
    assert [response.result.text for response in await asyncio.gather(*calls)] == [str(index) for index in range(20)]
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await tools.call(new, {"text": 1})
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reload_under_load(tools: Tools) -> None:
    stub = tools.serve(echo(properties(text=TEXT)))
    done = 0

    async def keep_calling() -> None:
        nonlocal done
        while done < 500:
            assert (await tools.call(stub, {"text": "a"})).result.text == "a"
            done += 1

    async def keep_changing() -> None:
        extra = 0
        while done < 500:
            extra += 1
            tools.serve(echo(properties(text=TEXT, **{f"p{index}": NUMBER for index in range(extra % 5)})))
            await asyncio.sleep(0)

    await asyncio.gather(keep_changing(), *(keep_calling() for _ in range(8)))


async def test_a_tool_that_is_not_in_the_lock_stays_generic(tools: Tools, logged: list[str]) -> None:
    stub = tools.serve(echo(properties(text=TEXT)))
    tools.serve(echo(properties(text=TEXT, more=TEXT)), numbered=False)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await tools.call(stub, {"text": "a"})
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert "has no typed method" in (raised.value.details() or "")
    assert any("arguments.more: The property is not in the lock file" in line for line in logged)


@pytest.mark.needs("grpcurl")
async def test_grpcurl_lists_describes_and_calls(tools: Tools) -> None:
    tools.serve(echo(properties(("text",), text=TEXT, dueDate=NUMBER)))
    assert SERVICE in (await grpcurl(tools.address, "list"))[1].split()
    code, out, err = await grpcurl(tools.address, "describe", SERVICE)
    assert code == 0, err
    assert "// Classifies a ticket." in out
    code, out, err = await grpcurl(tools.address, "describe", f"{SERVICE}.Classify")
    assert code == 0, err
    code, out, err = await grpcurl(
        tools.address, "describe", "agenta.ai.tools.acme.support.v1.ClassifyRequest.Arguments"
    )
    assert code == 0, err
    assert "// Some text." in out
    assert "// Required." in out
    sent = json.dumps({"arguments": {"text": "a", "dueDate": "9007199254740993"}})
    code, out, err = await grpcurl("-d", sent, tools.address, f"{SERVICE}/Classify")
    assert code == 0, err
    assert json.loads(out)["result"] == {"text": "a", "dueDate": "9007199254740993"}
    tools.serve()
    assert SERVICE not in (await grpcurl(tools.address, "list"))[1].split()


async def test_health_knows_the_services(tools: Tools) -> None:
    health: Any = health_pb2_grpc.HealthStub(tools.channel)
    asked = health_pb2.HealthCheckRequest(service=SERVICE)
    with pytest.raises(grpc.aio.AioRpcError):
        await health.Check(asked)
    tools.serve(echo(properties(text=TEXT)))
    assert (await health.Check(asked)).status == health_pb2.HealthCheckResponse.SERVING


async def test_tools_are_prepared_before_they_change(tools: Tools) -> None:
    stub = tools.serve(echo(properties(text=TEXT)))
    assert (await tools.call(stub, {"text": "a"})).result.text == "a"
    more = [echo(properties(text=TEXT)), tool(properties(), name="tools.acme.support.other")]
    tools.lock = updated(tools.lock, shapes(more)[0])
    after = ToolSet(with_numbers(more, tools.lock))
    await asyncio.to_thread(tools.catalog.prepare, after)
    # Until they are the current ones, calls see the others, and what was prepared isn't lost.
    assert (await tools.call(stub, {"text": "a"})).result.text == "a"
    tools.catalog.current = after
    assert (await tools.call(stub, {"text": "b"})).result.text == "b"
