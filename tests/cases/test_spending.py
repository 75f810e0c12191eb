"""What is run at this service's expense, and what isn't."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agenta_ai_server.tools.cases.spending import Spending

MESSAGES = [{"role": "user", "content": "Sort {{message}}"}]
SPENDING = Spending(("small", "large"), 10_000)


@pytest.mark.parametrize(
    "root",
    [
        {},
        {"llm_config": None},
        {"llm_config": {}},
        {
            "llm_config": {
                "model": "large",
                "temperature": 0.5,
                "max_tokens": 5,
                "response_format": {"type": "json_object"},
            }
        },
        {"template_format": "fstring", "input_keys": ["message"]},
        {"fallback_configs": None},
        {"messages": [{"role": "user", "content": "{{$}} {{ $.message[0]['a b'][-1] }} {{$.message}} costs $|$"}]},
    ],
)
def test_what_is_run(root: dict[str, Any]) -> None:
    assert SPENDING.violations({"messages": MESSAGES, **root}) == []


@pytest.mark.parametrize(
    ("root", "why"),
    [
        (
            {"llm_config": {"model": "huge"}},
            "It names the model huge, but this service runs test cases only with small, large.",
        ),
        ({"llm_config": {"model": ["small"]}}, "a model that isn't a string"),
        ({"llm_config": "small"}, "must be an object"),
        ({"fallback_configs": [{"model": "huge"}]}, "It has fallback_configs"),
        ({"retry_config": {"max_retries": 5}}, "It has retry_config"),
        ({"llm_config": {"n": 100}}, "It has llm_config.n,"),
        ({"llm_config": {"tools": [{}]}}, "It has llm_config.tools,"),
        ({"llm_config": {"connection": "mine"}}, "It has llm_config.connection,"),
        ({"llm_config": {"max_tokens": -1000}}, "an integer of at least 1"),
        ({"llm_config": {"max_tokens": 0}}, "an integer of at least 1"),
        ({"llm_config": {"max_tokens": True}}, "an integer of at least 1"),
        ({"llm_config": {"max_tokens": 5.5}}, "an integer of at least 1"),
        ({"template_format": "jinja2"}, "Its format must be curly or fstring"),
        ({"template_format": "mustache"}, "Its format must be curly or fstring"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "only text"),
        *(
            ({"messages": [{"role": "user", "content": content}], "template_format": "fstring"}, "only a name")
            for content in ("{message:>9999}", "{message:{width}}", "{message!r}", "{message.__doc__}", "{message[0]}")
        ),
        *(
            ({"messages": [{"role": "user", "content": content}]}, "select a single value")
            for content in (
                "{{$|$|$}}",
                "{{ $..* }}",
                "{{$[*,*][*,*][*,*]}}",
                "{{$['a', 'a']}}",
                "{{\n$|$}}",
                "{{$['{']|$}}",
                "{{{$|$}}}",
                "{{$.message}} {{$.*}}",
            )
        ),
        (
            {"llm_config": {"response_format": {"type": "json_schema", "title": "{{$..*}}"}}},
            "select a single value",
        ),
    ],
)
def test_what_is_not(root: dict[str, Any], why: str) -> None:
    (violation,) = SPENDING.violations({"messages": MESSAGES, **root})
    assert violation.field == "arguments.prompt_template_json"
    assert why in violation.description


def test_without_models_nothing_is_run() -> None:
    (violation,) = Spending().violations({"messages": MESSAGES})
    assert "doesn't pay for test cases" in violation.description


def test_a_template_is_run_with_a_model_and_a_limit() -> None:
    root = {"messages": MESSAGES, "llm_config": {"temperature": 0}}
    assert SPENDING.prepared(root) == {
        "messages": MESSAGES,
        "llm_config": {"temperature": 0, "model": "small", "max_tokens": 1000},
    }
    assert root["llm_config"] == {"temperature": 0}
    chosen = {"messages": MESSAGES, "llm_config": {"model": "large", "max_tokens": 7}}
    assert SPENDING.prepared(chosen) == chosen


def test_what_may_take_too_many_tokens_is_refused() -> None:
    root = {"messages": MESSAGES, "llm_config": {"max_tokens": 100}}
    assert not SPENDING.excess(root, [{"message": "a"}] * 10, 1, 3)
    why = SPENDING.excess(root, [{"message": "a" * 3000}] * 20, 1, 3)
    assert "up to 191," in why
    assert "pays for 10,000" in why


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4), st.integers(1, 9), st.sampled_from(["curly", "fstring"]))
def test_the_estimate_is_never_less_than_what_is_rendered(texts: list[str], times: int, template_format: str) -> None:
    opening, closing = ("{{", "}}") if template_format == "curly" else ("{", "}")
    content = f"x{opening}message{closing}" * times
    root = {
        "messages": [{"role": "user", "content": content}],
        "template_format": template_format,
        "llm_config": {"max_tokens": 1},
    }
    rendered = sum(len(content.replace(f"{opening}message{closing}", text).encode()) for text in texts)
    most = Spending(("small",), rendered)
    assert most.excess(root, [{"message": text} for text in texts], 1, 1)


# As in Agenta.
PLACEHOLDER = re.compile(r"\{\{\s*(.*?)\s*\}\}")


@given(
    st.text("{}ab \n.", max_size=40),
    st.dictionaries(st.text("{}ab .", min_size=1, max_size=4), st.integers(0, 200).map("x".__mul__)),
)
@example("{{{a}}}", {"a": "", "{a": "x" * 100})
@example("{{ {{a}}", {"a": "", "{{a": "x" * 100})
@example("{{\n{{a}}", {"a": "", "{{a": "x" * 100})
def test_braces_never_hide_what_is_rendered(content: str, inputs: dict[str, str]) -> None:
    root = {"messages": [{"role": "user", "content": content}], "llm_config": {"max_tokens": 1}}
    rendered = PLACEHOLDER.sub(lambda found: inputs.get(found[1], found[0]), content)
    assert Spending(("small",), len(rendered)).excess(root, [inputs], 1, 1)


@pytest.mark.parametrize(
    ("content", "more", "inputs"),
    [
        ("{{{a}}}" * 50, {}, {"a": "", "{a": "x" * 1000}),
        ("{{a b}}" * 50, {}, {"a": "", "a b": "x" * 1000}),
        ("{{a.b}}" * 50, {}, {"a": "", "a.b": "x" * 1000}),
        ("{{ä-é!}}" * 50, {}, {"ä-é!": "x" * 1000}),
        ("{a b}" * 50, {"template_format": "fstring"}, {"a": "", "a b": "x" * 1000}),
        ("{{$}}" * 50, {}, {"x" * 1000: ""}),
        ("{{$.a}}" * 50, {}, {"a": ["\x01" * 200]}),
        # Paths, in spite of the inputs with such names.
        ("{{$.a}}" * 50, {}, {"a": "x" * 1000, "$.a": ""}),
        ("{{ /a }}" * 50, {}, {"a": "x" * 1000, "/a": ""}),
        ("{{$}}" * 50, {}, {"a": "x" * 1000, "$": ""}),
        ("{a}" * 50, {"template_format": "fstring"}, {"a": ["\ue000" * 200]}),
        ("{a}" * 50, {"template_format": "fstring"}, {"a": ["'" * 500 + '"']}),
        # In real tokenizers a token for each byte or nearly so.
        ("1 " * 5000, {}, {}),
        ("qXzJ" * 2500, {}, {}),
        ("𒀀" * 2500, {}, {}),
        ("x", {"llm_config": {"response_format": {"enum": list(range(10_000))}}}, {}),
        ("x", {"messages": [{"role": "user", "content": "x", "tool_calls": [123456] * 10_000}]}, {}),
    ],
)
def test_nothing_that_a_model_reads_is_left_out_of_the_estimate(
    content: str, more: dict[str, Any], inputs: dict[str, Any]
) -> None:
    root = {"messages": [{"role": "user", "content": content}], **more}
    assert not SPENDING.violations(root)
    assert "tokens" in SPENDING.excess(root, [inputs], 1, 1)


def test_a_refinement_may_not_do_what_the_template_may_not() -> None:
    refined = {"messages": [{"role": "user", "content": "{message:>9999}"}], "template_format": "fstring"}
    assert "only a name" in SPENDING.excess(refined, [{"message": "a"}], 1, 1)


def test_a_path_may_stand_for_all_inputs() -> None:
    root = {"messages": [{"role": "user", "content": "{{$.items[0]}}"}], "llm_config": {"max_tokens": 1}}
    inputs: dict[str, Any] = {"items": ["a" * 3000], "more": "b" * 3000}
    assert Spending(("small",), 2000).excess(root, [inputs], 1, 1)
