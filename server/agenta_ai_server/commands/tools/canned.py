"""The prompts of a tools file in the stand-in, which answers by the file's examples."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from agenta_ai_server.standin.canned import CannedPrompt
from agenta_ai_server.tools.prompt_tool import MESSAGES, inputs_of, with_defaults

if TYPE_CHECKING:
    from agenta_ai_server.tools.tools_file.definition import ToolDefinition


def canned_prompt(definition: ToolDefinition, environment: str = "production") -> CannedPrompt:
    """Return the prompt of a tool, as the stand-in needs it.

    Args:
        definition: The tool.
        environment: Slug of the environment if the tool names none.
    """
    names = [*inputs_of(definition, {}), *([definition.feedback] if definition.feedback else [])]
    examples = []
    for example in definition.examples:
        inputs = inputs_of(definition, with_defaults(definition, example.arguments))
        if example.result is not None:
            answer = example.result if definition.result is None else json.dumps(example.result, ensure_ascii=False)
            examples.append((inputs, str(answer)))
    return CannedPrompt(
        application=definition.application,
        environment=definition.environment or environment,
        kind=definition.kind,
        inputs=tuple(name for name in names if not (definition.kind == "chat" and name == MESSAGES)),
        result=definition.result,
        examples=tuple(examples),
    )
