import asyncio
import io
import json
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from addresses import free_port

from agenta_ai_server.standin.answers import CannedResponse
from agenta_ai_server.standin.app import StandIn, in_turn
from agenta_ai_server.standin.faults import Fault
from agenta_ai_server.standin.received import Received

TEMPLATE = json.dumps(
    {
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "Please utilize {{input_text}}"},
        ]
    }
)
REFINED = [
    {"role": "system", "content": "You are a precise assistant."},
    {"role": "user", "content": "Use {{input_text}}"},
]
HEX_32 = re.compile(r"[0-9a-f]{32}")
KEY = {"authorization": "ApiKey standin-key"}
BROKEN_CONNECTION = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError)


@pytest.fixture
async def standin() -> AsyncIterator[StandIn]:
    async with StandIn() as standin:
        yield standin


@pytest.fixture
async def http(standin: StandIn) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(standin.url, connector=aiohttp.TCPConnector(limit=0)) as http:
        yield http


def body(guidelines: object = "", **changes: object) -> dict[str, Any]:
    inputs = {"__ag_prompt_template_json": TEMPLATE, "__ag_guidelines": guidelines, "__ag_context": ""}
    return {"inputs": inputs, "environment": "production", "app": "ai-refine"} | changes


def address(standin: StandIn) -> tuple[str, int]:
    host, _, port = standin.url.removeprefix("http://").partition(":")
    return host, int(port)


async def run(
    http: aiohttp.ClientSession, guidelines: str = "", *, headers: dict[str, str] = KEY, **changes: Any
) -> tuple[int, Any]:
    async with http.post("/services/completion/run", json=body(guidelines, **changes), headers=headers) as response:
        return response.status, await response.json(content_type=None)


async def test_success(http: aiohttp.ClientSession) -> None:
    status, answer = await run(http)

    data = json.loads(answer.pop("data"))
    assert (status, data["messages"]) == (200, REFINED)
    assert data["summary"].startswith("Offline stand-in")
    assert HEX_32.fullmatch(answer["trace_id"])
    assert answer.pop("tree_id").replace("-", "") == answer.pop("trace_id")
    assert re.fullmatch(r"[0-9a-f]{16}", answer.pop("span_id"))
    assert answer == {"version": "3.0", "content_type": "text/plain", "tree": None}


async def test_guidelines(http: aiohttp.ClientSession) -> None:
    _, answer = await run(http, "be clear")
    assert json.loads(answer["data"])["messages"][0]["content"].endswith("\n\nGuidelines: be clear.")


@pytest.mark.parametrize("authorization", ["ApiKey wrong", "apikey standin-key", "Bearer standin-key", ""])
async def test_wrong_key(http: aiohttp.ClientSession, authorization: str) -> None:
    detail = "Invalid credentials. Please check your credentials or login again."
    assert await run(http, headers={"authorization": authorization}) == (401, {"detail": detail})


@pytest.mark.parametrize("changes", [{"app": "no-such-app"}, {"environment": "staging"}])
async def test_not_deployed(http: aiohttp.ClientSession, changes: dict[str, Any]) -> None:
    status, answer = await run(http, **changes)
    assert (status, answer.keys()) == (500, {"version", "status"})
    assert answer["status"]["message"].startswith("Client error '404 Not Found' for url")
    assert answer["status"]["stacktrace"]


async def test_the_environment_may_be_absent(http: aiohttp.ClientSession) -> None:
    async with http.post(
        "/services/completion/run", json={"inputs": body()["inputs"], "app": "ai-refine"}, headers=KEY
    ) as response:
        assert response.status == 200


async def test_null_input(http: aiohttp.ClientSession) -> None:
    inputs = body()["inputs"] | {"__ag_context": None}
    status, answer = await run(http, inputs=inputs)
    assert status == 400
    assert HEX_32.fullmatch(answer["trace_id"])
    assert answer["status"] == {
        "code": 400,
        "message": "Invalid inputs:\nExpected '['__ag_context', '__ag_guidelines', '__ag_prompt_template_json']'\n"
        "Got ('list') '['__ag_guidelines', '__ag_prompt_template_json']'.",
        "type": "https://agenta.ai/docs/misc/errors#v0:schemas:invalid-inputs",
    }


