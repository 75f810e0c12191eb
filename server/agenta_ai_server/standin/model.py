"""What the stand-in does in place of a model with a prompt that is sent along: it sorts messages by a few fixed rules.

It says what the last message of the prompt is about, and follows those instructions of the other messages that it
knows by their words. A prompt can so be made better, or worse, and always with the same outcome.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TOPICS = {
    "billing": ("bill", "charge", "invoice", "paid", "pay", "refund"),
    "account": ("account", "email", "log in", "login", "password"),
    "shipping": ("arrive", "deliver", "package", "parcel", "ship"),
}
_GUESS = "billing"
_OTHER = "other"
_TAG = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}")
_SINGLE_TAG = re.compile(r"(?<!\{)\{([A-Za-z_]\w*)\}(?!\})")
_MOST_WORDS = re.compile(r"at most (\d+) words?")


def answer(parameters: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
    """Return what the model writes.

    Args:
        parameters: The prompt, its messages not filled in.
        inputs: Values of its variables.
    """
    prompt = parameters["prompt"]
    tags = _SINGLE_TAG if prompt.get("template_format") == "fstring" else _TAG
    texts = [text for message in prompt["messages"] for text in _texts(message.get("content"))]
    # What it is told is read without the values, so that a customer can't give it instructions.
    told = " ".join(" ".join(texts).casefold().split())
    asked = tags.sub(lambda tag: _shown(inputs.get(tag[1], "")), texts[-1] if texts else "")
    return _written(_topics(asked.casefold(), told), told)


def _topics(asked: str, told: str) -> list[str]:
    found = [topic for topic, words in _TOPICS.items() if any(word in asked for word in words)]
    if not found:
        return [_OTHER if "no topic fits" in told else _GUESS]
    return found if "all topics" in told else found[:1]


def _written(topics: list[str], told: str) -> str:
    label = ", ".join(topics)
    if "upper case" in told:
        label = label.upper()
    if "json" in told:
        return json.dumps({"topic": label} if len(topics) == 1 else {"topics": topics})
    text = label if "one word" in told or "only the topic" in told else f"The topic is {label}."
    if "polite" in told:
        text = f"Thank you for your message. {text}"
    most = _MOST_WORDS.search(told)
    return " ".join(text.split()[: int(most[1])]) if most else text


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            yield part["text"]


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
