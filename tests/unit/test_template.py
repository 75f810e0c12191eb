from __future__ import annotations

import json
from typing import Any

import pytest

from agenta_ai_server.tools.refine_prompt.template import TemplateError, Text, parse

PARTS = {
    "messages": [
        {"role": "tool", "content": "stays"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "A"}, {"type": "image_url"}, {"type": "text", "text": "B"}],
        },
        {"role": "system", "content": "C"},
    ]
}


def test_texts_in_their_order() -> None:
    assert parse(json.dumps(PARTS)).texts == (
        Text("user", "A", 1, 0),
        Text("user", "B", 1, 2),
        Text("system", "C", 2),
    )


def test_paths_are_for_people() -> None:
    assert [text.path for text in parse(json.dumps(PARTS)).texts] == [
        "messages[1].content[0].text",
        "messages[1].content[2].text",
        "messages[2].content",
    ]


def test_putting_texts_back_changes_nothing_else_and_not_the_template() -> None:
    template = parse(json.dumps(PARTS))
    refined: Any = template.with_texts(["a", "b", "c"])
    assert template.root == PARTS
    assert refined["messages"][0] == PARTS["messages"][0]
    assert [part.get("text") for part in refined["messages"][1]["content"]] == ["a", None, "b"]
    assert refined["messages"][2]["content"] == "c"
    assert template.with_texts(["A", "B", "C"]) == PARTS


def test_a_wrong_number_of_texts_is_our_bug() -> None:
    with pytest.raises(ValueError, match="zip"):
        parse(json.dumps(PARTS)).with_texts(["a"])


def test_a_template_has_a_bounded_number_of_values() -> None:
    part = {"type": "text", "text": "A", "x": [{}] * 10_000}
    with pytest.raises(TemplateError, match=r"^The template has too many values \(maximum 10,000\)\.$"):
        parse(json.dumps({"messages": [{"role": "user", "content": [part]}]}))
