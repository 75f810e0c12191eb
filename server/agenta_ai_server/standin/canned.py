"""Prompts of any kind, and the stand-in's answers for their models."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agenta_ai_server.standin.instances import instance

if TYPE_CHECKING:
    from collections.abc import Mapping

MODEL = "gpt-4o-mini"
URIS = {"completion": "agenta:builtin:completion:v0", "chat": "agenta:builtin:chat:v0"}
MAX_CHARACTERS = 200
_SENTENCE = re.compile(r".+?[.!?](?=\s|$)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class CannedPrompt:
    """A prompt that is deployed in the stand-in.

    Attributes:
        application: Slug of its application.
        environment: Slug of the environment that it is deployed to.
        kind: ``"completion"`` or ``"chat"``.
        inputs: Names of its variables.
        result: JSON Schema of what it answers; ``None`` for text.
        examples: Inputs and what is answered to them; inputs that it doesn't name may be any.
        parameters: As Agenta would have them; ``None`` to make some up.
        description: What the application says of itself; empty for nothing.
    """

    application: str
    environment: str
    kind: str
    inputs: tuple[str, ...]
    result: Mapping[str, Any] | None = None
    examples: tuple[tuple[Mapping[str, Any], str], ...] = ()
    parameters: Mapping[str, Any] | None = None
    description: str = ""

    @property
    def data(self) -> dict[str, Any]:
        """What a revision of its application holds."""
        return {"uri": URIS[self.kind], "parameters": dict(self.parameters or self._made_up())}

    def _made_up(self) -> dict[str, Any]:
        texts = "\n\n".join(f"{name}: {{{{{name}}}}}" for name in self.inputs)
        config: dict[str, Any] = {"model": MODEL}
        if self.result is not None:
            schema = {"name": "result", "schema": dict(self.result)}
            config["response_format"] = {"type": "json_schema", "json_schema": schema}
        messages = [{"role": "system" if self.kind == "chat" else "user", "content": texts or "Answer."}]
        return {
            "prompt": {
                "messages": messages,
                "template_format": "curly",
                "input_keys": list(self.inputs),
                "llm_config": config,
            }
        }

    def example(self, inputs: Mapping[str, Any]) -> str | None:
        """Return what is answered to these inputs; ``None`` if no example has them."""
        for given, answer in self.examples:
            if all(inputs.get(name) == value for name, value in given.items()):
                return answer
        return None


def answer(parameters: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
    """Return what the model of any prompt writes: an instance of its schema, or the first sentence of its input."""
    config = parameters.get("prompt", {}).get("llm_config") or {}
    response_format = config.get("response_format") or {}
    schema = (response_format.get("json_schema") or {}).get("schema")
    if schema is not None:
        return json.dumps(instance(schema), ensure_ascii=False)
    text = max((value for value in inputs.values() if isinstance(value, str)), key=len, default="")
    sentence = _SENTENCE.match(text.strip())
    return f"Offline stand-in, no model was called: {(sentence[0] if sentence else text)[:MAX_CHARACTERS]}"
