"""Plays a vector: has client programs make its calls, and compares what they report and what arrived."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from conformance.arrivals import HEADER, new_trace, traceparent
from conformance.matching import ABSENT, differences, shown
from conformance.vectors import STREAM, TYPED, Call, Expect, Part, expanded
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as PackedDetail
from google.rpc import error_details_pb2  # noqa: F401  # knows the details
from pydantic import JsonValue, ValidationError

from agenta_ai.tools.agenta.api.v1 import api_tools_service_pb2
from agenta_ai.v1 import tool_service_pb2
from agenta_ai.v1.tool_service_pb2 import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from conformance.program import Program
    from conformance.servers import Place
    from conformance.vectors import Vector

RESPONSES: dict[str, type[Any]] = {
    "Status": tool_service_pb2.StatusResponse,
    "ListTools": tool_service_pb2.ListToolsResponse,
    "CallTool": tool_service_pb2.CallToolResponse,
    STREAM: tool_service_pb2.CallToolResponse,  # its result
    TYPED: api_tools_service_pb2.RefinePromptResponse,
}
# All that every refusal of ours has.
DOMAIN, REASON_PREFIX, CALL_ID = "agenta.ai", "ERROR_REASON_", {"requestId": {"$match": "[0-9a-f]{32}"}}
FIRST = Call(method="Status", expect=Expect(code="OK"))
# How long what has arrived at a server may go on after its caller has left.
END_SECONDS = 20.0


class Result(Part):
    """What a program reports of a call."""

    id: str
    code: str
    message: str
    details: list[dict[str, JsonValue]]
    progress: list[dict[str, JsonValue]] | None = None
    response: dict[str, JsonValue] | None = None
    native: JsonValue = None
    metadata: dict[str, list[str]]
    seconds: float
    outcome: dict[str, JsonValue] | None = None


async def play(vector: Vector, place: Place, programs: Sequence[Program], limit: float) -> list[str]:
    """Play the vector, and return what was wrong, a line for each difference.

    Args:
        vector: The vector, as it was read.
        place: Where it is played.
        programs: As many as it makes calls at the same time.
        limit: Seconds in which a program must have answered.

    Raises:
        ProgramError: A program broke the protocol. It can't be used any more.
    """
    vector = vector.filled(place.values)
    # Its first call takes a program a while, and times and calls that must meet are told of others.
    first = [
        program.ask(_asked(FIRST, "first", place, new_trace()), limit) for program in programs if not program.asked
    ]
    await asyncio.gather(*first)
    wrong: list[str] = []
    for number, step in enumerate(vector.steps, 1):
        for index, (call, result, took) in enumerate(
            await _made(f"{vector.name} {number}", step, place, programs, limit)
        ):
            wrong += _judged(call, result, took, f"call {number}, during it" if index else f"call {number}")
    if vector.arrivals is not None:
        wrong += await _judged_arrivals(vector.arrivals, place)
    return wrong


async def _made(
    name: str, step: Sequence[Call], place: Place, programs: Sequence[Program], limit: float
) -> list[tuple[Call, dict[str, Any], float]]:
    """Make the calls of a step: the first, and the others once it has arrived."""

    async def make(index: int, call: Call) -> tuple[Call, dict[str, Any], float]:
        began = time.monotonic()
        result = await programs[index].ask(_asked(call, f"{name}.{index + 1}", place, place.trace), limit)
        return call, result, time.monotonic() - began

    before = len(place.arrivals.of(place.trace))
    made = [asyncio.create_task(make(0, step[0]))]
    if len(step) > 1:
        arrived = asyncio.create_task(place.arrivals.when(lambda arrivals: len(arrivals) > before, place.trace))
        await asyncio.wait([arrived, *made], return_when=asyncio.FIRST_COMPLETED)
        arrived.cancel()
        made += [asyncio.create_task(make(index, call)) for index, call in enumerate(step[1:], 1)]
    return await asyncio.gather(*made)


def _asked(call: Call, id_: str, place: Place, trace: str) -> dict[str, Any]:
    """The call as a line of the protocol."""
    asked: dict[str, Any] = {
        "id": id_,
        "target": place.nobody if call.target == "nobody" else place.target,
        "method": call.method,
        "metadata": {**call.metadata, HEADER: traceparent(trace)},
        "client": call.client,
        "wait_for_limit": call.wait_for_limit,
    }
    if call.request_base64 is None:
        asked["request"] = expanded(call.request)
    if not call.retries:
        asked["retries"] = False
    for field in ("request_base64", "timeout", "cancel_after", "close_after", "read_after"):
        if (value := getattr(call, field)) is not None:
            asked[field] = value
    return asked


def _judged(call: Call, reported: dict[str, Any], took: float, place: str) -> Iterator[str]:
    if "error" in reported:
        yield f"{place}: the program can't do it: {reported['error']}"
        return
    try:
        result = Result.model_validate(reported)
    except ValidationError as error:
        yield from (
            f"{place}: the result's {'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()
        )
        return
    expect = call.expect
    yield from differences(expect.code, result.code, f"{place}: code")
    if result.seconds > took:
        yield f"{place}: seconds: the program says {result.seconds}, and answered after {took}"
    if expect.says("message") or expect.code == "OK":
        yield from differences(expect.message or "", result.message, f"{place}: message")
    yield from _judged_details(call, result, f"{place}: details")
    yield from _judged_progress(call, result, f"{place}: progress")
    yield from _judged_response(call, result, place)
    given = {name: values[0] if len(values) == 1 else values for name, values in result.metadata.items()}
    yield from differences(expect.metadata, given, f"{place}: metadata")
    if expect.says("outcome"):
        outcome = ABSENT if result.outcome is None else result.outcome
        yield from differences(expect.outcome, outcome, f"{place}: outcome")
    if expect.says("seconds"):
        yield from differences(expect.seconds, result.seconds, f"{place}: seconds")


def _judged_details(call: Call, result: Result, place: str) -> Iterator[str]:
    expected: dict[str, Any] = dict(call.expect.details)
    if call.expect.reason:
        info = {"reason": REASON_PREFIX + call.expect.reason, "domain": DOMAIN}
        expected = {"ErrorInfo": info, "RequestInfo": CALL_ID} | expected
    found: dict[str, Any] = {}
    for detail in result.details:
        url = str(detail.get("@type"))
        name = url.removeprefix("type.googleapis.com/google.rpc.")
        if name in found:
            yield f"{place}.{name}: is there twice"
        try:
            # Forms of JSON that mean the same are made one.
            found[name] = json_format.MessageToDict(json_format.ParseDict(detail, PackedDetail()))
        except (json_format.ParseError, TypeError) as error:
            found[name] = detail
            if url != name:
                yield f"{place}.{name}: is no JSON of its type: {error}"
    yield from differences(expected, found, place)
    yield from (f"{place}.{name}: not expected: {shown(found[name])}" for name in found.keys() - expected.keys())


def _judged_progress(call: Call, result: Result, place: str) -> Iterator[str]:
    if (result.progress is None) == (call.method == STREAM):
        yield f"{place}: must be there exactly if the method is {STREAM}, and it is {call.method}"
        return
    try:
        # Forms of JSON that mean the same are made one.
        came = [json_format.MessageToDict(json_format.ParseDict(each, Progress())) for each in result.progress or ()]
    except json_format.ParseError as error:
        yield f"{place}: is no JSON of its type: {error}"
        return
    if call.expect.says("progress"):
        yield from differences(call.expect.progress, came, place)


def _judged_response(call: Call, result: Result, place: str) -> Iterator[str]:
    expect = call.expect
    if (result.response is None) == (result.code == "OK"):
        yield f"{place}: response: must be there exactly if the code is OK, which is {result.code}"
        return
    if result.response is None:
        return
    try:
        response = json_format.ParseDict(result.response, RESPONSES[call.method]())
    except json_format.ParseError as error:
        yield f"{place}: response: is no JSON of its type: {error}"
        return
    has_content = call.method in ("CallTool", STREAM) and response.HasField("structured_content")
    if has_content != ("native" in result.model_fields_set):
        yield f"{place}: native: must be there exactly if there is structured content"
    if expect.says("response"):
        # Forms of JSON that mean the same are made one.
        yield from differences(expect.response, json_format.MessageToDict(response), f"{place}: response")
    if expect.says("native"):
        native = result.native if "native" in result.model_fields_set else ABSENT
        yield from differences(expect.native, native, f"{place}: native")


async def _judged_arrivals(expected: Any, place: Place) -> list[str]:
    try:
        async with asyncio.timeout(END_SECONDS):
            await place.arrivals.when(lambda all_: all(each.ended is not None for each in all_), place.trace)
    except TimeoutError:
        return [f"arrivals: one hasn't ended after {END_SECONDS:g} seconds"]
    arrivals = place.arrivals.of(place.trace)
    if isinstance(expected, int):
        return [] if len(arrivals) == expected else [f"arrivals: expected {expected}, got {len(arrivals)}"]
    told = [arrival.shown(before) for before, arrival in zip([None, *arrivals], arrivals, strict=False)]
    return list(differences(expected, told, "arrivals"))
