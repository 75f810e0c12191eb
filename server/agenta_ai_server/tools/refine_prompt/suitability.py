"""Checks whether a deployed prompt is suitable for refine_prompt: its faults, each with a remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agenta_ai_server.tools.drift.inputs import UnknownFormat, read_inputs
from agenta_ai_server.tools.refine_prompt.formats import DEFAULT, FORMATS
from agenta_ai_server.tools.refine_prompt.formats.syntax import TemplateSyntaxError
from agenta_ai_server.tools.refine_prompt.prompt import CONTEXT, GUIDELINES, INPUTS, TEMPLATE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

PROVISION = "Run agenta-ai-server provision --overwrite"
# Agenta runs nothing if a variable of these has no value.
STRICT_FORMATS = ("curly", "fstring")


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something that is wrong with the prompt.

    Attributes:
        text: What is so, in a sentence.
        remedy: What to do about it, in a sentence.
        is_fatal: Whether every call fails, or all of them are useless.
    """

    text: str
    remedy: str
    is_fatal: bool = True


def flaws(uri: str, flags: Collection[str], parameters: Mapping[str, Any]) -> list[Flaw]:
    """Return what is wrong with a revision, the worst first.

    Args:
        uri: The type of the application, ``"agenta:builtin:completion:v0"``; empty if unknown.
        flags: Agenta's names of the properties that the application has, such as ``"is_chat"``.
        parameters: Its parameters, the prompt under ``"prompt"``.
    """
    prompt = parameters.get("prompt")
    if not isinstance(prompt, dict) or not isinstance(prompt.get("messages"), list):
        kind = f"the type {uri}" if uri else "no type"
        return [
            Flaw(
                f"It holds no prompt: the application has {kind}.",
                "Deploy a completion application, which agenta-ai-server provision creates under another slug.",
            )
        ]
    found = [*_flaws_of_kind(uri, flags), *_flaws_of_inputs(prompt), *_flaws_of_answer(prompt)]
    return sorted(found, key=lambda flaw: not flaw.is_fatal)


def _flaws_of_kind(uri: str, flags: Collection[str]) -> Iterator[Flaw]:
    if "is_chat" in flags or ":chat:" in uri:
        yield Flaw(
            "It is a chat application, and the service runs it as a completion.",
            "Deploy a completion application, which agenta-ai-server provision creates under another slug.",
            is_fatal=False,
        )


def _flaws_of_inputs(prompt: Mapping[str, Any]) -> Iterator[Flaw]:
    name = prompt.get("template_format") or DEFAULT
    try:
        inputs = read_inputs(prompt)
    except UnknownFormat as error:
        yield Flaw(str(error), f"Choose one of {', '.join(FORMATS)} in Agenta.", False)
        return
    except TemplateSyntaxError as error:
        yield Flaw(f"One of its texts can't be rendered in the format {name}: {error}.", f"{PROVISION}, or correct it.")
        return
    used, required = inputs.used | inputs.possible, set(inputs.declared)
    others = sorted((required | inputs.used).difference(INPUTS))
    if others and (TEMPLATE not in used or required.difference(INPUTS)):
        yield Flaw(
            f"It expects inputs that the service doesn't send: {', '.join(others)}.",
            f"{PROVISION}, or give the prompt the inputs {', '.join(INPUTS)}.",
        )
    elif others:
        yield Flaw(
            f"Its own text has the variable {', '.join(others)}, which gets no value.",
            f"{PROVISION}, or describe variables in words: Agenta treats everything that looks like a variable as one.",
            is_fatal=name in STRICT_FORMATS,
        )
    elif TEMPLATE not in used:
        yield Flaw(
            f"It never shows the model the template to refine: no text uses {TEMPLATE}.",
            f"{PROVISION}, or put {TEMPLATE} into a message.",
        )
    elif ignored := " and ".join(each for each in (GUIDELINES, CONTEXT) if each not in used):
        yield Flaw(
            f"It ignores what callers ask for: no text uses {ignored}.",
            f"{PROVISION}, or put {ignored} into a message. Repairs need the guidelines, too.",
            is_fatal=False,
        )


def _flaws_of_answer(prompt: Mapping[str, Any]) -> Iterator[Flaw]:
    config = prompt.get("llm_config")
    chosen = config.get("response_format") if isinstance(config, dict) else None
    if not isinstance(chosen, dict) or chosen.get("type") not in ("json_schema", "json_object"):
        yield Flaw(
            "It has no response_format, so the model may answer with something other than JSON.",
            f"{PROVISION}, or set a JSON schema with messages and summary.",
            is_fatal=False,
        )
