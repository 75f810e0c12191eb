"""What refining against test cases costs: model calls and time for each outcome, and what other callers notice of it.

The stand-in takes a second for each answer at first, and a tenth of a second beside others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop
from bench.rig import Rig, credentials, percentile, request, rig, sampled
from google.protobuf.json_format import MessageToDict, ParseDict

from agenta_ai.v1 import tool_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "tools.agenta.api.refine_prompt_with_cases"
EXAMPLES = Path(__file__).parents[1] / "examples/cases"
PROMPT = (EXAMPLES / "sort_messages.json").read_text()
CASES: list[Any] = [json.loads(line) for line in (EXAMPLES / "sort_messages.jsonl").read_text().splitlines()]
SENTENCE = {"inputs": {"message": "A refund!"}, "expected": {"contains_all": ["The topic"]}}
ONE_WORD = {
    "inputs": {"message": "A refund!"},
    "expected": {"equals": "billing"},
    "remark": "Answer with one word.",
}
HOPELESS = {"inputs": {"message": "A refund!"}, "expected": {"equals": "shipping"}}
OUTCOMES: dict[str, dict[str, Any]] = {
    "all 5 already pass": {"cases": CASES[:3] + CASES[:2]},
    "better in the first round, 5 cases": {"cases": CASES},
    "the same, each case run 3 times": {"cases": CASES, "repeat": 3, "max_model_calls": 60},
    "made worse in both rounds": {"cases": [SENTENCE, ONE_WORD, *CASES[:3]]},
    "nothing changed in both rounds": {"cases": [SENTENCE, HOPELESS, *CASES[:3]]},
    "broke the prompt in both rounds": {"cases": CASES, "guidelines": "standin: answer=fewer delay=1"},
}
# Twenty cases, five runs of each, three rounds: four hundred runs. Each output is as long as may be for its pattern,
# which is as costly as may be, and is checked by a schema and searched in JSON.
LONG = "a" * 9_900
LARGEST: dict[str, Any] = {
    "cases": [
        {
            "inputs": {"message": f"standin: text={LONG}\n{'x' * 20_000}"},
            "expected": {
                "pattern": "(a?){100}a{100}$" if number % 2 else "[ab]*b[ab]{200}$",
                "json_contains": [1],
                "json_schema": {"type": "array"},
            },
            "remark": f"Rule {number}.",
        }
        for number in range(20)
    ],
    "repeat": 5,
    "max_rounds": 3,
    "max_model_calls": 1000,
}
SETTINGS: dict[str, Any] = {
    "upstream_route": "auto",
    "cases_models": "gpt-4o-mini",
    "cases_max_tokens": 100_000_000,
    "limits": "off",
}
IN_FLIGHT = 16
TIMEOUT = 300.0


def asked(arguments: dict[str, Any]) -> pb.CallToolRequest:
    return ParseDict({"name": NAME, "arguments": {"prompt_template_json": PROMPT, **arguments}}, pb.CallToolRequest())


async def outcomes() -> None:
    print(f"{'outcome':<36}{'model calls':>12}{'seconds':>9}  result")
    async with rig("delay=1", **SETTINGS) as rigged, rigged.stubs(1) as (stub,):
        for name, arguments in OUTCOMES.items():
            began = time.perf_counter()
            metadata = credentials(rigged.keys[0])
            response = await stub.CallTool(asked(arguments), metadata=metadata, timeout=TIMEOUT)
            seconds = time.perf_counter() - began
            result: Any = MessageToDict(response.structured_content)
            rounds = ", ".join(each["end"] for each in result["rounds"])
            print(f"{name:<36}{result['model_calls']:>12.0f}{seconds:>9.1f}  {rounds or result['stopped']}", flush=True)


async def beside(callers: int, seconds: float, arguments: dict[str, Any]) -> None:
    """Measure refinements of others while so many callers make the largest request, one after the other."""
    async with rig("delay=0.1", organizations=2, **SETTINGS) as rigged:
        idle = rigged.server.resident
        used = rigged.server.cpu_seconds
        async with sampled(lambda: rigged.server.resident) as samples:
            times, done = await _others_beside(rigged, callers, seconds, arguments)
        used = rigged.server.cpu_seconds - used
        peak = max(resident for _, resident in samples) - idle
    p50, p99 = (percentile(times, percent) * 1000 for percent in (50, 99))
    print(
        f"{callers:>8}{done:>7}{len(times) / seconds:>10.0f}{p50:>9.1f}{p99:>9.1f}{used / seconds:>8.2f}{peak:>8.0f}",
        flush=True,
    )


async def _others_beside(
    rigged: Rig, callers: int, seconds: float, arguments: dict[str, Any]
) -> tuple[Sequence[float], int]:
    times: list[float] = []
    done = 0
    async with rigged.stubs(2) as (stub, heavy):

        async def refine() -> None:
            while True:
                began = time.perf_counter()
                await stub.CallTool(request(), metadata=credentials(rigged.keys[0]), timeout=TIMEOUT)
                times.append(time.perf_counter() - began)

        async def refine_with_cases() -> None:
            nonlocal done
            while True:
                metadata = credentials(rigged.keys[1])
                await heavy.CallTool(asked(arguments), metadata=metadata, timeout=TIMEOUT)
                done += 1

        tasks = [asyncio.create_task(refine_with_cases()) for _ in range(callers)]
        await asyncio.sleep(1)
        tasks += [asyncio.create_task(refine()) for _ in range(IN_FLIGHT)]
        await asyncio.sleep(0.5)
        times.clear()
        await asyncio.sleep(seconds)
        found = list(times)
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(ended, asyncio.CancelledError):
                raise SystemExit(f"a call failed: {ended}")
    return found, done


async def main(seconds: float) -> None:
    await outcomes()
    ordinary = {"cases": CASES}
    for what, arguments in (("the example", ordinary), ("the largest request", LARGEST)):
        print(f"\n{IN_FLIGHT} refinements in flight beside callers of {what}, {seconds:g} s")
        print(f"{'callers':>8}{'ended':>7}{'others/s':>10}{'p50, ms':>9}{'p99, ms':>9}{'cores':>8}{'MiB':>8}")
        for callers in (0, 1, 4):
            await beside(callers, seconds, arguments)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5, help="how long each is measured")
    uvloop.run(main(parser.parse_args().seconds))
