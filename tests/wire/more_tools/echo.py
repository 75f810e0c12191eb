"""A second, trivial tool: all that it takes to add one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from agenta_ai_server.domain.outcome import ToolOutcome
from agenta_ai_server.domain.tool import ToolSpec
from agenta_ai_server.tools.validation import input_schema, output_schema, validated

if TYPE_CHECKING:
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.tools.catalog import Dependencies

NAME = "tools.tests.api.echo"


class EchoArguments(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str
    times: int = Field(default=1, ge=1, le=10)


class EchoResult(BaseModel):
    text: str


async def echo(arguments: EchoArguments, _: ToolCall) -> ToolOutcome:
    text = arguments.text * arguments.times
    return ToolOutcome(text, structured={"text": text})


def provide(_: Dependencies) -> ToolSpec:
    return ToolSpec(
        name=NAME,
        title="Echo",
        description="Returns the text that it gets.",
        permission="view",
        input_schema=input_schema(EchoArguments),
        output_schema=output_schema(EchoResult),
        run=validated(EchoArguments, EchoResult, echo),
    )
