"""A tool without code of its own: a deployed prompt and two schemas, as a tools file defines it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agenta_ai_server.agenta.completion_service import DeployedPrompt
from agenta_ai_server.domain.errors import Reason, Violation, invalid_fields
from agenta_ai_server.domain.outcome import ToolOutcome
from agenta_ai_server.domain.tool import JSON_SCHEMA, ToolSpec
from agenta_ai_server.domain.values import MAX_VALUES
from agenta_ai_server.tools import model_json
from agenta_ai_server.tools.json_schema.values import WHOLE
from agenta_ai_server.tools.repairs import AnswerInvalid, RepairableTask, run_with_repairs
from agenta_ai_server.tools.strict_json import TooManyValues

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from agenta_ai_server.agenta.completion_service import Completion, CompletionService
    from agenta_ai_server.domain.pace import Pace
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.domain.values import Attempt, Json
    from agenta_ai_server.tools.tools_file.definition import ToolDefinition

NEEDS = ("AGENTA_AI_SERVICES_API_KEY", "AGENTA_AI_SERVICES_API_URL")
NEEDS_ENVIRONMENT = "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG"
MESSAGES = "messages"
# The result of a tool without a schema for it.
TEXT_RESULT: dict[str, Json] = {
    "$schema": JSON_SCHEMA,
    "type": "object",
    "additionalProperties": False,
    "required": ["text"],
    "properties": {"text": {"type": "string", "description": "The answer."}},
}
# It is sent twice, as content and as the structured result, and clients read 4 MiB by default.
MAX_ANSWER_CHARACTERS = 400_000
# From here on checking an answer takes more than some milliseconds.
LONG_CHARACTERS = 1 << 16
REPAIR = (
    "Your last answer was discarded. Answer again, with nothing but JSON that is valid by the schema that was given. "
    "What was wrong:"
)


class PromptTool:
    """Runs a deployed prompt with checked arguments, and checks its answer.

    Args:
        definition: What the tools file says of it.
        completions: Runs the prompt.
        pace: Paces checking long answers; ``None``: not paced.
    """

    def __init__(self, definition: ToolDefinition, completions: CompletionService, pace: Pace | None = None) -> None:
        self._definition = definition
        self._completions = completions
        self._pace = pace
        self._prompt = DeployedPrompt(definition.application, definition.environment, definition.kind)

    async def run(self, call: ToolCall) -> ToolOutcome:
        """Run the prompt.

        Raises:
            Refused: ARGUMENTS_INVALID, before anything was sent; DEADLINE_TOO_SHORT; UPSTREAM_CIRCUIT_OPEN.
            ToolFailed: No completion came, or none that the result's schema allows.
        """
        arguments = with_defaults(self._definition, call.arguments)
        if violations := self._definition.checks.arguments.violations(arguments, "arguments"):
            raise invalid_fields(Reason.ARGUMENTS_INVALID, *violations)
        inputs = inputs_of(self._definition, arguments)

        async def complete(violations: Sequence[Violation]) -> Completion:
            return await self._completions.complete(self._prompt, {**inputs, **self._feedback(violations)}, call)

        async def parse(text: str, _: Sequence[Attempt]) -> ToolOutcome:
            steps = self._parsing(text)
            if self._pace and len(text) > LONG_CHARACTERS:
                return await self._pace.run(call.caller.key, steps)
            return _result_of(steps)

        task = RepairableTask(
            complete=complete,
            parse=parse,
            asking_text="Asking Agenta for an answer.",
            checking_text="Checking the answer.",
            failure_text=_failure_text,
        )
        valid = await run_with_repairs(task, call, self._definition.repairs)
        return ToolOutcome(valid.answer.text, valid.answer.structured, attempts=valid.attempts, repaired=valid.repaired)

    def _feedback(self, violations: Sequence[Violation]) -> dict[str, Json]:
        if not self._definition.feedback:
            return {}
        found = "\n".join(f"- {violation.field}: {violation.description}" for violation in violations)
        return {self._definition.feedback: f"{REPAIR}\n{found}" if violations else ""}

    def _parsing(self, text: str) -> Generator[None, None, ToolOutcome]:
        """Return what the model wrote as a success, in steps: parse it, check it, write it.

        Raises:
            AnswerInvalid: It breaks the schema of the result, or is too long.
        """
        if len(text) > MAX_ANSWER_CHARACTERS:
            raise AnswerInvalid([Violation(WHOLE, f"Must have at most {MAX_ANSWER_CHARACTERS} characters.")])
        schema = self._definition.checks.result
        if schema is None:
            return ToolOutcome(text, structured={"text": text})
        value = _parsed(text)
        yield
        if violations := schema.violations(value, ""):
            raise AnswerInvalid(violations)
        yield
        return ToolOutcome(_as_json(value), structured=value)


def spec(definition: ToolDefinition, completions: CompletionService, pace: Pace | None = None) -> ToolSpec:
    """Return the tool of a definition. The arguments are those of :class:`PromptTool`."""
    return ToolSpec(
        name=definition.name,
        title=definition.title,
        description=definition.description,
        permission=definition.permission,
        input_schema={"$schema": JSON_SCHEMA, **definition.arguments},
        output_schema=TEXT_RESULT if definition.result is None else {"$schema": JSON_SCHEMA, **definition.result},
        run=PromptTool(definition, completions, pace).run,
        hints=definition.hints,
        needs=NEEDS if definition.environment else (*NEEDS, NEEDS_ENVIRONMENT),
        max_seconds=definition.timeout_seconds,
    )


def with_defaults(definition: ToolDefinition, arguments: Mapping[str, Json]) -> dict[str, Json]:
    """Return the arguments, and the defaults of those that are missing."""
    defaults = {name: each["default"] for name, each in _properties(definition).items() if _has_default(each)}
    return {**defaults, **arguments}


def inputs_of(definition: ToolDefinition, arguments: Mapping[str, Json]) -> dict[str, Json]:
    """Return what the prompt is run with: the arguments, as Agenta's own callers send them.

    Agenta writes a value that isn't a text as JSON where a prompt shows it, and a template can go through a list. An
    argument that is missing or null becomes an empty text, because Agenta refuses a run in which a variable of the
    prompt has no value, and drops nulls on its older route.
    """
    inputs: dict[str, Json] = dict.fromkeys(_properties(definition), "")
    inputs |= {name: "" if value is None else value for name, value in arguments.items()}
    if definition.kind == "chat":
        inputs[MESSAGES] = arguments.get(MESSAGES, [])
    return inputs


def _properties(definition: ToolDefinition) -> dict[str, Any]:
    properties = definition.arguments.get("properties")
    return properties if isinstance(properties, dict) else {}


def _has_default(schema: Mapping[str, Json] | bool) -> bool:
    return isinstance(schema, dict) and "default" in schema


def _result_of(steps: Generator[None, None, ToolOutcome]) -> ToolOutcome:
    """Return what the steps return, without a pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            outcome: ToolOutcome = end.value
            return outcome


def _as_json(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _parsed(text: str) -> Json:
    try:
        return model_json.parse(text, exact=False)
    except TooManyValues:
        raise AnswerInvalid([Violation(WHOLE, f"Must have at most {MAX_VALUES:,} values.")]) from None
    except ValueError:
        raise AnswerInvalid([Violation(WHOLE, "Must be JSON, and nothing else.")]) from None


def _failure_text(broken: Violation) -> str:
    description = broken.description.rstrip(".")
    return (
        f"The model's answer breaks the schema of this tool's result, and was discarded: {broken.field}: {description}."
    )
