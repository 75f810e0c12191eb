"""The tool as the peers in Python have it: the same request to Agenta, and pydantic for all that is checked."""

from __future__ import annotations

import os
import re
from typing import Annotated, Literal

import httpx
from pydantic import BaseModel, Field, TypeAdapter

NAME = "tools.agenta.api.refine_prompt"
URL = f"{os.environ.get('UPSTREAM', '')}/services/completion/run"
HEADERS = {"authorization": "ApiKey standin-key"}
TIMEOUT = 120.0
# httpx keeps a hundred connections unless told otherwise, and more calls than that are in flight.
LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None)
VARIABLE = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}")


class Arguments(BaseModel):
    prompt_template_json: Annotated[str, Field(min_length=1, max_length=100_000)]
    guidelines: Annotated[str | None, Field(max_length=10_000)] = None
    context: Annotated[str | None, Field(max_length=10_000)] = None


class Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str


class Template(BaseModel, extra="allow"):
    messages: Annotated[list[Message], Field(min_length=1)]


class Refinement(BaseModel):
    messages: list[Message]
    summary: str


class Completion(BaseModel):
    data: str
    trace_id: str


class Refined(Refinement):
    prompt_template_json: str


class Text(BaseModel):
    type: Literal["text"] = "text"
    text: str


class Answer(BaseModel):
    content: list[Text]
    structuredContent: Refined | None = None  # noqa: N815
    isError: bool = False  # noqa: N815


TEMPLATE = TypeAdapter(Template)


async def refine(client: httpx.AsyncClient, arguments: Arguments) -> Answer:
    template = TEMPLATE.validate_json(arguments.prompt_template_json)
    inputs = {
        "__ag_prompt_template_json": Refinement(messages=template.messages, summary="").model_dump_json(),
        "__ag_guidelines": arguments.guidelines or "",
        "__ag_context": arguments.context or "",
    }
    response = await client.post(
        URL, headers=HEADERS, json={"inputs": inputs, "environment": "production", "app": "ai-refine"}
    )
    response.raise_for_status()
    written = Refinement.model_validate_json(Completion.model_validate_json(response.content).data)
    if [outline(message) for message in written.messages] != [outline(message) for message in template.messages]:
        return Answer(content=[Text(text="The refinement would break the prompt.")], isError=True)
    source = template.model_copy(update={"messages": written.messages}).model_dump_json()
    refined = Refined(messages=written.messages, summary=written.summary, prompt_template_json=source)
    return Answer(content=[Text(text=written.summary)], structuredContent=refined)


def outline(message: Message) -> tuple[str, set[str]]:
    """What must stay: the role and the variables."""
    return message.role, set(VARIABLE.findall(message.content))
