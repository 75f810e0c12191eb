"""The tool: its arguments, its result, and the way from one to the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agenta_ai_server.agenta.completion import DeployedPrompt
from agenta_ai_server.domain.errors import Reason, Refused, ToolFailed, Violation
from agenta_ai_server.domain.outcome import ToolOutcome
from agenta_ai_server.domain.record import record
from agenta_ai_server.domain.tool import Hints, ToolSpec
from agenta_ai_server.tools import strict_json
from agenta_ai_server.tools.asking import AnswerInvalid, Asked, Question, as_list, ask
from agenta_ai_server.tools.refine_prompt import answer, template
from agenta_ai_server.tools.refine_prompt.guarantee import Guarantee, WorkerFailed, computed
from agenta_ai_server.tools.refine_prompt.prompt import CONTEXT, GUIDELINES, TEMPLATE
from agenta_ai_server.tools.validation import input_schema, output_schema, validated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenta_ai_server.agenta.completion import Completion, CompletionService
    from agenta_ai_server.domain.tool import ToolCall
    from agenta_ai_server.domain.values import Attempt, Json
    from agenta_ai_server.tools.catalog import Dependencies
    from agenta_ai_server.tools.refine_prompt.answer import ModelReply
    from agenta_ai_server.tools.refine_prompt.template import Template

NAME = "tools.agenta.api.refine_prompt"
DESCRIPTION = (
    "Rewrites the texts of a prompt template so that a model follows them better, by the guidelines given. "
    "The number of messages, their roles and order, and everything that is not text come back as they were."
)
NEEDS = (
    "AGENTA_AI_SERVICES_API_KEY",
    "AGENTA_AI_SERVICES_API_URL",
    "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG",
    "AGENTA_AI_SERVICES_REFINE_PROMPT_KEY",
)
NO_CHANGE = "No change."
REPAIR = (
    "Your last answer would have broken the prompt and was discarded. Answer again: JSON as before, as many messages "
    "as were given, with the same roles in the same order, and with exactly the variables that were given, written in "
    "the same way. What was wrong:"
)
UNCHECKED = "no process could be started to render it, or it was killed"


class RefinePromptArguments(BaseModel):
    """What to refine, and how."""

    model_config = ConfigDict(extra="forbid", title="RefinePromptArguments")

    prompt_template_json: Annotated[
        str,
        Field(
            min_length=1,
            max_length=100_000,
            description="The whole prompt template as JSON: an object with 'messages', and optionally "
            "'template_format', 'input_keys', 'llm_config' and whatever else belongs to it.",
        ),
    ]
    guidelines: Annotated[
        str | None, Field(max_length=10_000, description="What the refinement should achieve, in plain words.")
    ] = None
    context: Annotated[
        str | None, Field(max_length=10_000, description="What the prompt is for: its users, its data, its answers.")
    ] = None


class RefinedMessage(BaseModel):
    """One message of the template, in its place."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Annotated[
        str | list[dict[str, Any]] | None,
        Field(description="The refined text, or the message's own content where nothing was refined."),
    ]


class RefinePromptResult(BaseModel):
    """The refined prompt."""

    model_config = ConfigDict(extra="forbid", title="RefinePromptResult")

    messages: Annotated[
        list[RefinedMessage], Field(min_length=1, description="As many as were given, with their roles and order.")
    ]
    summary: Annotated[str, Field(min_length=1, description="One line on what was changed.")]
    prompt_template_json: Annotated[
        str, Field(min_length=1, description="The whole template as JSON, with the refined texts put back.")
    ]


