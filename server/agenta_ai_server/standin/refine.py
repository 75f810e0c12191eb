"""Refines prompts by a few fixed rules, in place of a model."""

from __future__ import annotations

import json
import re
from typing import Any

SUMMARY = "Offline stand-in: applied fixed rules instead of calling a model."
UNREADABLE = "Sure! But I found no prompt template to refine."

_PLAIN = {
    "a helpful assistant": "a precise assistant",
    "a large number of": "many",
    "at this point in time": "now",
    "due to the fact that": "because",
    "for the purpose of": "for",
    "in order to": "to",
    "in the event that": "if",
    "is able to": "can",
    "make sure that": "ensure that",
    "prior to": "before",
    "the majority of": "most",
    "utilize": "use",
    "utilizes": "uses",
    "utilizing": "using",
    "with regard to": "about",
}
_WORDY = re.compile(rf"\b(?:{'|'.join(_PLAIN)})\b", re.IGNORECASE)
_COURTESY = re.compile(r"\b(please|kindly) +(\w?)", re.IGNORECASE)
# Indentation and what touches a tag stays: only blanks between two words of the same run of text count as doubled.
_DOUBLED_BLANKS = re.compile(r"(?<=\S) {2,}(?=\S)")
_TRAILING_BLANKS = re.compile(r"(?<![ \t])[ \t]+(?=\n)")

# The format isn't known, so match too much rather than too little: a tag extends to the last closing brace before the
# next opening one, so that nested braces and braces in a tag's strings stay inside; one that never closes, to the end.
_SYNTAX = re.compile(
    r"(?:\{%.*?(?:%\}|\Z)|\{\#.*?(?:\#\}|\Z)|\{\{.*?(?:\}\}|\Z)|\{[^}]*(?:\}|\Z))(?:[^{}]*\})*", re.DOTALL
)
# From here on a mustache template's tags may look like anything.
_OTHER_DELIMITERS = "{{="
# What refine_prompt_with_cases sends besides: its own instructions end the guidelines, and the context has the cases.
_INSTRUCTIONS = re.compile(r"\s*The prompt is tested with cases\..*", re.DOTALL)
_REMARK = re.compile(r"^Remark: (.+)$", re.MULTILINE)


def refine(template_json: str, guidelines: str, context: str = "") -> str:
    """Refine a prompt template.

    Args:
        template_json: The JSON text of a template: an object with ``messages``, each with ``role`` and ``content``.
        guidelines: Become a sentence of the first message, unless they are empty or hold braces.
        context: Becomes another one, if the guidelines mention it. The remarks on test cases in it become sentences.

    Returns:
        What a model would write: the JSON text of an object with ``messages`` and ``summary``, or prose if the template
        can't be read. Every template tag survives byte for byte, and a content that is no string as it is.
    """
    try:
        messages = json.loads(template_json)["messages"]
        refined = [{"role": message["role"], "content": _plainer(message["content"])} for message in messages]
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        return UNREADABLE
    if _INSTRUCTIONS.search(guidelines):
        return _refined_by_cases(refined, _INSTRUCTIONS.sub("", guidelines), context)
    if refined and isinstance(refined[0]["content"], str):
        refined[0]["content"] = _guided(refined[0]["content"], "Guidelines", guidelines)
        if "context" in guidelines:
            refined[0]["content"] = _guided(refined[0]["content"], "Context", context)
    return json.dumps({"messages": refined, "summary": SUMMARY}, ensure_ascii=False)


def _refined_by_cases(refined: list[dict[str, Any]], guidelines: str, context: str) -> str:
    first = refined[0]
    if isinstance(first["content"], str):
        first["content"] = _guided(first["content"], "Guidelines", guidelines)
        for remark in _REMARK.findall(context):
            sentence = _ended(remark.strip())
            if sentence not in first["content"] and "{" not in sentence and "}" not in sentence:
                first["content"] = f"{first['content']}\n{sentence}"
    return json.dumps({"messages": refined, "summary": SUMMARY}, ensure_ascii=False)


def without_tags(refinement: str) -> str:
    """Drop all template tags from the output of :func:`refine`, like a careless model."""
    answer = _read(refinement)
    if answer is None:
        return refinement
    for message in answer["messages"]:
        if isinstance(message["content"], str):
            message["content"] = _SYNTAX.sub("", message["content"])
    return json.dumps(answer, ensure_ascii=False)


def without_last_message(refinement: str) -> str:
    """Drop the last message from the output of :func:`refine`, like a careless model."""
    answer = _read(refinement)
    if answer is None:
        return refinement
    return json.dumps(answer | {"messages": answer["messages"][:-1]}, ensure_ascii=False)


def _read(refinement: str) -> dict[str, Any] | None:
    """Return what :func:`refine` wrote; ``None`` for what it writes without a template, and for other prompts."""
    try:
        answer = json.loads(refinement)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) and "messages" in answer else None


def _plainer(content: object) -> object:
    if not isinstance(content, str) or not content.strip() or _OTHER_DELIMITERS in content:
        return content
    parts = []
    end_of_last = 0
    for tag in _SYNTAX.finditer(content):
        parts += [_plain_text(content[end_of_last : tag.start()]), tag[0]]
        end_of_last = tag.end()
    return "".join([*parts, _ended(_plain_text(content[end_of_last:]))])


def _plain_text(text: str) -> str:
    text = _WORDY.sub(lambda wordy: _as_begun(wordy[0], _PLAIN[wordy[0].lower()]), text)
    text = _COURTESY.sub(lambda courtesy: _as_begun(courtesy[1], courtesy[2]), text)
    return _TRAILING_BLANKS.sub("", _DOUBLED_BLANKS.sub(" ", text))


def _as_begun(old: str, new: str) -> str:
    return new[:1].upper() + new[1:] if old[0].isupper() else new


def _ended(text: str) -> str:
    text = text.rstrip(" \t")
    # Letters without case are of scripts that end a sentence in other ways.
    return f"{text}." if text[-1:].isupper() or text[-1:].islower() else text


def _guided(content: str, title: str, text: str) -> str:
    wish = _ended(" ".join(text.split()))
    sentence = f"{title}: {wish}"
    if not wish or "{" in wish or "}" in wish or sentence in content:
        return content
    return f"{content}\n\n{sentence}" if content else sentence
