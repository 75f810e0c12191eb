"""Prompts as people have them: what the command line reads, sends and writes back."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agenta_ai import InvalidInput
from agenta_ai.cli import layout, prompts

if TYPE_CHECKING:
    from pathlib import Path


def shouted(value: Any) -> Any:
    """What a refinement would make: every content in capitals, and nothing else changed."""
    messages = [{**message, "content": refined(message["content"])} for message in value["messages"]]
    return {**value, "messages": messages}


def refined(content: Any) -> Any:
    if isinstance(content, str):
        return content.upper()
    return [{**part, "text": part["text"].upper()} if "text" in part else part for part in content]


def rewritten(path: Path, content: str, **options: Any) -> str:
    path.write_bytes(content.encode())
    prompt = prompts.read(str(path), options.get("format"), options.get("role", "user"))
    prompt.with_template(shouted(prompt.template)).write(str(path))
    return path.read_bytes().decode()


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("a.txt", "Say {{x}}.\n\nBye.\n\n", "SAY {{X}}.\n\nBYE.\n\n"),
        ("a.txt", "No line end", "NO LINE END"),
        ("a.txt", "One\r\nTwo\r\n", "ONE\r\nTWO\r\n"),
        ("a.md", "---\ntitle: kept\n---\n\n# Say\n", "---\ntitle: kept\n---\n\n# SAY\n"),
        ("a.md", "--- not front matter\n", "--- NOT FRONT MATTER\n"),
        ("prompt", "{{name}}, hello", "{{NAME}}, HELLO"),
        (
            "a.json",
            '{ "messages":[{"role":"user",\n\t"content" : "a \\u00e9"}],\n "n": 1.10, "e": 1e-400, "b": 9 }',
            '{ "messages":[{"role":"user",\n\t"content" : "A \\u00c9"}],\n "n": 1.10, "e": 1e-400, "b": 9 }',
        ),
        ("a.json", '[{"role": "user", "content": "é"}]\n', '[{"role": "user", "content": "É"}]\n'),
        (
            "prompt",
            '{"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]}',
            '{"messages": [{"role": "user", "content": [{"type": "text", "text": "A"}, {"type": "image_url"}]}]}',
        ),
        (
            "a.yaml",
            "# why\nmessages:\n- role: user # who\n  content: plain text\nn: 1.10\n",
            '# why\nmessages:\n- role: user # who\n  content: "PLAIN TEXT"\nn: 1.10\n',
        ),
        (
            "a.yml",
            "messages:\n  - content: |-  # kept\n      one\n\n      two\n\n  - content: 'it''s'\n",
            'messages:\n  - content: |-  # kept\n      ONE\n\n      TWO\n\n  - content: "IT\'S"\n',
        ),
        (
            "a.yaml",
            "messages:\n  - content: >\n      folded\n      text\n    role: user\n",
            "messages:\n  - content: |\n      FOLDED TEXT\n    role: user\n",
        ),
        ("a.yaml", "- {role: user, content: hi}\n", '- {role: user, content: "HI"}\n'),
        (
            "a.yaml",
            "# why\r\n- content: |-  # kept\r\n    one\r\n\r\n    two\r\n\r\n- content: hi\r\n",
            '# why\r\n- content: |-  # kept\r\n    ONE\r\n\r\n    TWO\r\n\r\n- content: "HI"\r\n',
        ),
        (
            "a.yaml",
            "- content: >\r\n    folded\r\n    text\r\n  role: user\r\n",
            "- content: |\r\n    FOLDED TEXT\r\n  role: user\r\n",
        ),
        ("a.yaml", "- content: >-\r\n    \\x\r\n  role: user\r\n", "- content: |-\r\n    \\X\r\n  role: user\r\n"),
        (
            "a.yaml",
            "- {role: &a hi, content: hi}\r\n- {content: *a}\r\n",
            "- role: hi\r\n  content: HI\r\n- content: HI\r\n",
        ),
    ],
)
def test_only_the_texts_change(tmp_path: Path, name: str, before: str, after: str) -> None:
    assert rewritten(tmp_path / name, before) == after


def test_a_byte_order_mark_stays_in_its_own_file(tmp_path: Path) -> None:
    mark = "\ufeff"
    assert rewritten(tmp_path / "a.json", mark + '[{"role": "user", "content": "a"}]').startswith(mark)
    prompts.read(str(tmp_path / "a.json"), None, "user").write(str(tmp_path / "b.json"))
    assert not (tmp_path / "b.json").read_text(encoding="utf-8").startswith(mark)


def test_a_text_can_be_a_system_message(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("Be nice.\n")
    template = prompts.read(str(tmp_path / "a.md"), None, "system").template
    assert template == {"messages": [{"role": "system", "content": "Be nice."}]}


def test_a_change_of_something_else_is_written_in_full(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"messages":[]}')
    prompt = prompts.read(str(path), None, "user")
    assert json.loads(prompt.with_template({"messages": [], "more": 1}).text) == {"messages": [], "more": 1}
    path = tmp_path / "a.yaml"
    path.write_text("messages: []\n")
    prompt = prompts.read(str(path), None, "user")
    assert yaml.safe_load(prompt.with_template({"messages": [], "more": 1}).text) == {"messages": [], "more": 1}


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.json", '{"messages": ', "is not JSON: Expecting value"),
        ("a.json", '"text"', "is not a prompt template"),
        (
            "a.yaml",
            "messages: [",
            "is not YAML: expected the node content, but found '<stream end>': line 1 column 12.",
        ),
        ("a.yaml", "a: \x01", "is not YAML: unacceptable character"),
        ("a.yaml", "only text", "is not a prompt template. It should look like"),
        ("prompt", '{"messages": [', "is not JSON"),
        ("a.md", " \n", "is empty"),
        ("a.json", "null", "is not a prompt template"),
        ("a.json", '{"messages": ' + "[" * 200 + "]" * 200 + "}", "has more than 200 levels of nesting. Use fewer."),
        ("a.json", "[" * 100_000, "has more than 200 levels of nesting. Use fewer."),
        ("a.yaml", "messages: " + "[" * 200 + "]" * 200, "has more than 200 levels of nesting. Use fewer."),
        ("a.yaml", "messages: &a [*a]", "has more than 200 levels of nesting. Use fewer."),
    ],
)
def test_what_is_no_prompt(tmp_path: Path, name: str, content: str, complaint: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidInput, match=re.escape(complaint)):
        prompts.read(str(tmp_path / name), None, "user")


@pytest.mark.parametrize("name", ["a.json", "a.yaml"])
def test_as_many_levels_as_may_be(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    deep = "[" * 199 + "]" * 199
    path.write_text(f'{{"messages": [{{"role": "user", "content": "hi"}}], "deep": {deep}}}')
    prompt = prompts.read(str(path), None, "user")
    assert deep in prompt.with_template(shouted(prompt.template)).text
    # And written anew.
    other = prompt.with_template({**shouted(prompt.template), "more": 1})
    assert prompts.parse(name, other.text, b"", prompt.format, "user").template == other.template


def test_patterns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.md", "b.md", "in/c.md", "in/d.txt", "[x].md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert prompts.expand(["**/*.md", "a.md", "-"]) == ["[x].md", "a.md", "b.md", "in/c.md", "-"]
    # What is there is no pattern.
    assert prompts.expand(["[x].md"]) == ["[x].md"]
    with pytest.raises(InvalidInput, match=r"^No file matches \*\.yaml\.$"):
        prompts.expand(["*.yaml"])
    with pytest.raises(InvalidInput, match=r"^in is a folder\. Use a pattern, such as 'in/\*\*/\*\.md'\.$"):
        prompts.expand(["in"])


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)


def changed(value: Any) -> Any:
    if isinstance(value, str):
        return value + "!\n é"
    if isinstance(value, dict):
        return {key: changed(item) for key, item in value.items()}
    return [changed(item) for item in value] if isinstance(value, list) else value


@given(VALUES, st.sampled_from([None, 1, 3]), st.booleans())
def test_every_text_of_any_json_can_be_replaced(value: Any, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    new = changed(value)
    assert json.loads(layout.in_json(text, dict(layout.changed_texts(value, new)))) == new
    assert layout.in_json(text, {}) == text


LINES = st.text(st.characters(codec="ascii", min_codepoint=32, max_codepoint=126), min_size=1, max_size=12)


@given(
    st.lists(LINES, min_size=1, max_size=4),
    st.sampled_from(["|", "|-", ">", ">-", '"']),
    st.lists(TEXT, min_size=1, max_size=3),
)
def test_any_text_can_be_put_into_yaml(lines: list[str], style: str, new: list[str]) -> None:
    if style == '"':
        value = json.dumps("\n".join(lines))
    else:
        value = "\n".join([style, *("      " + line for line in ["x", *lines])])
    text = f"messages:\n  - content: {value}\n    role: user\nlast: 1.10 # kept\n"
    before = yaml.safe_load(text)
    after = {**before, "messages": [{**before["messages"][0], "content": "\n".join(new)}]}
    prompt = prompts.parse("a.yaml", text, b"", "yaml", "user")
    assert yaml.safe_load(prompt.with_template(after).text) == after
