"""How a deployed schema differs from the file's: what is said, and how the file would follow."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from agenta_ai_server.tools.drift.document import apply_edit
from agenta_ai_server.tools.drift.schemas import schema_changes

OURS: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["queue", "urgency"],
    "properties": {
        "queue": {"type": "string", "enum": ["billing", "sales"], "description": "Where it goes."},
        "urgency": {"type": "integer", "minimum": 1, "maximum": 5},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    },
    "$defs": {"tag": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 40}}}},
}


def changed(**properties: Any) -> dict[str, Any]:
    """The same with other properties; None removes one."""
    schema = copy.deepcopy(OURS)
    for name, each in properties.items():
        if each is None:
            del schema["properties"][name]
            schema["required"] = [kept for kept in schema["required"] if kept != name]
        else:
            schema["properties"][name] = each
    return schema


def with_required(*names: str) -> dict[str, Any]:
    return {**copy.deepcopy(OURS), "required": list(names)}


CASES: dict[str, tuple[dict[str, Any], list[tuple[str, str, bool]]]] = {
    # the deployed schema: place, text and whether the file would allow more
    "the same": (copy.deepcopy(OURS), []),
    "annotations": (changed(queue={"type": "string", "enum": ["sales", "billing"], "title": "Queue"}), []),
    "a limit that only the file has": (changed(urgency={"type": "integer", "minimum": 1}), []),
    "a value gained": (
        changed(queue={"type": "string", "enum": ["billing", "sales", "spam"]}),
        [("queue", 'may also be "spam"', True)],
    ),
    "a value lost": (
        changed(queue={"type": "string", "enum": ["billing"]}),
        [("queue", 'is never "sales" any more', False)],
    ),
    "a value replaced": (
        changed(queue={"type": "string", "enum": ["billing", "spam"]}),
        [("queue", 'may also be "spam" and is never "sales" any more', True)],
    ),
    "no list of values": (
        changed(queue={"type": "string"}),
        [("queue", "may have other values than the listed ones", True)],
    ),
    "another type": (
        changed(urgency={"type": "number", "minimum": 1, "maximum": 5}),
        [("urgency", "has the type number, not integer", True)],
    ),
    "a narrower type": (
        changed(queue={"type": "string", "enum": ["billing", "sales"]}, urgency={"type": "integer", "minimum": 2}),
        [("urgency", "has minimum 2, not 1", False)],
    ),
    "a wider limit": (
        changed(urgency={"type": "integer", "minimum": 1, "maximum": 9}),
        [("urgency", "has maximum 9, not 5", True)],
    ),
    "a new limit": (
        changed(tags={"type": "array", "maxItems": 3, "items": {"$ref": "#/$defs/tag"}}),
        [("tags", "has maxItems 3", False)],
    ),
    "a property gained": (changed(language={"type": "string"}), [("language", "is new", True)]),
    "an optional property lost": (changed(note=None), [("note", "is no longer part of it", False)]),
    "a required property lost": (changed(urgency=None), [("urgency", "is no longer part of it", True)]),
    "no longer required": (with_required("queue"), [("urgency", "may be missing now", True)]),
    "required now": (with_required("queue", "urgency", "note"), [("note", "is always there now", False)]),
    "within a reference": (
        changed(tags={"type": "array", "items": {"type": "object", "properties": {"name": {"type": "integer"}}}}),
        [("tags[].name", "has the type integer, not string", True)],
    ),
    "alternatives": (
        changed(note={"anyOf": [{"type": "string"}, {"type": "integer"}]}),
        [("note", "has another anyOf", True)],
    ),
    "no alternatives": (changed(note={}), [("note", "has no anyOf", True)]),
    "other keys": (
        {name: each for name, each in OURS.items() if name != "additionalProperties"},
        [("*", "may now be anything", True)],
    ),
    "any value": (changed(tags={"type": "array"}), [("tags[]", "may now be anything", True)]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_has_changed(case: str) -> None:
    theirs, expected = CASES[case]
    found = schema_changes(OURS, theirs)
    assert [(change.place, change.text, change.widens) for change in found] == expected


@pytest.mark.parametrize("case", CASES)
def test_with_the_edits_the_file_follows(case: str) -> None:
    theirs, _ = CASES[case]
    followed = copy.deepcopy(OURS)
    for change in schema_changes(OURS, theirs):
        for edit in change.edits:
            apply_edit(followed, edit, copy.deepcopy)
    assert schema_changes(followed, theirs) == []
    assert followed["properties"]["queue"].get("description") == "Where it goes."


def test_the_types_of_listed_values_need_not_be_written() -> None:
    both = {"type": "string", "enum": ["a", "b"]}
    assert schema_changes({"enum": ["b", "a"]}, both) == schema_changes(both, {"enum": ["a", "b"]}) == []
    assert schema_changes({"const": 1}, {"type": "integer", "enum": [1]}) == []
    assert [change.text for change in schema_changes({"enum": ["a"]}, {"type": "string"})] == [
        "may have other values than the listed ones"
    ]


def test_elements_that_were_free() -> None:
    (change,) = schema_changes({"type": "array"}, {"type": "array", "items": {"type": "string"}})
    assert (change.place, change.text, change.widens) == ("[]", "is no longer unrestricted", False)


def test_who_allows_more_keys_has_decided_so() -> None:
    ours = {name: each for name, each in OURS.items() if name != "additionalProperties"}
    assert schema_changes(ours, OURS) == []


def test_a_property_may_be_called_like_a_keyword() -> None:
    def one(kind: str) -> dict[str, Any]:
        return {"anyOf": [{"type": "object", "properties": {"title": {"type": kind}}}]}

    assert schema_changes(one("string"), one("string")) == []
    assert [change.text for change in schema_changes(one("string"), one("integer"))] == ["has another anyOf"]


def test_schemas_that_refer_to_themselves() -> None:
    def tree(kind: str) -> dict[str, Any]:
        node = {"type": "object", "properties": {"value": {"type": kind}, "next": {"$ref": "#/$defs/node"}}}
        return {"$ref": "#/$defs/node", "$defs": {"node": node}}

    assert schema_changes(tree("string"), tree("string")) == []
    assert [change.place for change in schema_changes(tree("string"), tree("integer"))] == ["value"]
    gained = schema_changes({"type": "object"}, {"type": "object", "properties": {"tree": tree("string")}})
    assert [(change.place, change.text) for change in gained] == [("tree", "is new")]
