from __future__ import annotations

import random
import time
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenta_ai import MessageChange, diff_messages


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


@pytest.mark.parametrize(
    ("old", "new", "pieces"),
    [
        ("", "a b", "{+a b+}"),
        ("a b", "", "[-a b-]"),
        ("Please translate {{text}}.", "Translate {{text}}.", "[-Please translate-]{+Translate+} {{text}}."),
        ("one\ntwo\n", "one\n\ntwo", "one[-\n-]{+\n\n+}two[-\n-]"),
    ],
)
def test_word_by_word(old: str, new: str, pieces: str) -> None:
    assert marked(MessageChange(0, "user", old, new)) == pieces


def marked(change: MessageChange) -> str:
    marks = {"=": "%s", "-": "[-%s-]", "+": "{+%s+}"}
    return "".join(marks[sign] % text for sign, text in change.words())


@given(st.text("ab \n", max_size=400), st.text("ab \n", max_size=400), st.sampled_from([0, 50, 1_000_000]))
def test_the_pieces_are_both_texts(old: str, new: str, most_pairs: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agenta_ai.diff._MOST_PAIRS", most_pairs)
        pieces = MessageChange(0, "user", old, new).words()
    assert "".join(text for sign, text in pieces if sign != "+") == old
    assert "".join(text for sign, text in pieces if sign != "-") == new
    assert all(before[0] != after[0] for before, after in pairwise(pieces))


@pytest.mark.parametrize("vocabulary", [16, 100, 5_000])
def test_long_texts_are_compared_at_once(vocabulary: int) -> None:
    chance = random.Random(1)
    words = [f"w{chance.randrange(vocabulary)}" for _ in range(10_000)]
    kept = [word for word in words if chance.random() > 0.1]
    start = time.process_time()
    pieces = MessageChange(0, "user", " ".join(words), " ".join(kept)).words()
    assert time.process_time() - start < 5  # with all words compared with each other: minutes
    equal = sum(len(text) for sign, text in pieces if sign == "=")
    assert equal > 0.98 * len(" ".join(kept))


def test_a_text_that_is_wholly_new_is_not_compared_word_by_word() -> None:
    old, new = ("\n".join(f"{name}{number}" for number in range(1_000)) for name in "ab")
    assert MessageChange(0, "user", old, new).words() == [("-", old), ("+", new)]
