"""The vectors, played with the Python client; and what they must cover. The other clients: make conformance."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from conformance.clients import clients
from conformance.report import failures
from conformance.runner import run
from conformance.scripted import CODES
from conformance.vectors import load

from agenta_ai.v1 import error_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

VECTORS, SERVERS = load()
THEMES = sorted({vector.theme for vector in VECTORS})


@pytest.mark.parametrize("theme", THEMES)
async def test_python(theme: str) -> None:
    python = clients()["python"]
    vectors = [vector for vector in VECTORS if vector.theme == theme]
    playable = python.playable(vectors)
    outcomes = await run(python.command, playable, SERVERS, programs=2) if playable else []
    assert len(outcomes) == len(playable)
    assert not failures({"python": outcomes})


def expected() -> Iterator[Any]:
    for vector in VECTORS:
        for call in vector.calls:
            yield call.expect


def test_every_reason_has_a_vector() -> None:
    reasons = set(error_pb2.ErrorReason.keys()) - {"ERROR_REASON_UNSPECIFIED"}
    answered = json.dumps([each.response for each in expected()])
    refused = {f"ERROR_REASON_{each.reason}" for each in expected()}
    assert not {reason for reason in reasons - refused if f'"{reason}"' not in answered}


def test_every_code_has_a_vector() -> None:
    assert {each.code for each in expected()} == {code.name for code in CODES.values()}


def test_a_timer_may_fire_a_little_early() -> None:
    for vector in VECTORS:
        for call in vector.calls:
            took: Any = call.expect.seconds or {"$between": [0, 0]}
            least = took["$between"][0]
            assert least not in (call.timeout, call.cancel_after, call.close_after), vector.name


def test_every_client_has_a_program() -> None:
    assert {"python", "go"} <= clients().keys()
