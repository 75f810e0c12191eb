"""The tool: its arguments, its result, and the way from one to the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agenta_ai_server.domain.errors import Reason, Refused, ToolFailed, Violation
from agenta_ai_server.domain.results import ToolResult
from agenta_ai_server.tools.refine_prompt import answer, guarantee, strict_json, template
from agenta_ai_server.tools.registry import Dependencies, Hints, Tool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenta_ai_server.domain.call import Call
    from agenta_ai_server.domain.results import Attempt, Json
    from agenta_ai_server.tools.refine_prompt.template import Template
    from agenta_ai_server.upstream.completion import Completion, CompletionService

NAME = "tools.agenta.api.refine_prompt"
DESCRIPTION = (
    "Rewrites the texts of a prompt template so that a model follows them better, by the guidelines given. "
    "The number of messages, their roles and order, and everything that is not text come back as they were."
)
# A larger answer would come near the 4 MiB that clients read by default.
MAX_REFINED_CHARACTERS = 200_000


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
        str, Field(max_length=10_000, description="What the refinement should achieve, in plain words.")
    ] = ""
    context: Annotated[
        str, Field(max_length=10_000, description="What the prompt is for: its users, its data, its answers.")
    ] = ""


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
        app: Slug of the application that holds it.
    """

    def __init__(self, completions: CompletionService, app: str) -> None:
        self._completions = completions
        self._app = app

    async def run(self, arguments: RefinePromptArguments, call: Call) -> ToolResult:
        """Refine one prompt.

        Raises:
            Refused: ARGUMENTS_INVALID, for a template that can't be refined; DEADLINE_TOO_SHORT.
            ToolFailed: No completion came, or one that would break the prompt.
        """
        prompt = _parsed(arguments.prompt_template_json)
        inputs = {
            "__ag_prompt_template_json": prompt.for_upstream(),
            "__ag_guidelines": arguments.guidelines,
            "__ag_context": arguments.context,
        }
        completion = await self._completions.complete(self._app, inputs, deadline=call.deadline)
        return _result(prompt, completion)


def provide(dependencies: Dependencies) -> Tool[RefinePromptArguments]:
    """Make the tool."""
    return Tool(
        name=NAME,
        title="Refine a prompt",
        description=DESCRIPTION,
        permission="edit_workflows",
        arguments=RefinePromptArguments,
        result=RefinePromptResult,
        run=RefinePrompt(dependencies.completions, dependencies.apps["refine_prompt"]).run,
        # It changes nothing by itself: what becomes of the refinement is up to the caller.
        hints=Hints(read_only=True, destructive=False, idempotent=False, open_world=True),
    )


def _parsed(source: str) -> Template:
    try:
        return template.parse(source)
    except template.TemplateError as error:
        field = "arguments.prompt_template_json"
        violation = Violation(field, str(error))
        raise Refused(Reason.ARGUMENTS_INVALID, f"{field}: {error}", violations=[violation]) from None


def _result(prompt: Template, completion: Completion) -> ToolResult:
    try:
        refined = answer.parse(completion.text)
    except answer.AnswerError as error:
        raise _unusable([error.violation], completion.attempt) from None
    if broken := guarantee.violations(prompt.texts, refined.messages):
        raise _unusable(broken, completion.attempt)
    root = prompt.with_texts([str(content) for _, content in refined.messages])
    source = strict_json.dump(root)
    if len(source) > MAX_REFINED_CHARACTERS:
        too_long = Violation("messages", f"The refinement has more than {MAX_REFINED_CHARACTERS:,} characters.")
        raise _unusable([too_long], completion.attempt)
    messages: list[Json] = [
        {"role": message["role"], "content": message.get("content")} for message in root["messages"]
    ]
    return ToolResult(
        text=refined.summary,
        structured={"messages": messages, "summary": refined.summary, "prompt_template_json": source},
        attempts=(completion.attempt,),
    )


def _unusable(violations: Sequence[Violation], attempt: Attempt) -> ToolFailed:
    return ToolFailed(
        Reason.UPSTREAM_OUTPUT_INVALID,
        f"{violations[0].description} It was discarded; the prompt is unchanged.",
        violations=violations,
        attempts=[attempt],
    )