@pytest.mark.parametrize("sent", ["{not json", "[1, 2]", '{"inputs": {}}', '{"app": "no-such-app"}', "[" * 100_000])
async def test_requests_without_a_prompt(http: aiohttp.ClientSession, sent: str) -> None:
    async with http.post("/services/completion/run", data=sent, headers=KEY) as response:
        assert response.status == 400
        assert (await response.json())["status"]["message"] == "Missing parameter:\nAt 'prompt'"


async def test_inputs_of_the_wrong_kind(http: aiohttp.ClientSession) -> None:
    async with http.post("/services/completion/run", json=body(inputs=["a"]), headers=KEY) as response:
        assert (response.status, response.content_type) == (500, "text/plain")
        assert await response.text() == "Internal Server Error"


async def test_health_and_unknown_paths(http: aiohttp.ClientSession) -> None:
    async with http.get("/services/health") as response:
        assert (response.status, await response.json()) == (200, {"status": "ok"})
    async with http.get("/services/completion/run") as response:
        assert (response.status, await response.json()) == (404, {"detail": "Not Found"})


async def test_remembers_requests_without_the_key(standin: StandIn, http: aiohttp.ClientSession) -> None:
    await run(http, headers=KEY | {"X-Request-Id": "7"})
    received = standin.requests[0]
    assert (received.method, received.path) == ("POST", "/services/completion/run")
    assert received.headers["x-request-id"] == "7"
    assert "standin-key" not in str(received)
    assert json.loads(received.body) == body()


async def test_a_prompt_of_several_mib(http: aiohttp.ClientSession) -> None:
    template = json.dumps({"messages": [{"role": "user", "content": "{{x}} " * 500_000}]})
    sent = json.dumps(body(inputs=body()["inputs"] | {"__ag_prompt_template_json": template})).encode()
    async with http.post("/services/completion/run", data=io.BytesIO(sent), headers=KEY) as response:
        assert json.loads((await response.json())["data"])["messages"][0]["content"].startswith("{{x}} {{x}}")


@pytest.mark.parametrize(
    ("status", "keys"),
    [
        (400, {"session_id", "span_id", "trace_id", "version", "status"}),
        (401, {"detail"}),
        (403, {"detail"}),
        (424, {"session_id", "span_id", "trace_id", "version", "status"}),
        (429, {"detail"}),
        (500, {"session_id", "span_id", "trace_id", "version", "status"}),
        (503, {"detail"}),
        (599, {"detail"}),
    ],
)
async def test_status(http: aiohttp.ClientSession, status: int, keys: set[str]) -> None:
    answered, answer = await run(http, f"standin: status={status}")
    assert (answered, answer.keys()) == (status, keys)


async def test_retry_after_and_redirection(http: aiohttp.ClientSession) -> None:
    sent = body("standin: status=307 retry-after='Wed, 21 Oct 2026 07:28:00 GMT'")
    async with http.post("/services/completion/run", json=sent, headers=KEY, allow_redirects=False) as response:
        assert response.headers["retry-after"] == "Wed, 21 Oct 2026 07:28:00 GMT"
        assert response.headers["location"] == "/services/elsewhere"


@pytest.mark.parametrize(
    ("words", "content_type", "pattern"),
    [
        ("body=empty", "application/json", ""),
        ("body=broken", "application/json", r'\{"version": "3.0", "data": .*[^}]'),
        ("status=502 body=html", "text/html", ".*502 Bad Gateway.*"),
        ("status=500 body=plain", "text/plain", "Internal Server Error"),
        ("body=older", "application/json", '.*"traceId": "[0-9a-f]{32}".*'),
        ("body=traceless", "application/json", r'\{"version": "3.0", "data": "((?!trace_id|span_id|tree_id).)*\}'),
    ],
)
async def test_body(http: aiohttp.ClientSession, words: str, content_type: str, pattern: str) -> None:
    async with http.post("/services/completion/run", json=body(f"standin:{words}"), headers=KEY) as response:
        assert response.content_type == content_type
        assert re.fullmatch(pattern, await response.text())


