"""The prompt that refines prompts: as it is shipped, what it takes, and how to recognize it."""

from __future__ import annotations

import hashlib
import json
import tomllib
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

URI: Final = "agenta:builtin:completion:v0"
"""Agenta's name for the type of application that holds the prompt: a completion application."""

TEMPLATE: Final = "__ag_prompt_template_json"
GUIDELINES: Final = "__ag_guidelines"
CONTEXT: Final = "__ag_context"
INPUTS: Final = (TEMPLATE, GUIDELINES, CONTEXT)
"""The inputs that the service sends with every run."""

DIGESTS: Final = ("6b97f8b72c99ab5d1e689be1fc29e71d",)
"""Digests of all versions that were ever shipped, the first of version 1."""


def _shipped() -> dict[str, Any]:
    text = resources.files(__package__).joinpath("prompt.toml").read_text("utf-8")
    return tomllib.loads(text)


def version() -> int:
    """Return the version of the shipped prompt, from 1."""
    number: int = _shipped()["version"]
    return number


def parameters(model: str) -> dict[str, Any]:
    """Return the shipped prompt as the parameters of an application in Agenta.

    Args:
        model: The model's name in Agenta, ``"gpt-4o-mini"``.
    """
    shipped = _shipped()
    return {
        "prompt": {
            "messages": [message | {"content": message["content"].strip()} for message in shipped["messages"]],
            "template_format": shipped["template_format"],
            "input_keys": list(shipped["input_keys"]),
            "llm_config": {"model": model, "response_format": shipped["response_format"]},
        }
    }


def shipped_version(deployed: Mapping[str, Any]) -> int | None:
    """Return which shipped version these parameters are, whatever their model; ``None`` if they are another prompt."""
    found = digest(deployed)
    return DIGESTS.index(found) + 1 if found in DIGESTS else None


def model_of(deployed: Mapping[str, Any]) -> str:
    """Return the model that these parameters name; empty if they name none."""
    prompt = deployed.get("prompt")
    config = prompt.get("llm_config") if isinstance(prompt, dict) else None
    model = config.get("model") if isinstance(config, dict) else None
    return model if isinstance(model, str) else ""


def digest(deployed: Mapping[str, Any]) -> str:
    """Return the digest of the parameters without their model, in hexadecimal digits."""
    prompt = deployed.get("prompt")
    config = prompt.get("llm_config") if isinstance(prompt, dict) else None
    if isinstance(prompt, dict) and isinstance(config, dict):
        rest = {name: value for name, value in config.items() if name != "model"}
        deployed = {**deployed, "prompt": {**prompt, "llm_config": rest}}
    canonical = json.dumps(deployed, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]
