import json

import pytest

from agenta_ai_server.standin.refine import SUMMARY, UNREADABLE, refine, without_tags

SYNTAX = [
    "{{in order to  please}}",
    "{{ $.please.utilize }}",
    "{{/in order to/0}}",
    "{in order to  please}",
    "{x!r:>10}",
    "{{ literal  utilize }}",
    '{{"a": {{"utilize": "please  x"}}, "b": {x}}}',
    "{% if tier == 'in order to  %}' %}",
    "{# please  utilize #}",
    "{{ name | default('}}  utilize ') }}",
    '{{ {"a": {"b":  "utilize"}}["a"] }}',
    "{{#please  utilize}}",
    "{{^items}}",
    "{{/items}}",
    "{{&x}}",
    "{{{please  utilize}}}",
    "{{! please  utilize, don't }}",
]


def messages_of(refinement: str) -> list[dict[str, str]]:
    messages: list[dict[str, str]] = json.loads(refinement)["messages"]
    return messages


def refined(content: str, guidelines: str = "") -> str:
    return messages_of(refine(json.dumps({"messages": [{"role": "user", "content": content}]}), guidelines))[0][
        "content"
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("Utilize this in order to win", "Use this to win."),
        ("Please answer", "Answer."),
        ("Could you please answer?", "Could you answer?"),
        ("Please {{verb}} it", "{{verb}} it."),
        ("a  b   c.\t \nd. ", "a b c.\nd."),
        ("* a\n    * b.", "* a\n    * b."),
        ("Answer in {{language}} ", "Answer in {{language}}"),
        ("In {{language}}  ", "In {{language}}"),
        ("日本語", "日本語"),
        ("", ""),
        ("  ", "  "),
        ("{{name} please  utilize", "{{name} please  utilize"),
        ("{{=<% %>=}} please <%please  utilize%>", "{{=<% %>=}} please <%please  utilize%>"),
    ],
)
def test_rules(content: str, expected: str) -> None:
    assert refined(content) == expected


@pytest.mark.parametrize("syntax", SYNTAX)
def test_all_template_syntax_survives(syntax: str) -> None:
    assert refined(f"Please use {syntax} and {syntax} in order to win") == f"Use {syntax} and {syntax} to win."


def test_keeps_count_roles_and_order_and_labels_itself() -> None:
    roles = ["system", "user", "assistant", "user"]
    template = {"messages": [{"role": role, "content": f"{role}"} for role in roles], "template_format": "curly"}

    answer = json.loads(refine(json.dumps(template), ""))

    assert answer.keys() == {"messages", "summary"}
    assert [(message["role"], message["content"]) for message in answer["messages"]] == [(r, f"{r}.") for r in roles]
    assert answer["summary"] == SUMMARY


@pytest.mark.parametrize(
    ("guidelines", "expected"),
    [
        ("be clear", "Hi!\n\nGuidelines: be clear."),
        ("Be\nclear!", "Hi!\n\nGuidelines: Be clear!"),
        ("keep {{x}}", "Hi!"),
        (" ", "Hi!"),
    ],
)
def test_guidelines_become_a_sentence_of_the_first_message(guidelines: str, expected: str) -> None:
    assert refined("Hi!", guidelines) == expected
    assert refined(expected, guidelines) == expected


def test_contents_other_than_text_stay() -> None:
    parts = [{"type": "text", "text": "please"}]
    template = {"messages": [{"role": "user", "content": parts}, {"role": "tool", "content": None}]}
    assert messages_of(refine(json.dumps(template), "be clear")) == template["messages"]


@pytest.mark.parametrize("template", ["", "no JSON", "[]", "{}", '{"messages": [1]}', '{"messages": 1}', "[" * 100_000])
def test_prose_if_there_is_nothing_to_refine(template: str) -> None:
    assert refine(template, "be clear") == UNREADABLE


def test_hostile_templates_take_no_time() -> None:
    for piece in ("{{", "{%", "{#", "{", "}", "{{}", '{{"', "{{! don't }} it's "):
        refined(piece * 20_000)


def test_without_tags() -> None:
    template = json.dumps({"messages": [{"role": "user", "content": "In {{language}}."}]})
    assert messages_of(without_tags(refine(template, "")))[0]["content"] == "In ."