@pytest.mark.parametrize(
    ("words", "data"),
    [
        ("answer=null", None),
        ("answer=empty", ""),
        ("answer=prose", "Sure! Here is your refined prompt: be nicer."),
        ('text={"a": 1} status=5', '{"a": 1} status=5'),
    ],
)
async def test_answer(http: aiohttp.ClientSession, words: str, data: object) -> None:
    assert (await run(http, f"standin: {words}"))[1]["data"] == data


async def test_answers_made_of_the_refinement(http: aiohttp.ClientSession) -> None:
    async def data(words: str) -> Any:
        return (await run(http, f"standin: {words}"))[1]["data"]

    whole = await data("")
    assert json.loads(whole)["messages"] == REFINED
    assert await data("answer=fenced") == f"```json\n{whole}\n```"
    assert whole.startswith(await data("answer=truncated"))
    assert json.loads(await data("answer=fewer"))["messages"] == REFINED[:1]
    assert json.loads(await data("answer=lossy"))["messages"][1]["content"] == "Use "
    assert (await data("answer=tools"))[0]["function"]["name"] == "f"


@pytest.mark.parametrize("words", ["reset=headers", "close=headers", "garbage"])
async def test_broken_before_the_headers(standin: StandIn, http: aiohttp.ClientSession, words: str) -> None:
    with pytest.raises((*BROKEN_CONNECTION, aiohttp.ClientResponseError)):
        await run(http, f"standin: {words}")
    await standin.when(lambda: standin.in_flight == 0)
    assert (standin.started, standin.finished) == (1, 0)


@pytest.mark.parametrize("words", ["reset=body", "close=body", "length=100000"])
async def test_broken_in_the_body(standin: StandIn, http: aiohttp.ClientSession, words: str) -> None:
    async with http.post("/services/completion/run", json=body(f"standin: {words}"), headers=KEY) as response:
        assert response.status == 200
        with pytest.raises(BROKEN_CONNECTION):
            await response.read()
    await standin.when(lambda: standin.in_flight == 0)


async def test_length_too_short(standin: StandIn) -> None:
    # By hand, as a client may well take what follows for the begin of a second answer.
    sent = json.dumps(body("standin: length=10")).encode()
    head = f"POST /services/completion/run HTTP/1.1\r\ncontent-length: {len(sent)}\r\n"
    reader, writer = await asyncio.open_connection(*address(standin))
    writer.write(f"{head}authorization: {KEY['authorization']}\r\nhost: x\r\n\r\n".encode() + sent)
    received_head, _, received = (await reader.read()).partition(b"\r\n\r\n")
    assert b"content-length: 10" in received_head
    assert received.startswith(b'{"version"')
    assert json.loads(received)
    writer.close()


async def test_stall_before_the_headers(standin: StandIn, http: aiohttp.ClientSession) -> None:
    call = asyncio.create_task(run(http, "standin: stall=headers"))
    await standin.when(lambda: standin.in_flight == 1)
    call.cancel()
    await standin.when(lambda: standin.in_flight == 0)
    assert standin.finished == 0


async def test_stall_in_the_body(standin: StandIn, http: aiohttp.ClientSession) -> None:
    async with http.post("/services/completion/run", json=body("standin: stall=body"), headers=KEY) as response:
        assert (await response.content.readany()).startswith(b'{"version"')
        assert standin.in_flight == 1
    await standin.when(lambda: standin.in_flight == 0)


async def test_drip_and_huge(standin: StandIn, http: aiohttp.ClientSession) -> None:
    assert (await run(http, "standin: drip=0.00001"))[0] == 200
    async with http.post("/services/completion/run", json=body("standin: huge=3"), headers=KEY) as response:
        assert len(await response.read()) > 3 * 1024 * 1024
    await standin.when(lambda: standin.finished == 2)


async def test_a_client_that_leaves_a_huge_body(standin: StandIn, http: aiohttp.ClientSession) -> None:
    async with http.post("/services/completion/run", json=body("standin: huge=1000"), headers=KEY) as response:
        response.close()
    await standin.when(lambda: standin.in_flight == 0)
    assert standin.finished == 0