class RefinePrompt:
    """Refines prompts by a prompt that is deployed in Agenta.

    Args:
        completions: Runs that prompt.
        prompt: Which one.
        repairs: How often the model is asked again if its answer would break the prompt, at least 0.
        guarantee: Checks prompts and answers.
    """

    def __init__(
        self, completions: CompletionService, prompt: DeployedPrompt, *, repairs: int, guarantee: Guarantee
    ) -> None:
        self._guarantee = guarantee
        self._completions = completions
        self._prompt = prompt
        self._repairs = repairs

    async def run(self, arguments: RefinePromptArguments, call: ToolCall) -> ToolOutcome:
        """Refine one prompt.

        Raises:
            Refused: ARGUMENTS_INVALID, for a template that can't be refined; DEADLINE_TOO_SHORT; OVERLOADED, if no
                process can be had to render it.
            ToolFailed: No completion came, or none that keeps the prompt whole.
        """
        prompt = await self._template(arguments.prompt_template_json, call)

        async def run(violations: Sequence[Violation]) -> Completion:
            guidelines = arguments.guidelines or ""
            return await self._ask(prompt, _guidelines_of_repair(guidelines, violations), arguments, call)

        async def read(text: str, attempts: Sequence[Attempt]) -> _Refinement:
            return await self._refinement(text, prompt, call, attempts)

        question = Question(
            ask=run,
            read=read,
            asking="Asking Agenta for a refinement.",
            checking="Checking that the refinement keeps the prompt whole.",
            failure=lambda broken: f"{broken.description.rstrip('.')}, and was discarded; the prompt is unchanged.",
        )
        return _result(await ask(question, call, self._repairs))

    async def _template(self, source: str, call: ToolCall) -> Template:
        """Read the template, and check that it can be rendered."""
        try:
            prompt = await computed(_parsed, len(source), source)
            await self._guarantee.check(prompt, _key(call))
        except template.TemplateError as error:
            field = "arguments.prompt_template_json"
            violation = Violation(field, str(error))
            raise Refused(Reason.ARGUMENTS_INVALID, f"{field}: {error}", violations=[violation]) from None
        except WorkerFailed:
            message = f"The template can't be checked: {UNCHECKED}. Nothing was sent to the model. Retry later."
            raise Refused(Reason.OVERLOADED, message, retry_delay=1.0) from None
        return prompt

    async def _refinement(
        self, text: str, prompt: Template, call: ToolCall, attempts: Sequence[Attempt]
    ) -> _Refinement:
        """Read what the model wrote, and check it against every rule.

        Raises:
            AnswerInvalid: It breaks one.
        """
        try:
            refined = await computed(answer.parse, len(text), text)
            broken = await self._guarantee.violations(prompt, refined.messages, _key(call))
        except answer.AnswerError as error:
            raise AnswerInvalid([error.violation]) from None
        except WorkerFailed:
            message = f"The refinement can't be checked: {UNCHECKED}. It was discarded; the prompt is unchanged."
            raise ToolFailed(Reason.UPSTREAM_OUTPUT_INVALID, message, attempts=attempts) from None
        if broken:
            raise AnswerInvalid(broken)
        return await computed(_restored, len(text), refined, prompt)

    async def _ask(
        self, prompt: Template, guidelines: str, arguments: RefinePromptArguments, call: ToolCall
    ) -> Completion:
        inputs = {
            TEMPLATE: prompt.for_upstream(),
            GUIDELINES: guidelines,
            CONTEXT: arguments.context or "",
        }
        return await self._completions.complete(self._prompt, inputs, call)


def provide(dependencies: Dependencies) -> ToolSpec:
    """Make the tool."""
    guarantee = Guarantee()
    dependencies.on_close(guarantee.aclose)
    prompt = DeployedPrompt(dependencies.apps["refine_prompt"])
    refine = RefinePrompt(dependencies.completions, prompt, repairs=dependencies.repairs, guarantee=guarantee)
    return ToolSpec(
        name=NAME,
        title="Refine a prompt",
        description=DESCRIPTION,
        permission="edit_workflows",
        input_schema=input_schema(RefinePromptArguments),
        output_schema=output_schema(RefinePromptResult),
        run=validated(RefinePromptArguments, RefinePromptResult, refine.run),
        # It changes nothing by itself: what becomes of the refinement is up to the caller.
        hints=Hints(read_only=True, destructive=False, idempotent=False, open_world=True),
        needs=NEEDS,
    )


def _key(call: ToolCall) -> str:
    """Return whose templates are rendered one after the other."""
    return f"{call.caller.organization}/{call.caller.project}/{call.caller.user}"


def _parsed(source: str) -> Template:
    return template.parse(source)


@record
class _Refinement:
    """The whole template, refined."""

    root: dict[str, Any]
    source: str
    summary: str


def _restored(refined: ModelReply, prompt: Template) -> _Refinement:
    """Put the refined texts into the template."""
    root = prompt.with_texts([str(content) for _, content in refined.messages])
    summary = NO_CHANGE if root == prompt.root else refined.summary
    return _Refinement(root, strict_json.dump(root), summary)


def _guidelines_of_repair(guidelines: str, violations: Sequence[Violation]) -> str:
    return f"{guidelines}\n\n{REPAIR}\n{as_list(violations)}".strip() if violations else guidelines


def _result(asked: Asked[_Refinement]) -> ToolOutcome:
    refinement = asked.answer
    messages: list[Json] = [
        {"role": message["role"], "content": message.get("content")} for message in refinement.root["messages"]
    ]
    return ToolOutcome(
        text=refinement.summary,
        structured={
            "messages": messages,
            "summary": refinement.summary,
            "prompt_template_json": refinement.source,
        },
        attempts=asked.attempts,
        repaired=asked.repaired,
    )
