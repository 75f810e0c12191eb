"""Reads the model's answer as a refinement."""

from __future__ import annotations

import re

from agenta_ai_server.domain.errors import Violation
from agenta_ai_server.domain.record import record
from agenta_ai_server.tools import model_json
from agenta_ai_server.tools.strict_json import TooManyValues

# What could move the cursor of a terminal or turn the direction of a line.
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
MAX_SUMMARY_CHARACTERS = 500
NO_SUMMARY = "The prompt was refined."


class AnswerError(ValueError):
    """The model's text isn't a refinement.

    Attributes:
        violation: The rule that it breaks.
    """

    def __init__(self, field: str, description: str) -> None:
        super().__init__(description)
        self.violation = Violation(field, description)


@record
class ModelReply:
    """A refinement as the model gave it; whether it keeps the prompt whole is yet to be checked.

    Attributes:
        messages: Role and content of each message; a content may be anything that JSON has.
        summary: What was changed, in one line.
    """

    messages: tuple[tuple[object, object], ...]
    summary: str


def parse(text: str) -> ModelReply:
    """Read what the model wrote: JSON, bare or in a Markdown fence.

    Raises:
        AnswerError: It isn't a JSON object with a list of messages, or has too many values.
    """
    try:
        root = model_json.parse(text)
    except TooManyValues as error:
        raise AnswerError("answer", f"The model's answer {error}.") from None
    except ValueError:
        raise AnswerError("answer", "The model's answer isn't the requested JSON.") from None
    messages = root.get("messages") if isinstance(root, dict) else None
    if not isinstance(root, dict) or not isinstance(messages, list):
        raise AnswerError("messages", "The model's answer has no list of messages.")
    pairs = []
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            raise AnswerError(f"messages[{index}]", "The model's answer has a message that isn't an object.")
        pairs.append((message.get("role"), message.get("content")))
    return ModelReply(tuple(pairs), _one_line(root.get("summary")))


def _one_line(summary: object) -> str:
    line = " ".join(CONTROLS.sub(" ", summary).split()) if isinstance(summary, str) else ""
    if len(line) > MAX_SUMMARY_CHARACTERS:
        line = line[: MAX_SUMMARY_CHARACTERS - 1] + "…"
    return line or NO_SUMMARY
