"""The real server, with something between it and Agenta that breaks each connection in each way."""

from __future__ import annotations

import asyncio
import random
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest
from calls import TEMPLATE, details, reason
from faults import proxy as faults
from faults.suite import BREAKER, DEADLINE, RETRIES, RETRY_UNSAFE, served

from agenta_ai_server.standin.app import in_turn
from agenta_ai_server.standin.faults import Fault as StandInFault

if TYPE_CHECKING:
    from pathlib import Path

    import trustme
    from faults.proxy import Fault, Proxy

    from agenta_ai.v1.tool_service_pb2 import CallToolResponse
    from agenta_ai_server.standin.app import StandIn

BROKEN = ("UPSTREAM_BROKEN", False)
TIMEOUT = ("UPSTREAM_TIMEOUT", False)
UNUSABLE = ("UPSTREAM_OUTPUT_INVALID", False)
UNREACHABLE = ("UPSTREAM_UNREACHABLE", True)

# What happens, what the caller is told, and how many requests come through to Agenta.
FAULTS: dict[Fault, tuple[tuple[str, bool], int]] = {
    faults.reset_at_once: (BROKEN, 0),
    faults.close_at_once: (BROKEN, 0),
    faults.reset_within_the_request: (BROKEN, 0),
    faults.stall_within_the_request: (TIMEOUT, 0),
    faults.answer_within_the_request_and_stall: (TIMEOUT, 0),
    faults.never_answer: (TIMEOUT, 0),
    faults.reset_before_the_head: (BROKEN, 1),
    faults.reset_before_the_body: (BROKEN, 1),
    faults.reset_within_the_body: (BROKEN, 1),
    faults.stall_before_the_head: (TIMEOUT, 1),
    faults.stall_before_the_body: (TIMEOUT, 1),
    faults.stall_within_the_body: (TIMEOUT, 1),
    faults.drip: (TIMEOUT, 1),
    faults.drip_the_head: (TIMEOUT, 1),
    faults.huge: (UNUSABLE, 1),
    faults.huge_head: (BROKEN, 1),
    faults.many_headers: (BROKEN, 1),
    faults.length_too_short: (UNUSABLE, 1),
    faults.length_too_long_and_close: (BROKEN, 1),
    faults.length_too_long_and_stall: (TIMEOUT, 1),
    faults.length_of_nonsense: (BROKEN, 1),
    faults.garbage: (BROKEN, 0),
}
by_name = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
LONG = "x" * 9_000


def told(response: CallToolResponse) -> tuple[str, bool]:
    return reason(response), response.error.retryable


@by_name
@pytest.mark.parametrize("retries", ["0", "2"])
async def test_every_fault(
    fault: Fault, retries: str, proxy: Proxy, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.choose = lambda: fault
    async with served(proxy, standin, monkeypatch, **{RETRIES: retries}) as caller:
        response = await caller.call(guidelines=LONG, context=LONG)
    assert (told(response), standin.started) == FAULTS[fault], "none of these may be sent again"
    assert len(response.meta.attempts) == 1
