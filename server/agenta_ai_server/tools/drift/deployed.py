"""The inputs and the result of a deployed prompt, as far as Agenta describes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from agenta_ai_server.tools.drift.inputs import PromptInputs, UnknownFormat, read_inputs
from agenta_ai_server.tools.refine_prompt.formats.syntax import TemplateSyntaxError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenta_ai_server.agenta.management import Revision

MESSAGES = "messages"
"""The input of a chat application that holds the conversation so far."""

JSON_OBJECT: Final[Mapping[str, Any]] = {"type": "object"}
"""The schema of an answer that is JSON by Agenta's ``json_object``, and has no schema of its own."""


Kind: TypeAlias = Literal["completion", "chat", "other"]
"""The type of an application: other ones hold no prompt, and can't be tools."""


@dataclass(frozen=True, slots=True)
class PromptInterface:
    """The inputs and the result of a deployed prompt.

    Attributes:
        version: The version of the application, ``"2"``.
        kind: Its type.
        uri: The type by Agenta's own name, ``"agenta:builtin:completion:v0"``; empty if it has none.
        inputs: Names of the inputs that a run must have: those that it declares in their order, then the others.
        possible: Names that may be inputs, and may also be items of one.
        structured: Inputs that are objects or lists, as far as the texts show.
        input_schemas: JSON Schemas of inputs, by name, where the prompt's author has given some.
        result: JSON Schema of the answer; ``None`` if it is text.
        fault: Why Agenta can't run it, in a sentence; empty if nothing is known to be wrong.
    """

    version: str
    kind: Kind
    uri: str = ""
    inputs: tuple[str, ...] = ()
    possible: frozenset[str] = frozenset()
    structured: frozenset[str] = frozenset()
    input_schemas: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] | None = None
    fault: str = ""


def read_deployed(revision: Revision) -> PromptInterface:
    """Return the inputs and the result of a revision."""
    schemas = _object(revision.schemas, "inputs")
    prompt = _object(revision.parameters, "prompt")
    if not isinstance(prompt.get("messages"), list):
        return PromptInterface(revision.version, "other", revision.uri)
    kind: Kind = "chat" if "is_chat" in revision.flags or ":chat:" in revision.uri else "completion"
    found, fault = PromptInputs((), frozenset()), ""
    try:
        found = read_inputs(prompt)
    except UnknownFormat as error:
        fault = str(error)
    except TemplateSyntaxError as error:
        fault = f"One of its texts can't be rendered: {error}."
    messages = (MESSAGES,) if kind == "chat" and MESSAGES not in found.needed else ()
    return PromptInterface(
        version=revision.version,
        kind=kind,
        uri=revision.uri,
        inputs=(*found.needed, *messages),
        possible=found.possible,
        structured=found.structured,
        input_schemas=_object(schemas, "properties"),
        result=_result(prompt, _object(revision.schemas, "outputs")),
        fault=fault,
    )


def _result(prompt: Mapping[str, Any], outputs: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the schema that the model is held to, or else the one that the prompt's author declared."""
    chosen = _object(_object(prompt, "llm_config"), "response_format")
    match chosen.get("type"):
        case "json_schema":
            return _object(_object(chosen, "json_schema"), "schema")
        case "json_object":
            return JSON_OBJECT
    # Agenta's own schema of a chat's message has a mark; that of a completion's text allows every type.
    return outputs if outputs.get("type") == "object" and "x-ag-type-ref" not in outputs else None


def _object(found: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = found.get(name)
    return value if isinstance(value, dict) else {}
