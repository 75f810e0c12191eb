"""A client program that lies, breaks the protocol or breaks down, as its argument says: to test the runner."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import conformance.python_client

if TYPE_CHECKING:
    from collections.abc import Callable

Line = dict[str, Any]


def changed(**fields: Any) -> Callable[[Line], Line]:
    return lambda result: {**result, **fields}


def without(field: str) -> Callable[[Line], Line]:
    return lambda result: {name: value for name, value in result.items() if name != field}


def with_details(change: Callable[[list[Line]], list[Line]]) -> Callable[[Line], Line]:
    return lambda result: {**result, "details": change(result["details"])}


def only_if_not_ok(change: Callable[[Line], Line]) -> Callable[[Line], Line]:
    return lambda result: result if result["code"] == "OK" else change(result)


def only_if_ok(change: Callable[[Line], Line]) -> Callable[[Line], Line]:
    return lambda result: change(result) if result["code"] == "OK" else result


INFO = "type.googleapis.com/google.rpc.ErrorInfo"
LIES: dict[str, Callable[[Line], Line]] = {
    "nothing": lambda result: result,
    "code": changed(code="UNKNOWN"),
    "message": changed(message="All is well."),
    "no-details": changed(details=[]),
    "a-detail-less": with_details(lambda details: details[1:]),
    "a-detail-more": with_details(lambda details: [*details, {"@type": INFO.replace("ErrorInfo", "Help")}]),
    "a-detail-twice": with_details(lambda details: [*details, *details]),
    "a-detail-of-no-type": with_details(lambda details: [*details[1:], {"@type": INFO, "reasons": 7}]),
    "another-reason": only_if_not_ok(
        with_details(lambda details: [{"@type": INFO, "reason": "X", "domain": "agenta.ai"}, *details[1:]])
    ),
    "response": only_if_ok(changed(response={"isError": True})),
    "response-that-is-none": only_if_ok(changed(response={"is_wrong": True})),
    "no-response": only_if_ok(without("response")),
    "native": only_if_ok(changed(native={"summary": 1})),
    "no-native": only_if_ok(without("native")),
    "no-metadata": changed(metadata={}),
    "seconds": changed(seconds=1000.0),
    "no-seconds": without("seconds"),
    "outcome": only_if_not_ok(changed(outcome={"not_run": False, "request_id": "", "sentence": "No."})),
    "no-outcome": without("outcome"),
    "progress": changed(progress=[{"stage": "PROGRESS_STAGE_QUEUED", "text": "Later."}]),
    "progress-that-is-none": changed(progress=[{"mood": "good"}]),
    "no-progress": without("progress"),
    "more-fields": changed(mood="good"),
    "error": changed(error="I can't."),
    "id": changed(id="another"),
}


def garbage(_: Line) -> None:
    print("{", flush=True)


def dies(_: Line) -> None:
    print("I feel unwell.", file=sys.stderr, flush=True)
    sys.exit(9)


def hangs(_: Line) -> None:
    time.sleep(600)


def twice(asked: Line) -> None:
    conformance.python_client.run(asked)
    answer(asked, LIES["nothing"])


def answer(asked: Line, lie: Callable[[Line], Line]) -> None:
    print(json.dumps(lie({"id": asked["id"], **conformance.python_client.run(asked)})), flush=True)


BREAKDOWNS = {"garbage": garbage, "dies": dies, "hangs": hangs, "calls-twice": twice}


def main(what: str) -> None:
    if what == "talks-first":
        print("Hello.", flush=True)
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        if what in BREAKDOWNS:
            BREAKDOWNS[what](asked)
        else:
            answer(asked, LIES.get(what, LIES["nothing"]))
    if what == "talks-last":
        print("Goodbye.", flush=True)
    if what == "ends-badly":
        sys.exit(3)


if __name__ == "__main__":
    main(sys.argv[1])
