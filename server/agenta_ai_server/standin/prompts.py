"""Agenta's checks of a deployed prompt and its inputs before it asks the model."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from agenta_ai_server.standin import answers
from agenta_ai_server.standin.refine import refine

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from agenta_ai_server.standin.answers import CannedResponse

TEMPLATE, GUIDELINES, CONTEXT = "__ag_prompt_template_json", "__ag_guidelines", "__ag_context"
MODEL = "gpt-4o-mini"
PARAMETERS: dict[str, Any] = {
    "prompt": {
        "messages": [
            {"role": "system", "content": "Refine the prompt template by the guidelines. Answer with JSON."},
            {"role": "user", "content": f"{{{{{GUIDELINES}}}}}\n{{{{{CONTEXT}}}}}\n{{{{{TEMPLATE}}}}}"},
        ],
        "template_format": "curly",
        "input_keys": [TEMPLATE, GUIDELINES, CONTEXT],
        "llm_config": {"model": MODEL, "response_format": {"type": "json_object"}},
    }
}
"""A prompt that takes what refine_prompt sends."""

# All formats but fstring: a name in two or three braces.
_DOUBLE = re.compile(r"\{\{\{?\s*([^{}]+?)\s*\}?\}\}")
_SINGLE = re.compile(r"(?<!\{)\{([A-Za-z_]\w*)\}(?!\})")


def refusal(
    parameters: Mapping[str, Any], given: Collection[str], models: Collection[str] | None = None
) -> CannedResponse | None:
    """Return why Agenta doesn't ask the model; ``None`` if it does.

    Args:
        parameters: The deployed ones.
        given: Names of the inputs that have a value.
        models: The models that there is a credential for; ``None`` for any.
    """
    prompt = parameters.get("prompt")
    if not isinstance(prompt, dict) or not isinstance(prompt.get("messages"), list):
        return answers.missing_prompt()
    keys = prompt.get("input_keys")
    if keys is not None and not set(given) >= set(keys):
        return answers.missing_inputs(sorted(keys), sorted(given))
    if prompt.get("template_format", "curly") == "curly":
        for index, message in enumerate(prompt["messages"]):
            if missing := sorted(set(_DOUBLE.findall(str(message.get("content")))).difference(given)):
                return answers.unreplaced(index, missing)
    model = (prompt.get("llm_config") or {}).get("model", MODEL)
    return None if models is None or model in models else answers.no_model_credential(model)


def written(parameters: Mapping[str, Any], inputs: Mapping[str, object], guidelines: str) -> str:
    """Return what the model writes: it knows only the inputs that the prompt's texts name."""
    prompt = parameters["prompt"]
    names = _SINGLE if prompt.get("template_format") == "fstring" else _DOUBLE
    used = set(names.findall(json.dumps([message["content"] for message in prompt["messages"]])))
    template = str(inputs[TEMPLATE]) if TEMPLATE in used else ""
    context = str(inputs.get(CONTEXT) or "") if CONTEXT in used else ""
    return refine(template, guidelines if GUIDELINES in used else "", context)
