"""The tool: its arguments, its result, and how it is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agenta_ai_server.agenta.completion_service import DeployedPrompt
from agenta_ai_server.domain.outcome import ToolOutcome
from agenta_ai_server.domain.tool import Hints, ToolSpec
from agenta_ai_server.tools.refine_prompt import NAME
from agenta_ai_server.tools.refine_prompt.refiner import Refiner
from agenta_ai_server.tools.validation import input_schema, output_schema, validated

if TYPE_CHECKING:
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.domain.values import Json
    from agenta_ai_server.tools.catalog import Dependencies
    from agenta_ai_server.tools.refine_prompt.refiner import Refinement
    from agenta_ai_server.tools.repairs import ValidAnswer

DESCRIPTION = (
    "Rewrites the texts of a prompt template so that a model follows them better, according to the given "
    "guidelines. The number, order and roles of the messages, and everything that isn't text, stay the same."
)
NEEDS = (
    "AGENTA_AI_SERVICES_API_KEY",
    "AGENTA_AI_SERVICES_API_URL",
    "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG",
    "AGENTA_AI_SERVICES_REFINE_PROMPT_KEY",
)


TemplateJson = Annotated[
    str,
    Field(
        min_length=1,
        max_length=100_000,
        description="The whole prompt template as JSON: an object with 'messages', and optionally "
        "'template_format', 'input_keys', 'llm_config' and other keys.",
    ),
]


class RefinePromptArguments(BaseModel):
    """What to refine, and how."""

    model_config = ConfigDict(extra="forbid", title="RefinePromptArguments")

    prompt_template_json: TemplateJson
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
        Field(description="The refined text, or the original content if nothing was refined."),
    ]


class RefinePromptResult(BaseModel):
    """The refined prompt."""

    model_config = ConfigDict(extra="forbid", title="RefinePromptResult")

    messages: Annotated[
        list[RefinedMessage],
        Field(min_length=1, description="The messages, with their number, order and roles unchanged."),
    ]
    summary: Annotated[str, Field(min_length=1, description="What was changed, in one line.")]
    prompt_template_json: Annotated[
        str, Field(min_length=1, description="The whole template as JSON, with the refined texts in place.")
    ]


def provide(dependencies: Dependencies) -> ToolSpec:
    """Make the tool."""
    refiner = Refiner(
        dependencies.completions,
        DeployedPrompt(dependencies.apps["refine_prompt"]),
        repairs=dependencies.repairs,
        guarantee=dependencies.guarantee,
        computing=dependencies.computing,
    )

    async def refine(arguments: RefinePromptArguments, call: ToolCall) -> ToolOutcome:
        prompt = await refiner.read(arguments.prompt_template_json, call)
        return _result(await refiner.refine(prompt, arguments.guidelines or "", arguments.context or "", call))

    return ToolSpec(
        name=NAME,
        title="Refine a prompt",
        description=DESCRIPTION,
        permission="edit_workflows",
        input_schema=input_schema(RefinePromptArguments),
        output_schema=output_schema(RefinePromptResult),
        run=validated(RefinePromptArguments, RefinePromptResult, refine),
        # It changes nothing by itself: what becomes of the refinement is up to the caller.
        hints=Hints(read_only=True, destructive=False, idempotent=False, open_world=True),
        needs=NEEDS,
    )


def _result(valid: ValidAnswer[Refinement]) -> ToolOutcome:
    refinement = valid.answer
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
        attempts=valid.attempts,
        repaired=valid.repaired,
    )
