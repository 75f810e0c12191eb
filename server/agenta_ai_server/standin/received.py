"""A request to the stand-in."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

RUN_PATH = "/services/completion/run"
INVOKE_PATH = "/services/completion/v0/invoke"
CHAT_RUN_PATH = "/services/chat/run"
CHAT_INVOKE_PATH = "/services/chat/v0/invoke"
INVOKE_PATHS = (INVOKE_PATH, CHAT_INVOKE_PATH)
CHAT_PATHS = (CHAT_RUN_PATH, CHAT_INVOKE_PATH)
RUN_PATHS = (RUN_PATH, CHAT_RUN_PATH, *INVOKE_PATHS)


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came: its path with the query, its headers, in lower case and without the key, and its body."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def run(self) -> Any:
        """What is run, in the form of the older route, whichever it came by; ``None`` if it isn't JSON."""
        return content_of(self.path, self.body)

    @property
    def inputs(self) -> dict[str, Any]:
        """The variables of the prompt that is run; empty if there are none."""
        inputs = self.run.get("inputs") if isinstance(self.run, dict) else None
        return inputs if isinstance(inputs, dict) else {}


def content_of(path: str, body: bytes) -> Any:
    """The body as the older route has it."""
    content = parsed(body)
    if not isinstance(content, dict):
        return content
    if not path.startswith(INVOKE_PATHS):
        # The older route of chat applications has the messages beside the other inputs.
        messages = {"messages": content["messages"]} if "messages" in content else {}
        return {**content, "inputs": {**content["inputs"], **messages}} if messages else content
    data, references = content.get("data") or {}, content.get("references") or {}
    if "parameters" in data:
        return {"inputs": data.get("inputs"), "parameters": data["parameters"]}
    slugs = {
        "app": (references.get("application") or {}).get("slug"),
        "environment": (references.get("environment") or {}).get("slug"),
    }
    return {"inputs": data.get("inputs"), **{name: slug for name, slug in slugs.items() if slug is not None}}


def parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
