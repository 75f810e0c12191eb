"""Editing a tools file: what changes, and that nothing else does."""

from __future__ import annotations

import difflib
import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from drift.recorded import RECORDED, prompt_revision, revision
from hypothesis import given
from hypothesis import strategies as st

from agenta_ai_server.tools.drift.comparison import differences
from agenta_ai_server.tools.drift.deployed import PromptInterface, read_deployed
from agenta_ai_server.tools.drift.document import NewTool, ToolsDocument, free_name
from agenta_ai_server.tools.drift.toml import toml_key, toml_value
from agenta_ai_server.tools.tools_file.read import parse

if TYPE_CHECKING:
    from agenta_ai_server.agenta.management import Revision

FILE = """\
# Our tools, reviewed by Ada.

[tools."tools.acme.geo.capital"]   # the first one
application = "capital-json"
description = '''
Finds the capital.
'''
hints = { read_only = true }  # it changes nothing

# What it takes.
[tools."tools.acme.geo.capital".arguments]
type = "object"
additionalProperties = false
required = [
  "domain",  # always
]
properties.domain = { type = "string", minLength = 1 }   # one word

[[tools."tools.acme.geo.capital".examples]]
arguments = { domain = "geography" }

[tools."tools.acme.geo.capital".result]
type = "object"
required = ["capital", "size"]  # both
additionalProperties = false
properties.capital = { type = "string", description = "Its name." }
properties.size = { type = "integer" }

[tools."tools.acme.geo.other"]
application = "other"
description = "Another."
"""
NAME = "tools.acme.geo.capital"


def nothing_beside(name: str) -> bytes:
    raise ValueError(f"can't read {name}: No such file or directory")


def followed(text: str, deployed: Revision, *, widen: bool = False) -> tuple[str, list[str], list[str]]:
    """The new file, what was done, and what is left."""
    document = ToolsDocument(text, nothing_beside)
    prompt = read_deployed(deployed)
    (tool, *_) = parse(text.encode(), Path())
    done: list[str] = []
    left: list[str] = []
    for difference in differences(tool, prompt):
        said = document.follow(NAME, prompt, difference, widen=widen)
        (done if said else left).append(said or difference.text)
    return document.text(), done, left


def changes(old: str, new: str) -> list[str]:
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), n=0, lineterm="")
    return [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]


def test_only_what_differs_is_changed() -> None:
    new, done, left = followed(FILE, revision(RECORDED["capital-json"]))
    assert changes(FILE, new) == ['+properties.country = { type = "string" }']
    assert done == ["Added the argument country, which callers may leave out."]
    assert left == ["result.size is no longer part of it.", "result.population is new."]


def test_a_result_allows_more_only_on_request() -> None:
    new, done, left = followed(FILE, revision(RECORDED["capital-json"]), widen=True)
    assert changes(FILE, new) == [
        '+properties.country = { type = "string" }',
        '-required = ["capital", "size"]  # both',
        '+required = ["capital", "population"]  # both',
        '-properties.size = { type = "integer" }',
        '+properties.population = { type = "integer" }',
    ]
    assert len(done) == 3
    assert left == []
    again, done, left = followed(new, revision(RECORDED["capital-json"]))
    assert (again, done, left) == (new, [], [])


def test_arguments_and_results_that_the_file_did_not_have() -> None:
    bare = f'[tools."{NAME}"]\napplication = "capital-json"\ndescription = "x" # y\n'
    new, _, left = followed(bare, revision(RECORDED["capital-json"]), widen=True)
    assert left == []
    assert new.startswith(bare)
    tool = tomllib.loads(new)["tools"][NAME]
    assert tool["arguments"] == {
        "type": "object",
        "additionalProperties": False,
        "properties": {"domain": {"type": "string"}, "country": {"type": "string"}},
    }
    assert tool["result"] == RECORDED["capital-json"]["data"]["schemas"]["outputs"]


