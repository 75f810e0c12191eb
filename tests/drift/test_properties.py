"""Properties of comparing and following: whatever the two schemas are, and whatever the file looks like."""

from __future__ import annotations

import copy
import json
import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from agenta_ai_server.tools.drift.document import ToolsDocument, apply_edit
from agenta_ai_server.tools.drift.schemas import schema_changes
from agenta_ai_server.tools.drift.toml import toml_value

NAMES = st.sampled_from(["queue", "urgency", "a b", "x.y", "title", "properties"])
NOTES = st.fixed_dictionaries({}, optional={"title": st.just("A"), "description": st.just("It's “so”.")})


def annotated(schemas: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(lambda schema, notes: schema | notes, schemas, NOTES)


SCALARS = st.sampled_from(["a", "b", 1, True])
TYPES = st.sampled_from(["string", "integer", "null"])
LEAVES = st.one_of(
    st.just({}),
    st.just({"type": "string"}),
    st.builds(lambda least: {"type": "integer", "minimum": least, "maximum": 5}, st.integers(0, 2)),
    st.builds(lambda values: {"enum": values}, st.lists(SCALARS, min_size=1, unique_by=repr)),
    st.builds(lambda types: {"type": types}, st.lists(TYPES, min_size=1, unique=True)),
    st.builds(lambda size: {"type": "array", "items": {"type": "string"}, "maxItems": size}, st.integers(1, 3)),
)


def objects(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    def made(properties: dict[str, Any], needed: set[str], closed: bool) -> dict[str, Any]:
        required = sorted(needed & properties.keys())
        schema = {"type": "object", "properties": properties, **({"required": required} if required else {})}
        return schema | ({"additionalProperties": False} if closed else {})

    return st.builds(made, st.dictionaries(NAMES, inner, max_size=3), st.sets(NAMES, max_size=3), st.booleans())


def separate(schema: dict[str, Any]) -> dict[str, Any]:
    """The same without parts that are one object in two places, as a file can't have them."""
    found: dict[str, Any] = json.loads(json.dumps(schema))
    return found


SCHEMAS = annotated(objects(annotated(st.recursive(LEAVES, objects, max_leaves=4)))).map(separate)

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(["a", "b", 0, 1, 2, 5, 9, True, None]),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(NAMES, each, max_size=4),
    max_leaves=8,
)


@given(SCHEMAS)
def test_a_schema_does_not_differ_from_itself(schema: dict[str, Any]) -> None:
    assert schema_changes(schema, copy.deepcopy(schema)) == []


@given(SCHEMAS, SCHEMAS)
def test_with_all_edits_the_file_follows(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    followed = copy.deepcopy(ours)
    for change in schema_changes(ours, theirs):
        for edit in change.edits:
            apply_edit(followed, edit, copy.deepcopy)
    assert schema_changes(followed, theirs) == []


@given(SCHEMAS, SCHEMAS, VALUES)
def test_without_widening_nothing_more_is_allowed(ours: dict[str, Any], theirs: dict[str, Any], value: Any) -> None:
    narrowed = copy.deepcopy(ours)
    for change in schema_changes(ours, theirs):
        for edit in change.edits if not change.widens else ():
            apply_edit(narrowed, edit, copy.deepcopy)
    if Draft202012Validator(narrowed).is_valid(value):
        assert Draft202012Validator(ours).is_valid(value)


LAYOUTS = (
    "[tools.x]\nresult = {schema}\n# the end\n",
    "[tools.x]\n# first\n[tools.x.result]\n{lines}\n\n[tools.y] # y\n",
    "[tools.x.result] # why\n{lines}\n[[tools.x.examples]]\narguments = {{}}\n",
    "[tools.x]\n{dotted}\n",
)


@given(SCHEMAS, SCHEMAS, st.sampled_from(LAYOUTS))
def test_each_layout_can_be_edited(ours: dict[str, Any], theirs: dict[str, Any], layout: str) -> None:
    lines = [f"{toml_value(key)} = {toml_value(each)}" for key, each in ours.items()]
    dotted = [f"result.{line}" for line in lines]
    text = layout.format(schema=toml_value(ours), lines="\n".join(lines), dotted="\n".join(dotted))
    document = ToolsDocument(text, lambda _: b"")
    changes = schema_changes(ours, theirs)
    for change in changes:
        assert document.edit("x", "result", change.edits)
    new = document.text()
    assert schema_changes(tomllib.loads(new)["tools"]["x"]["result"], theirs) == []
    assert [line for line in text.splitlines() if line.startswith("#") and line not in new] == []
    assert changes or new == text
