"""Exit codes, and failures in the words of the command line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from agenta_ai.cli import streams

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agenta_ai import AgentaError

OK, TOOL_FAILED, USAGE, NOT_ALLOWED, LIMITED, UNAVAILABLE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 4, 5, 130, 141
# Of ``--check``.
WOULD_CHANGE = 1
# Of ``--cases``.
NOT_IMPROVED = 1

_OF_STATUS = {
    "INVALID_ARGUMENT": USAGE,
    "NOT_FOUND": USAGE,
    "UNAUTHENTICATED": NOT_ALLOWED,
    "PERMISSION_DENIED": NOT_ALLOWED,
}
# How the client's sentences name its arguments.
_OPTIONS = {
    "pass tls=True": "pass --tls",
    "choose plaintext": "pass --plaintext",
    "trust its authority": "trust its authority with --ca",
    "set rerun_if_outcome_unknown": "pass --rerun-if-outcome-unknown",
}
# Options of "refine" by the arguments of its tools.
_REFINE_OPTIONS = {
    "guidelines": "--guidelines",
    "context": "--context",
    "max_rounds": "--rounds",
    "repeat": "--repeat",
    "pass_at_least": "--pass-at-least",
    "max_model_calls": "--max-calls",
}
# Not within a longer path: an input may have any name.
_ARGUMENT = re.compile(rf"(?<![\w.])arguments\.({'|'.join(_REFINE_OPTIONS)})(?![\w\[])")
_CASE = re.compile(r"(?<![\w.])arguments\.cases\[(\d+)\](\.?)")
_TOOL_FAILURE = ("reason", "message", "retryable", "retry_delay", "field_violations", "meta", "request_id", "call_id")
_CALL_FAILURE = ("reason", "message", "field_violations", "retry_delay", "request_id", "call_id", "tool_was_run")


def exit_code(failure: AgentaError) -> int:
    """Return the exit code for a failure."""
    from agenta_ai import CallFailed, InvalidInput, ToolFailed

    if isinstance(failure, ToolFailed):
        return TOOL_FAILED
    if isinstance(failure, InvalidInput):
        return USAGE
    if isinstance(failure, CallFailed) and failure.reason == "RATE_LIMITED":
        return LIMITED  # the status alone may also mean that a message is too large
    return _OF_STATUS.get(failure.code.name, UNAVAILABLE) if isinstance(failure, CallFailed) else UNAVAILABLE


def as_options(sentence: str) -> str:
    """Return a sentence about the arguments of ``refine``, with its options in place of them."""
    sentence = _CASE.sub(lambda found: f"case {int(found[1]) + 1} of --cases{', ' if found[2] else ''}", sentence)
    return _ARGUMENT.sub(lambda found: _REFINE_OPTIONS[found[1]], sentence)


def complain(failure: object, code: int) -> int:
    """Write a line to standard error, and return the exit code."""
    streams.note(f"agenta-ai: {' '.join(str(failure).split())}")
    return code


def in_words(failure: AgentaError, given: str, names: Mapping[str, str]) -> str:
    """Return the sentence for a failure, with the client's arguments renamed to those of the command line.

    Args:
        failure: What was raised.
        given: The variable, option or target with the credential; empty if there was none.
        names: Names of the command line by the client's arguments.
    """
    from agenta_ai import CallFailed, InvalidInput

    argument, colon, complaint = str(failure).partition(":")
    sentence = names.get(argument, argument) + colon + complaint
    if isinstance(failure, InvalidInput):
        return sentence
    if isinstance(failure, CallFailed) and failure.code.name == "UNAUTHENTICATED":
        if not given:
            return "The server requires credentials. Set AGENTA_AI_API_KEY, or use a target that has them."
        return f"The server does not accept {given} (or no longer does). Set a valid one."
    if failure.request_id:
        for words in ("send it again with request_id", "Use request_id"):
            sentence = sentence.replace(
                f"{words} {failure.request_id}", f"{_again(words)} --request-id {failure.request_id}"
            )
    for words, option in _OPTIONS.items():
        sentence = sentence.replace(words, option)
    return sentence


def _again(words: str) -> str:
    return "run the command again with" if words.startswith("send") else "Use"


def as_json(failure: AgentaError) -> dict[str, Any] | None:
    """Return the JSON that scripts get instead of a result; ``None`` if there was no response."""
    from agenta_ai import CallFailed, ToolFailed

    if isinstance(failure, ToolFailed):
        return _attributes(failure, _TOOL_FAILURE)
    if isinstance(failure, CallFailed):
        return {"code": failure.code.name, **_attributes(failure, _CALL_FAILURE)}
    return None


def _attributes(failure: AgentaError, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(failure, name) for name in names}
