"""Refines a template: runs the deployed prompt, and checks its answer against every rule of the guarantee."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from agenta_ai_server.domain.errors import Reason, Refused, ToolFailed, Violation, invalid_fields
from agenta_ai_server.domain.record import record
from agenta_ai_server.tools import strict_json
from agenta_ai_server.tools.refine_prompt import answer, template
from agenta_ai_server.tools.refine_prompt.formats import work
from agenta_ai_server.tools.refine_prompt.prompt import CONTEXT, GUIDELINES, TEMPLATE
from agenta_ai_server.tools.repairs import AnswerInvalid, RepairableTask, ValidAnswer, as_list, run_with_repairs
from agenta_ai_server.tools.workers.pool import FAILED, WorkerFailed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from agenta_ai_server.agenta.completion_service import Completion, CompletionService, DeployedPrompt
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.domain.values import Attempt
    from agenta_ai_server.tools.computing import Computing
    from agenta_ai_server.tools.refine_prompt.answer import ModelReply
    from agenta_ai_server.tools.refine_prompt.guarantee import Guarantee
    from agenta_ai_server.tools.refine_prompt.template import Template

NO_CHANGE = "No change."
REPAIR = (
    "Your last answer would have broken the prompt and was discarded. Answer again: JSON as before, as many messages "
    "as were given, with the same roles in the same order, and with exactly the variables that were given, written in "
    "the same way. What was wrong:"
)


@record
class Refinement:
    """A refined template.

    Attributes:
        root: The whole template, with the refined texts in it.
        source: The same as JSON.
        summary: What was changed, in one line.
    """

    root: dict[str, Any]
    source: str
    summary: str


class Refiner:
    """Refines templates with a prompt that is deployed in Agenta.

    Args:
        completions: Runs that prompt.
        deployed: That prompt.
        repairs: How often the model is asked again if its answer would break the prompt, at least 0.
        guarantee: Checks prompts and answers.
        computing: Reads them.
    """

    def __init__(
        self,
        completions: CompletionService,
        deployed: DeployedPrompt,
        *,
        repairs: int,
        guarantee: Guarantee,
        computing: Computing,
    ) -> None:
        self._guarantee = guarantee
        self._computing = computing
        self._completions = completions
        self._deployed = deployed
        self._repairs = repairs

    async def read(self, source: str, call: ToolCall) -> Template:
        """Read the argument ``prompt_template_json``, and check that it can be rendered.

        Raises:
            Refused: ARGUMENTS_INVALID, for a template that can't be refined; OVERLOADED, if no process can be had to
                render it.
        """
        try:
            prompt = await self.parse(source, call)
            await self._guarantee.check(prompt, call.caller.key)
        except template.TemplateError as error:
            wrong = Violation("arguments.prompt_template_json", str(error))
            raise invalid_fields(Reason.ARGUMENTS_INVALID, wrong) from None
        except WorkerFailed:
            message = f"The template can't be checked: {FAILED}. Nothing was sent to the model. Retry later."
            raise Refused(Reason.OVERLOADED, message, retry_delay=1.0) from None
        return prompt

    async def parse(self, source: str, call: ToolCall) -> Template:
        """Read a template.

        Raises:
            TemplateError: It can't be refined.
        """
        return await self._computing.run(call.caller.key, template.parse, work(source), source)

    async def refine(self, prompt: Template, guidelines: str, context: str, call: ToolCall) -> ValidAnswer[Refinement]:
        """Refine a template.

        Args:
            prompt: The template, as :meth:`read` returns it.
            guidelines: What the refinement should achieve; may be empty.
            context: What the prompt is for; may be empty.
            call: The call that it is for.

        Raises:
            Refused: DEADLINE_TOO_SHORT or UPSTREAM_CIRCUIT_OPEN, before anything was sent.
            ToolFailed: No completion came, or none that keeps the prompt whole.
        """

        def complete(violations: Sequence[Violation]) -> Awaitable[Completion]:
            inputs = {
                TEMPLATE: prompt.for_upstream(),
                GUIDELINES: _guidelines_of_repair(guidelines, violations),
                CONTEXT: context,
            }
            return self._completions.complete(self._deployed, inputs, call)

        task = RepairableTask(
            complete=complete,
            parse=partial(self._parse_answer, prompt, call),
            asking_text="Asking Agenta for a refinement.",
            checking_text="Checking that the refinement keeps the prompt whole.",
            failure_text=lambda broken: (
                f"{broken.description.rstrip('.')}, and was discarded; the prompt is unchanged."
            ),
        )
        return await run_with_repairs(task, call, self._repairs)

    async def _parse_answer(
        self, prompt: Template, call: ToolCall, text: str, attempts: Sequence[Attempt]
    ) -> Refinement:
        """Parse what the model wrote, and check it against every rule.

        Raises:
            AnswerInvalid: It breaks one.
        """
        key = call.caller.key
        try:
            refined = await self._computing.run(key, answer.parse, len(text), text)
            broken = await self._guarantee.violations(prompt, refined.messages, key)
        except answer.AnswerError as error:
            raise AnswerInvalid([error.violation]) from None
        except WorkerFailed:
            message = f"The refinement can't be checked: {FAILED}. It was discarded; the prompt is unchanged."
            raise ToolFailed(Reason.UPSTREAM_OUTPUT_INVALID, message, attempts=attempts) from None
        if broken:
            raise AnswerInvalid(broken)
        return await self._computing.run(key, _restored, len(text), refined, prompt)


def _restored(refined: ModelReply, prompt: Template) -> Refinement:
    """Put the refined texts into the template."""
    root = prompt.with_texts([str(content) for _, content in refined.messages])
    summary = NO_CHANGE if root == prompt.root else refined.summary
    return Refinement(root, strict_json.dump(root), summary)


def _guidelines_of_repair(guidelines: str, violations: Sequence[Violation]) -> str:
    return f"{guidelines}\n\n{REPAIR}\n{as_list(violations)}".strip() if violations else guidelines
