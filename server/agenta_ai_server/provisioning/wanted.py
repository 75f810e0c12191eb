"""The wanted state: the shipped refine prompt, or a prompt that a tools file names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agenta_ai_server.agenta.management import Revision
from agenta_ai_server.tools.drift.comparison import differences
from agenta_ai_server.tools.drift.deployed import MESSAGES, read_deployed
from agenta_ai_server.tools.drift.inputs import read_inputs
from agenta_ai_server.tools.refine_prompt import prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agenta_ai_server.agenta.management import Deployment
    from agenta_ai_server.tools.tools_file.definition import ToolDefinition

MADE_BY = "agenta-ai-server provision: "
"""How the message of each commit and deployment begins that provision makes."""

REFINE_NAME = "AI refine"
REFINE_DESCRIPTION = "Refines prompts for the Agenta AI services. Made by agenta-ai-server provision."
URIS = {"completion": prompt.URI, "chat": "agenta:builtin:chat:v0"}
MAX_FORMAT_NAME = 64  # of OpenAI's structured outputs
_KEYS = frozenset({"input_keys", "llm_config", "messages", "model", "response_format", "template_format"})


class PromptFileError(ValueError):
    """A prompt file can't be deployed. The text is a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A prompt that is to be deployed.

    Attributes:
        application: Slug of the application that is to hold it.
        environment: Slug of the environment where it is to run.
        name: Name of a new application.
        description: Description of a new application.
        uri: The type of the application.
        parameters: The parameters of the application.
        label: What it is, for people: ``"refine prompt 3"``, ``"tools.acme.support.summarize"``.
        is_ours: Says whether provision made a revision, given what the environment has held of the application.
    """

    application: str
    environment: str
    name: str
    description: str
    uri: str
    parameters: Mapping[str, Any] = field(repr=False)
    label: str
    is_ours: Callable[[Revision, Sequence[Deployment]], bool] = field(repr=False)

    @property
    def message(self) -> str:
        """The message of its commits and deployments."""
        return f"{MADE_BY}{self.label}"


def refine_prompt(application: str, environment: str, model: str) -> Wanted:
    """Return the wanted state for the shipped refine prompt.

    Args:
        application: Slug of its application.
        environment: Slug of its environment.
        model: Name of its model in Agenta.
    """
    return Wanted(
        application=application,
        environment=environment,
        name=REFINE_NAME,
        description=REFINE_DESCRIPTION,
        uri=prompt.URI,
        parameters=prompt.parameters(model),
        label=f"refine prompt {prompt.version()}",
        is_ours=lambda revision, _: prompt.shipped_version(revision.parameters) is not None,
    )


def tool_prompt(tool: ToolDefinition, environment: str, model: str) -> Wanted:
    """Return the wanted state for the prompt of a tool.

    Args:
        tool: A tool with a prompt.
        environment: Slug of the environment if the tool names none.
        model: Name of the model if the prompt names none; empty for none.

    Raises:
        PromptFileError: The prompt is invalid, names no model, or doesn't fit the tool.
    """
    parameters = {"prompt": _prompt(tool, model)}
    uri = URIS[tool.kind]
    revision = Revision("", "", "", "", "", uri, parameters, frozenset())
    if found := differences(tool, read_deployed(revision)):
        raise PromptFileError(f"{_file(tool)} doesn't fit the tool. {' '.join(each.text for each in found)}")
    return Wanted(
        application=tool.application,
        environment=tool.environment or environment,
        name=tool.title,
        description=tool.description,
        uri=uri,
        parameters=parameters,
        label=tool.name,
        is_ours=_is_of_a_tool,
    )


def _is_of_a_tool(revision: Revision, history: Sequence[Deployment]) -> bool:
    # A new application's first revision has no message of its own.
    messages = [revision.message, *(each.message for each in history if each.revision_id == revision.id)]
    return any(message.startswith(f"{MADE_BY}tools.") for message in messages)


def _prompt(tool: ToolDefinition, model: str) -> dict[str, Any]:
    """Return the prompt as Agenta has it."""
    given: dict[str, Any] = dict(tool.prompt or {})
    if unknown := sorted(given.keys() - _KEYS):
        raise PromptFileError(
            f"{_file(tool)} has the unknown key {unknown[0]}. The keys are {', '.join(sorted(_KEYS))}."
        )
    messages = given.get("messages")
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        raise PromptFileError(f"{_file(tool)} needs [[messages]], each with role and content.")
    config = given.get("llm_config", {})
    if not isinstance(config, dict):
        raise PromptFileError(f"{_file(tool)} has an llm_config that isn't a table.")
    chosen = given.get("model") or config.get("model") or model
    if not chosen:
        raise PromptFileError(f"{_file(tool)} names no model. Add model, or give one with --model.")
    settings = {**config, "model": chosen}
    if format_ := given.get("response_format") or config.get("response_format") or _response_format(tool):
        settings["response_format"] = format_
    made: dict[str, Any] = {
        "messages": [message | {"content": _stripped(message["content"])} for message in messages],
        "template_format": given.get("template_format", "curly"),
    }
    try:
        inputs = read_inputs(made)
    except ValueError as error:
        raise PromptFileError(f"{_file(tool)} can't be rendered: {error}") from None
    keys = given.get("input_keys", [name for name in inputs.needed if tool.kind != "chat" or name != MESSAGES])
    return {**made, "input_keys": keys, "llm_config": settings}


def _is_message(message: object) -> bool:
    return isinstance(message, dict) and isinstance(message.get("role"), str) and "content" in message


def _stripped(content: Any) -> Any:
    return content.strip() if isinstance(content, str) else content


def _response_format(tool: ToolDefinition) -> dict[str, Any] | None:
    """Return the response format that enforces the tool's result schema."""
    if tool.result is None:
        return None
    name = tool.name.removeprefix("tools.").replace(".", "_")[-MAX_FORMAT_NAME:]
    schema = {"name": name, "strict": _is_strict(tool.result), "schema": tool.result}
    return {"type": "json_schema", "json_schema": schema}


def _is_strict(schema: Any) -> bool:
    """Whether providers take a schema as strict: each object requires all of its keys, and allows no others.

    https://platform.openai.com/docs/guides/structured-outputs has the rule.
    """
    if isinstance(schema, list):
        return all(map(_is_strict, schema))
    if not isinstance(schema, dict):
        return True
    if schema.get("type") == "object" or "properties" in schema:
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != set(properties):
            return False
    return all(_is_strict(each) for key, each in schema.items() if key not in ("const", "default", "enum", "examples"))


def _file(tool: ToolDefinition) -> str:
    return tool.prompt_file.name if tool.prompt_file else tool.name
