"""The inputs of a prompt, in each format."""

from __future__ import annotations

from typing import Any

import pytest
from drift.recorded import RECORDED, revision

from agenta_ai_server.tools.drift.deployed import JSON_OBJECT, MESSAGES, read_deployed
from agenta_ai_server.tools.drift.inputs import UnknownFormat, read_inputs
from agenta_ai_server.tools.refine_prompt.formats.syntax import TemplateSyntaxError


def prompt(content: Any, template_format: str = "curly", keys: list[str] | None = None) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": content}],
        "template_format": template_format,
        "input_keys": keys,
    }


@pytest.mark.parametrize(
    ("template_format", "text", "used", "structured"),
    [
        ("curly", "{{b}} {{ a }} {{a}}", {"a", "b"}, set()),
        ("curly", "{{order.items.0}} {{/user/name}} {{$.x.y}}", {"order", "user", "x"}, {"order", "user", "x"}),
        ("curly", "{{$['a b']}} {{$..name}} {{$}}", {"a b"}, set()),
        ("fstring", "{a:.2f} {b.c} {d[0]} {{not}}", {"a", "b", "d"}, {"b", "d"}),
        ("jinja2", "{% for one in all %}{{ one.name }}{% endfor %}{{ a|upper }}{{$.b.c}}", {"all", "a", "b"}, {"b"}),
        ("mustache", "{{a}} {{^b}}none{{/b}} {{owner.name}} {{$.c}}", {"a", "b", "owner", "c"}, {"owner"}),
        ("mustache", "{{#items}}{{name}}{{/items}} {{a}}", {"items", "a"}, {"items"}),
    ],
)  # fmt: skip
def test_what_texts_use(template_format: str, text: str, used: set[str], structured: set[str]) -> None:
    found = read_inputs(prompt(text, template_format))
    assert (set(found.used), set(found.structured)) == (used, structured)
    assert found.needed == tuple(sorted(used))


def test_a_name_in_a_section_may_be_an_input_or_an_item() -> None:
    found = read_inputs(prompt("{{#items}}{{name}} {{owner}}{{/items}} {{owner}}", "mustache"))
    assert (set(found.used), set(found.possible)) == ({"items", "owner"}, {"name"})


def test_declared_inputs_come_first_and_keep_their_order() -> None:
    found = read_inputs(prompt("{{z}} {{b.c}} {{a}}", keys=["z", "unused", "b.c"]))
    assert found.needed == ("z", "unused", "b.c", "a")


def test_each_text_counts() -> None:
    content = [{"type": "text", "text": "{{a}}"}, {"type": "image_url", "image_url": {"url": "{{no}}"}}]
    assert read_inputs(prompt(content)).used == {"a"}
    assert read_inputs({"messages": [None, {"role": "user", "content": None}]}).needed == ()


@pytest.mark.parametrize(
    ("template_format", "text", "error"),
    [
        ("mako", "{{a}}", UnknownFormat),
        ("mustache", "{{#a}}", TemplateSyntaxError),
        ("curly", "{{}}", TemplateSyntaxError),
    ],
)
def test_what_cannot_be_read(template_format: str, text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        read_inputs(prompt(text, template_format))


# What was recorded

EXPECTED: dict[str, tuple[str, tuple[str, ...], object]] = {
    # application: its kind, its inputs, its result: None for text
    "capital": ("completion", ("domain", "country"), None),
    "capital-nokeys": ("completion", ("country", "domain"), None),
    "capital-json": ("completion", ("domain", "country"), {"capital", "population"}),
    "capital-json-object": ("completion", ("domain", "country"), JSON_OBJECT),
    "support-chat": ("chat", ("company", MESSAGES), None),
    "jp-mustache": ("completion", ("inputs", "items", "owner"), None),
    "hook-app": ("other", (), None),
    "code-app": ("other", (), None),
    "with-schemas": ("completion", ("domain", "country"), None),
    "ai-refine": (
        "completion",
        ("__ag_prompt_template_json", "__ag_guidelines", "__ag_context"),
        {"messages", "summary"},
    ),
}


@pytest.mark.parametrize("slug", RECORDED)
def test_each_recorded_shape_is_read(slug: str) -> None:
    found = read_deployed(revision(RECORDED[slug]))
    result = set(found.result["properties"]) if found.result and "properties" in found.result else found.result
    assert (found.kind, found.inputs, result) == EXPECTED[slug]
    assert found.fault == ""


def test_schemas_of_the_author_are_kept() -> None:
    found = read_deployed(revision(RECORDED["with-schemas"]))
    assert found.input_schemas["domain"] == {"type": "string", "description": "Field"}
    recorded = RECORDED["with-schemas"]
    data = {**recorded["data"], "schemas": {"outputs": {"type": "object", "required": ["capital"]}}}
    assert read_deployed(revision({**recorded, "data": data})).result == {"type": "object", "required": ["capital"]}
