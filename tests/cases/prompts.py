"""A prompt, its cases, and a model that answers in this process: the stand-in's, with a clock and faults."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calls import WITH_CASES, request, tool_call

from agenta_ai_server.agenta.completion_service import Completion, InlinePrompt
from agenta_ai_server.concurrency.limiter import ConcurrencyLimiter
from agenta_ai_server.domain.values import Attempt
from agenta_ai_server.standin import model
from agenta_ai_server.standin.refine import refine
from agenta_ai_server.tools.cases.spending import Spending
from agenta_ai_server.tools.catalog import Dependencies
from agenta_ai_server.tools.computing import Computing
from agenta_ai_server.tools.refine_prompt.guarantee import Guarantee
from agenta_ai_server.tools.refine_prompt.prompt import CONTEXT, GUIDELINES, TEMPLATE
from agenta_ai_server.tools.workers.pool import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agenta_ai.v1 import tool_service_pb2
    from agenta_ai_server.agenta.completion_service import AnyPrompt
    from agenta_ai_server.domain.outcome import ToolOutcome
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.domain.values import Json

EXAMPLES = Path(__file__).parents[2] / "examples/cases"
PROMPT = (EXAMPLES / "sort_messages.json").read_text()
CASES: list[dict[str, Any]] = [json.loads(line) for line in (EXAMPLES / "sort_messages.jsonl").read_text().splitlines()]
# Answered by "The topic is billing." at first, and by "billing" once it is told to use one word.
SENTENCE = {"name": "sentence", "inputs": {"message": "A refund!"}, "expected": {"contains_all": ["The topic"]}}
ONE_WORD = {
    "name": "one word",
    "inputs": {"message": "A refund!"},
    "expected": {"equals": "billing"},
    "remark": "Answer with one word.",
}
HOPELESS = {"name": "hopeless", "inputs": {"message": "A refund!"}, "expected": {"equals": "shipping"}}


def arguments(cases: list[dict[str, Any]] | None = None, prompt: str = PROMPT, **others: Any) -> dict[str, Any]:
    return {"prompt_template_json": prompt, "cases": CASES if cases is None else cases, **others}


def asked(
    cases: list[dict[str, Any]] | None = None, prompt: str = PROMPT, request_id: str = "", **others: Any
) -> tool_service_pb2.CallToolRequest:
    return request(arguments(cases, prompt, **others), name=WITH_CASES, request_id=request_id)


class Model:
    """Completions by the stand-in's rules.

    Args:
        run_seconds: What each run of a case takes.
        refine_seconds: What each refinement takes.
        disturb: Is called before each answer, with the prompt, the inputs and how many answers there were; may raise.
    """

    def __init__(
        self,
        run_seconds: float = 1.0,
        refine_seconds: float = 5.0,
        disturb: Callable[[AnyPrompt, Mapping[str, Any], int], None] = lambda *_: None,
    ) -> None:
        self.run_seconds = run_seconds
        self.refine_seconds = refine_seconds
        self.disturb = disturb
        self.contexts: list[str] = []
        self.answers = self.running = self.peak = 0

    async def complete(self, prompt: AnyPrompt, inputs: Mapping[str, Json], call: ToolCall) -> Completion:
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            seconds = self.run_seconds if isinstance(prompt, InlinePrompt) else self.refine_seconds
            await asyncio.sleep(seconds)
            self.disturb(prompt, inputs, self.answers)
            self.answers += 1
            if isinstance(prompt, InlinePrompt):
                text = model.answer(prompt.parameters, inputs)
            else:
                self.contexts.append(str(inputs[CONTEXT]))
                text = refine(str(inputs[TEMPLATE]), str(inputs[GUIDELINES]), str(inputs[CONTEXT]))
            return Completion(text, Attempt(f"{self.answers:032x}", seconds))
        finally:
            self.running -= 1


async def outcome_of(
    completions: Model,
    given: dict[str, Any],
    *,
    deadline: float = 1e9,
    limiter: ConcurrencyLimiter | None = None,
    spending: Spending | None = None,
    computing: Computing | None = None,
) -> ToolOutcome:
    """Run the tool without a service."""
    from agenta_ai_server.tools.cases import provide

    apps = {"refine_prompt": "ai-refine"}
    computing, workers = computing or Computing(), Workers()
    of = Dependencies(
        completions,
        apps,
        limiter or ConcurrencyLimiter(),
        Guarantee(computing, workers),
        computing,
        workers,
        spending or Spending(("gpt-4o-mini",)),
    )
    try:
        return await provide(of).run(tool_call(WITH_CASES, given, deadline=deadline))
    finally:
        await workers.aclose()
