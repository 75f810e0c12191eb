"""A second, trivial tool: all that it takes to add one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field

from agenta_ai_server.domain.outcome import ToolOutcome
from agenta_ai_server.tools.registry import Dependencies, Tool

if TYPE_CHECKING:
    from agenta_ai_server.domain.call import Call


class EchoArguments(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str
    times: int = Field(default=1, ge=1, le=10)


class EchoResult(BaseModel):
    text: str


async def echo(arguments: EchoArguments, _: Call) -> ToolOutcome:
    text = arguments.text * arguments.times
    return ToolOutcome(text=text, structured={"text": text})


def provide(_: Dependencies) -> Tool[EchoArguments]:
    return Tool(
        name="tools.tests.api.echo",
        title="Echo",
        description="Says what it is told.",
        permission="view",
        arguments=EchoArguments,
        result=EchoResult,
        run=echo,
    )
