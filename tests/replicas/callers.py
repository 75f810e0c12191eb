"""Callers in each language, by the client that is shipped for it, which repeat a call until they know how it ended."""

from __future__ import annotations

import asyncio
import fcntl
import json
import random
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from uuid import uuid4

import grpc
from calls import REFINE, TEMPLATE
from conformance.clients import ROOT, clients
from conformance.program import Program

from agenta_ai import CallFailed, Client, ToolFailed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

RESULT, AGAIN = "result", ""
RETRIED = {grpc.StatusCode.UNAVAILABLE.name, grpc.StatusCode.DEADLINE_EXCEEDED.name}
# What a program takes besides its call, on a machine that is busy.
SLACK_SECONDS = 5.0
START_SECONDS = 120.0


class Caller(Protocol):
    """One caller, who makes one call after the other."""

    async def call(self, request_id: str) -> str:
        """Make a call, and return ``RESULT``, the reason why there is none, or ``AGAIN`` if it may be repeated."""


Callers: TypeAlias = "Callable[[Sequence[str], float], AbstractAsyncContextManager[Caller]]"


class ByPython:
    """Calls by the Python client, in this process."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def call(self, request_id: str) -> str:
        try:
            await self._client.refine_prompt(TEMPLATE, context=request_id, request_id=request_id)
        except ToolFailed as failure:
            return AGAIN if failure.retryable else failure.reason
        except CallFailed as failure:
            return AGAIN if failure.code.name in RETRIED else f"{failure.code.name} {failure.reason}"
        return RESULT


@asynccontextmanager
async def by_python(addresses: Sequence[str], timeout: float) -> AsyncIterator[Caller]:
    async with Client(f"ipv4:{','.join(addresses)}", timeout=timeout) as client:
        yield ByPython(client)


class ByProgram:
    """Calls by the conformance program of a language, at one of the addresses each time."""

    def __init__(self, program: Program, addresses: Sequence[str], timeout: float) -> None:
        self._program = program
        self._addresses = addresses
        self._timeout = timeout

    async def call(self, request_id: str) -> str:
        arguments = {"prompt_template_json": json.dumps(TEMPLATE), "context": request_id}
        asked = {
            "id": request_id,
            "target": random.choice(self._addresses),
            "method": "CallTool",
            "request": {"name": REFINE, "arguments": arguments, "requestId": request_id},
            "timeout": self._timeout,
            "client": "shipped",
        }
        return _outcome(await self._program.ask(asked, self._timeout + SLACK_SECONDS))


def _outcome(reported: dict[str, Any]) -> str:
    code = reported.get("code")
    if code in RETRIED:
        return AGAIN
    if code != "OK":
        return json.dumps(reported)
    error = reported["response"].get("error", {})
    if not reported["response"].get("isError"):
        return RESULT
    return AGAIN if error.get("retryable") else str(error["reason"]).removeprefix("ERROR_REASON_")


def build(language: str, folder: Path) -> list[str]:
    """Build the program of a language once, and return the command that runs it.

    Args:
        language: One of tests/conformance/clients.toml.
        folder: Shared by all that may build the program at the same time.
    """
    client = clients()[language]
    with (folder / f"{language}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (is_built := folder / f"{language}.built").exists():
            fault = client.make()
            assert not fault, fault
            is_built.touch()
    return client.command


def by_program(language: str, folder: Path) -> Callers:
    """Make callers of the client of a language; see :func:`build`."""
    command = build(language, folder)

    @asynccontextmanager
    async def callers(addresses: Sequence[str], timeout: float) -> AsyncIterator[Caller]:
        program = await Program(command, ROOT).start()
        try:
            # Starting takes a while, and isn't part of the first call.
            asked = {"id": "", "target": addresses[0], "method": "Status", "request": {}, "client": "bare"}
            await program.ask(asked, START_SECONDS)
            yield ByProgram(program, addresses, timeout)
        finally:
            await program.kill()

    return callers


class Load:
    """Callers at the same time, each of whom makes calls until there have been enough.

    Args:
        callers: Makes them.
        addresses: Of the replicas.
        ids: How many calls there are to be, each with an id of its own.
        timeout: Seconds until the deadline of one attempt.
        patience: Seconds within which a caller repeats a call, whose process may be starting again.

    Attributes:
        outcomes: How many calls ended in each way.
        repeats: How many attempts there were besides the first ones.
    """

    def __init__(
        self, callers: Callers, addresses: Sequence[str], ids: int, *, timeout: float = 20, patience: float = 120
    ) -> None:
        self.outcomes: Counter[str] = Counter()
        self.repeats = 0
        self._callers = callers
        self._addresses = addresses
        self._left = ids
        self._timeout = timeout
        self._patience = patience

    async def run(self, at_once: int) -> None:
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            for _ in range(at_once):
                caller = await stack.enter_async_context(self._callers(self._addresses, self._timeout))
                group.create_task(self._call_in_turn(caller))

    async def _call_in_turn(self, caller: Caller) -> None:
        while self._left > 0:
            self._left -= 1
            self.outcomes[await self._outcome(caller, str(uuid4()))] += 1

    async def _outcome(self, caller: Caller, request_id: str) -> str:
        first = time.monotonic()
        while True:
            began = time.monotonic()
            outcome = await caller.call(request_id)
            ended = time.monotonic()
            assert ended - began < self._timeout + SLACK_SECONDS
            if outcome != AGAIN:
                return outcome
            if ended - first >= self._patience:
                return "unfinished"
            self.repeats += 1
            await asyncio.sleep(random.uniform(0.1, 0.5))
