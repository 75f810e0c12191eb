"""What changes, whether it breaks callers, and that buf agrees."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typed.buf import WIRE_JSON, buf, complaints, write
from typed.schemas import CALM, distinct, objects, properties, schemas, tool

from agenta_ai_server.typed.compatibility import changes
from agenta_ai_server.typed.lock import Lock, dump, numbered, parse, updated
from agenta_ai_server.typed.shape import Message, ToolShape, Unmapped
from agenta_ai_server.typed.tools import shapes

NAME = "tools.acme.support.classify"
TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
TEXTS = {"type": "array", "items": TEXT}


def shape(arguments: dict[str, Any], result: dict[str, Any] | None = None, name: str = NAME) -> dict[str, ToolShape]:
    found, faults = shapes([tool(arguments, result, name)])
    assert not faults
    return found


BEFORE = properties(("x",), x=TEXT, y=NUMBER, inner=properties(z=TEXT))


@pytest.mark.parametrize(
    ("after", "result", "place", "description"),
    [
        (properties(("x",), x=TEXT, y=NUMBER, inner=properties(z=TEXT), new=TEXT), None, "", ""),
        (properties(("x",), x=TEXT, inner=properties(z=TEXT)), None, "", ""),
        (properties((), x=TEXT, y=NUMBER, inner=properties(z=TEXT)), None, "", ""),
        (properties(("x",), y=NUMBER, inner=properties(z=TEXT), x={**TEXT, "enum": ["a"]}), None, "", ""),
        (BEFORE, properties(("x",), x=TEXT, more=TEXT), "", ""),
        (
            properties(("x",), x=NUMBER, y=NUMBER, inner=properties(z=TEXT)),
            None,
            "arguments.x",
            "was string and is int64",
        ),
        (properties(("x",), x=TEXT, y=NUMBER, inner=properties(z=TEXTS)), None, "arguments.inner.z", "repeated string"),
        (
            properties(("x",), x=TEXT, y=NUMBER, inner={"type": "object"}),
            None,
            "arguments.inner",
            "google.protobuf.Struct",
        ),
        (properties(("x", "y"), x=TEXT, y=NUMBER, inner=properties(z=TEXT)), None, "arguments.y", "is now required"),
        (
            properties(("x", "w"), x=TEXT, y=NUMBER, inner=properties(z=TEXT), w=TEXT),
            None,
            "arguments.w",
            "and required",
        ),
        (BEFORE, properties(x=TEXT), "result.x", "no longer required"),
        (BEFORE, properties(more=TEXT), "result.x", "was always present"),
    ],
)
def test_changes(after: dict[str, Any], result: dict[str, Any] | None, place: str, description: str) -> None:
    original = properties(("x",), x=TEXT)
    lock = updated(Lock(), shape(BEFORE, original))
    found = changes(lock, shape(after, result or original))
    breaking = [change for change in found if change.breaking]
    assert [change.path for change in breaking] == ([f"{NAME}: {place}"] if place else [])
    assert all(description in change.description for change in breaking)
    assert bool(found) or after["properties"]["x"].get("enum")


def test_tools_come_and_go() -> None:
    lock = updated(Lock(), shape(BEFORE))
    found = changes(lock, shape(BEFORE, name="tools.acme.support.other"))
    assert [(change.path, change.breaking) for change in found] == [
        (NAME, True),
        ("tools.acme.support.other", False),
    ]
    assert not changes(lock, shape(BEFORE))


def test_a_tool_that_comes_back_keeps_its_numbers() -> None:
    lock = updated(updated(Lock(), shape(properties(a=TEXT, b=TEXT))), {})
    assert lock.removed == {NAME}
    with pytest.raises(Unmapped, match="not in the lock file"):
        numbered(NAME, shape(BEFORE)[NAME], lock)
    again = updated(parse(dump(lock).encode()), shape(properties(b=TEXT, c=TEXT)))
    assert not again.removed
    assert [(field.key, field.number) for field in again.tools[NAME].arguments.fields] == [("b", 2), ("c", 3)]


@pytest.mark.parametrize(
    ("after", "place", "problem"),
    [
        (properties(x=TEXT, new=TEXT), "arguments.new", "not in the lock file"),
        (properties(x=NUMBER), "arguments.x", "has it as string"),
    ],
)
def test_a_server_numbers_nothing_by_itself(after: dict[str, Any], place: str, problem: str) -> None:
    lock = updated(Lock(), shape(properties(x=TEXT)))
    with pytest.raises(Unmapped) as raised:
        numbered(NAME, shape(after)[NAME], lock)
    assert [(fault.path, problem in fault.problem) for fault in raised.value.faults] == [(place, True)]


@st.composite
def changed(draw: st.DrawFn, schema: dict[str, Any]) -> dict[str, Any]:
    """Another state of a schema."""
    before = schema["properties"]
    kept = {
        name: draw(st.one_of(st.just(inner), schemas(1))) for name, inner in before.items() if draw(st.integers(0, 3))
    }
    added = draw(objects(1))["properties"]
    names = distinct([*before, *added])
    after = kept | {name: inner for name, inner in added.items() if name in names and name not in before}
    return properties(tuple(draw(st.lists(st.sampled_from(sorted(after)), unique=True)) if after else ()), **after)


@CALM
@given(objects(1), st.data())
def test_a_number_is_never_used_twice(schema: dict[str, Any], data: st.DataObject) -> None:
    lock, seen = Lock(), dict[int, tuple[str, str]]()
    for _ in range(4):
        lock = updated(parse(dump(lock).encode()), shape(schema))
        for field in lock.tools[NAME].arguments.fields:
            assert seen.setdefault(field.number, (field.key, field.type)) == (field.key, field.type)
        assert not changes(lock, shape(schema))
        schema = data.draw(changed(schema))


@settings(CALM, max_examples=10)
@given(st.lists(objects(1), min_size=8, max_size=8), st.data())
def test_buf_finds_no_change_breaking_that_we_do_not(each: list[dict[str, Any]], data: st.DataObject) -> None:
    names = [f"tools.acme.group_{index}.classify" for index in range(len(each))]
    before: dict[str, ToolShape] = {}
    after: dict[str, ToolShape] = {}
    for name, schema in zip(names, each, strict=True):
        before |= shape(schema, schema, name)
        other = data.draw(changed(schema))
        after |= shape(other, other, name)
    lock = updated(Lock(), before)
    found = {change.path.partition(":")[0] for change in changes(lock, after) if change.breaking}
    with tempfile.TemporaryDirectory() as folder:
        old = write(Path(folder) / "old", before, lock, WIRE_JSON)
        new = write(Path(folder) / "new", after, updated(lock, after), WIRE_JSON)
        theirs = {f"tools.acme.{complaint['path'].split('/')[-3]}.classify" for complaint in complaints(old, new)}
    assert theirs <= found


@settings(CALM, max_examples=10)
@given(st.lists(objects(1), min_size=8, max_size=8), st.data())
def test_files_are_as_buf_wants_them(each: list[dict[str, Any]], data: st.DataObject) -> None:
    tools: dict[str, ToolShape] = {}
    for index, schema in enumerate(each):
        tools |= shape(schema, data.draw(objects(1)), f"tools.acme.group_{index // 3}.tool_{index}x")
    with tempfile.TemporaryDirectory() as folder:
        root = str(write(Path(folder), tools, updated(Lock(), tools)))
        for done in (buf("lint", root), buf("format", root, "--diff", "--exit-code")):
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_reserved_numbers_of_protobuf_are_passed_over() -> None:
    nothing = Message()
    wide = shape(properties(**{f"p{index}": TEXT for index in range(19_001)}))
    lock = updated(Lock(), wide)
    numbers = {field.number for field in lock.tools[NAME].arguments.fields}
    assert not numbers & set(range(19_000, 20_000))
    assert nothing == Message()