@pytest.mark.parametrize(
    "arguments",
    [
        'arguments = { type = "object", required = ["domain"], properties = { domain = {} } }',
        'arguments.type = "object"\narguments.properties.domain = { type = "string" }',
        f'[tools."{NAME}".arguments]\ntype = "object"\n[tools."{NAME}".arguments.properties.domain]\ntype = "string"',
    ],
)
def test_each_way_to_write_a_schema(arguments: str) -> None:
    old = f'[tools."{NAME}"]\napplication = "capital"\ndescription = "x"\n{arguments}\n# the end\n'
    new, done, _ = followed(old, revision(RECORDED["capital"]))
    assert len(done) == 1
    assert "# the end" in new
    tool = tomllib.loads(new)["tools"][NAME]
    assert tool["arguments"]["properties"]["country"] == {"type": "string"}


def test_a_schema_in_a_file_beside_is_changed_there() -> None:
    text = f'[tools."{NAME}"]\napplication = "c"\ndescription = "x"\narguments = {{ file = "a.json" }}\n'
    beside = {"a.json": b'{"type": "object", "properties": {"domain": {"title": "D"}}}'}
    document = ToolsDocument(text, lambda name: beside[name])
    prompt = read_deployed(revision(RECORDED["capital"]))
    (tool,) = parse(text.encode(), Path(), read_beside=lambda path: beside[path.name])
    (difference,) = differences(tool, prompt)
    assert document.follow(NAME, prompt, difference, widen=False)
    assert document.text() == text
    assert json.loads(document.beside["a.json"])["properties"] == {
        "domain": {"title": "D"},
        "country": {"type": "string"},
    }


def added(deployed: PromptInterface, text: str = "") -> ToolsDocument:
    document = ToolsDocument(text, nothing_beside)
    document.add(NewTool("tools.acme.geo.capital_2", "capital", "", "", 'Says "hi".', deployed))
    return document


@pytest.mark.parametrize("slug", [slug for slug in RECORDED if slug not in ("hook-app", "code-app")])
def test_a_new_tool_fits_what_is_deployed(slug: str) -> None:
    deployed = read_deployed(revision(RECORDED[slug]))
    new = added(deployed, FILE).text()
    assert new.startswith(FILE)
    tools = parse(new.encode(), Path())
    assert tools[-1].description == 'Says "hi".'
    assert differences(tools[-1], deployed) == []
    assert max(map(len, new.splitlines())) <= 120


def test_a_schema_with_a_null_stands_beside() -> None:
    schema = {"type": "object", "properties": {"mood": {"enum": ["good", None]}}}
    deployed = PromptInterface("1", "completion", result=schema)
    document = added(deployed)
    assert 'file = "capital_2.result.json"' in document.text()
    assert json.loads(document.beside["capital_2.result.json"]) == schema
    occupied = ToolsDocument("", lambda _: b"{}")
    with pytest.raises(ValueError, match=r"capital_2\.result\.json already exists"):
        occupied.add(NewTool("tools.acme.geo.capital_2", "capital", "", "", "x", deployed))


def test_a_null_cannot_be_written_into_the_file() -> None:
    prompt = {"messages": [{"role": "user", "content": "{{domain}}"}]}
    schema = {"enum": ["a", None]}
    format_ = {"type": "json_schema", "json_schema": {"schema": {"type": "object", "properties": {"mood": schema}}}}
    new, done, left = followed(
        FILE, prompt_revision({**prompt, "llm_config": {"response_format": format_}}), widen=True
    )
    assert "result.mood is new." in left
    assert "mood" not in new
    assert len(done) == 3


@pytest.mark.parametrize(
    ("slug", "name"),
    [
        ("classify-ticket", "classify_ticket"),
        ("Classify.Ticket", "classify_ticket"),
        ("--", "prompt"),
        ("capital", "capital_2"),
    ],
)
def test_names(slug: str, name: str) -> None:
    assert free_name("acme", "geo", slug, ["tools.acme.geo.capital"]) == f"tools.acme.geo.{name}"


JSON: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda each: st.lists(each) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), each),
    max_leaves=20,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON))
def test_values_are_read_back_as_they_were(values: dict[str, Any]) -> None:
    text = "".join(f"{toml_key(key)} = {toml_value(each)}\n" for key, each in values.items())
    assert tomllib.loads(text) == values
