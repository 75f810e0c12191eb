from __future__ import annotations

from typing import Any

import pytest

from agenta_ai import diff_messages


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("old", "new", "texts"),
    [
        ("a", "a", []),
        ("a", "b", [("a", "b")]),
        ("a", "a\n", [("a", "a\n")]),
        (None, "", []),
        (None, "a", [("", "a")]),
        ([{"type": "text", "text": "a"}], "a", []),
        (
            [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}],
            [{"type": "text", "text": "b"}, {"type": "image_url", "image_url": {}}],
            [("a\n[image_url]", "b\n[image_url]")],
        ),
        (["a", 1], ["a", 2], [("a\n1", "a\n2")]),
        ({"odd": 1}, {"odd": 2}, [('{"odd": 1}', '{"odd": 2}')]),
    ],
)
def test_contents(old: Any, new: Any, texts: list[tuple[str, str]]) -> None:
    changes = diff_messages([user("same"), user(old)], [user("same"), user(new)])
    assert [(change.old, change.new) for change in changes] == texts
    assert [(change.index, change.role) for change in changes] == [(1, "user")] * len(texts)


@pytest.mark.parametrize(
    ("old", "new", "count"), [(None, [], 0), ([user("a")], [], 1), ([], [user("a")], 1), (["odd"], [user("a")], 1)]
)
def test_lists_of_another_form(old: Any, new: Any, count: int) -> None:
    assert len(diff_messages(old, new)) == count


def test_the_text_is_a_unified_diff() -> None:
    (change,) = diff_messages([user("keep\nold")], [user("keep\nnew\n")])
    assert str(change).split("\n") == [
        "--- old messages[0] user",
        "+++ new messages[0] user",
        "@@ -1,2 +1,3 @@",
        " keep",
        "-old",
        "+new",
        "+",
    ]


def test_the_text_is_safe_to_print() -> None:
    old, new = ([{"role": "user\n+++ ", "content": text}] for text in ("old\x1b[2J", "new\x9b2J\r"))
    (change,) = diff_messages(old, new)
    assert str(change).split("\n") == [
        r"--- old messages[0] user\n+++",
        r"+++ new messages[0] user\n+++",
        "@@ -1 +1 @@",
        r"-old\x1b[2J",
        r"+new\x9b2J\r",
    ]
    assert change.lines()[-1] == "+new\x9b2J\r"