async def test_the_last_way_to_give_a_fault_wins(standin: StandIn, http: aiohttp.ClientSession) -> None:
    standin.fault = Fault(status=503)
    by_header = KEY | {"x-standin-fault": "status=429"}
    assert (await run(http))[0] == 503
    assert (await run(http, "standin:"))[0] == 200
    assert (await run(http, "standin: status=424"))[0] == 424
    assert (await run(http, "standin: status=424", headers=by_header))[0] == 429
    standin.respond = in_turn(Fault(status=500))
    assert (await run(http, "standin: status=424", headers=by_header))[0] == 500
    assert (await run(http, "standin: status=424", headers=by_header))[0] == 429


async def test_unreadable_words_are_said_to_be(http: aiohttp.ClientSession) -> None:
    status, answer = await run(http, "standin: explode")
    assert status == 400
    assert answer["detail"].startswith("'explode' is not a known fault; known are: status, ")


async def test_replays_a_recorded_answer(standin: StandIn, http: aiohttp.ClientSession) -> None:
    standin.respond = in_turn(CannedResponse(418, {"content-type": "text/plain", "x-a": "b"}, b"[1]"), None)
    async with http.post("/services/completion/run", json=body(), headers=KEY) as response:
        assert (response.status, response.headers["x-a"], await response.read()) == (418, "b", b"[1]")
    assert (await run(http))[0] == 200


async def test_runs_that_wait_for_the_test(standin: StandIn, http: aiohttp.ClientSession) -> None:
    gate = asyncio.Event()

    async def respond(received: Received) -> Fault | None:
        await gate.wait()
        return Fault(status=503) if b"second" in received.body else None

    standin.respond = respond
    calls = [asyncio.create_task(run(http, guidelines)) for guidelines in ("first", "second")]
    await standin.when(lambda: standin.in_flight == 2)
    gate.set()
    assert [status for status, _ in await asyncio.gather(*calls)] == [200, 503]
    assert (standin.started, standin.finished, standin.in_flight) == (2, 2, 0)


async def test_thousands_at_once(standin: StandIn, http: aiohttp.ClientSession) -> None:
    standin.fault = Fault(delay=60)
    calls = [asyncio.create_task(run(http)) for _ in range(2000)]
    await standin.when(lambda: standin.in_flight == 2000)
    for call in calls:
        call.cancel()
    await standin.when(lambda: standin.in_flight == 0)
    assert (standin.started, standin.finished) == (2000, 0)


async def test_delay(http: aiohttp.ClientSession) -> None:
    began = time.monotonic()
    assert (await run(http, "standin: delay=0.05"))[0] == 200
    assert time.monotonic() - began >= 0.05


async def test_stop_ends_stalled_and_delayed_runs_at_once() -> None:
    async with StandIn(fault=Fault(stall="body")) as standin, aiohttp.ClientSession(standin.url) as http:
        calls = [asyncio.create_task(run(http, words)) for words in ("", "standin: delay=60", "standin: stall=headers")]
        await standin.when(lambda: standin.in_flight == 3)
        began = time.monotonic()
        await standin.stop()
        assert time.monotonic() - began < 10
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, BROKEN_CONNECTION) for outcome in outcomes)
    assert (standin.in_flight, standin.connections) == (0, 0)
    with pytest.raises(RuntimeError, match="not started"):
        _ = standin.url


async def test_restarts_on_the_same_port(standin: StandIn) -> None:
    port = free_port()
    for _ in range(2):
        await standin.stop()
        await standin.start(port=port)
        assert standin.url.endswith(f":{port}")
    with pytest.raises(OSError, match="in use"):
        await StandIn().start(port=port)


async def test_a_machine_may_have_only_one_of_the_loopback_addresses() -> None:
    standin = StandIn()
    await standin.start(("192.0.2.1", "::1"))
    try:
        assert standin.url.startswith("http://[::1]:")
        async with aiohttp.ClientSession(standin.url) as http:
            assert (await run(http))[0] == 200
    finally:
        await standin.stop()
    with pytest.raises(OSError, match=r"192\.0\.2\.1"):
        await standin.start(("192.0.2.1",))


async def test_closes_idle_connections() -> None:
    async with StandIn(idle=1) as standin:
        reader, writer = await asyncio.open_connection(*address(standin))
        writer.write(b"GET /services/health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b'"ok"' in await reader.read()
        writer.close()
