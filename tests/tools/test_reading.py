"""What a tools file may say, and what it may not: every fault with its line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenta_ai_server.tools.tools_file.contradictions import Limits
from agenta_ai_server.tools.tools_file.lines import line_of, locate
from agenta_ai_server.tools.tools_file.read import ToolsFileError, parse, read

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).parents[2] / "examples/tools.toml"
GOOD = """\
[tools."tools.a.b.c"]
application = "app"
description = "Does something."
arguments = { type = "object", properties = { text = { type = "string" } } }
"""
RESULT = 'result = { type = "object", properties = { n = { type = "integer" } } }\n'
LONG = "x" * 70_000


def faults(text: str, folder: Path = Path(), limits: Limits | None = None) -> list[str]:
    with pytest.raises(ToolsFileError) as error:
        parse(text.encode(), folder, limits or Limits())
    return error.value.faults


def test_the_example() -> None:
    classify, extract, summarize = read(EXAMPLES)
    assert (classify.name, classify.application) == ("tools.examples.support.classify_ticket", "classify-ticket")
    assert (classify.permission, classify.environment, classify.kind) == ("run_service", "", "completion")
    assert (classify.timeout_seconds, classify.repairs, classify.hints.read_only) == (20.0, 0, True)
    assert classify.examples[0].result == {"queue": "billing", "urgency": 2}
    assert extract.result == json.loads(EXAMPLES.with_name("tools").joinpath("extract_order.result.json").read_text())
    assert (extract.repairs, extract.feedback) == (1, "corrections")
    assert summarize.result is None
    for tool in (classify, extract, summarize):
        line = EXAMPLES.read_text().splitlines()[tool.line - 1]
        assert line == f'[tools."{tool.name}"]'


def test_what_may_be_left_out() -> None:
    (tool,) = parse(b'[tools."tools.a.b.say_hello"]\napplication="app"\ndescription="d"', Path())
    assert tool.title == "Say hello"
    assert tool.arguments == {"type": "object", "additionalProperties": False}
    assert (tool.result, tool.timeout_seconds, tool.examples, tool.prompt) == (None, None, (), None)
    assert parse(b"", Path()) == ()


def test_a_list_of_messages_makes_it_a_chat() -> None:
    chat = GOOD.replace("text", "messages").replace('{ type = "string" }', '{ type = "array" }')
    assert parse(chat.encode(), Path())[0].kind == "chat"
    assert parse((chat + 'kind = "completion"\n').encode(), Path())[0].kind == "completion"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x = 1", ["line 1: x: there is no such key"]),
        ("[tools", ["isn't TOML: "]),
        ("tools = 1", ["line 1: must be a table"]),
        ('[tools."tools.a.b"]', ["line 1: tools.a.b: must have the form tools.<provider>.<group>.<tool>, in quotes"]),
        ("\n[tools.acme]", ["line 2: acme: must have the form"]),
        ('[tools."tools.a.b.c"]', ["line 1: tools.a.b.c.application: Field req", "line 1: .*description: Field req"]),
        (GOOD + "foo = 1", ["line 5: tools.a.b.c.foo: there is no such key"]),
        (GOOD + "hints = { readonly = true }", ["line 5: tools.a.b.c.hints.readonly: there is no such key"]),
        (GOOD + "timeout_seconds = 0", ["line 5: .*timeout_seconds: Input should be greater than 0"]),
        (GOOD + "timeout_seconds = 100", ["line 5: .*timeout_seconds: must be at most 90, the service's own"]),
        (GOOD + "timeout_seconds = 1", ["line 5: .*timeout_seconds: must be more than 2"]),
        (GOOD + "repairs = 4\n" + RESULT, ["line 5: .*repairs: Input should be less than or equal to 3"]),
        (GOOD + "repairs = 1", ["line 5: .*repairs: needs a result schema", "line 5: .*repairs: needs feedback"]),
        (GOOD + 'feedback = "text"', ["line 5: .*feedback: is an argument"]),
        (GOOD + 'kind = "chat"', ['line 1: tools.a.b.c: a chat application needs an argument "messages"']),
        (GOOD + 'permission = "Run Service"', ["line 5: .*permission: String should match pattern"]),
        (GOOD.replace('type = "object", ', ""), ['line 4: .*arguments: must have type = "object"']),
        (GOOD + 'result.type = "objekt"', ["line 5: .*result.type: must be array, boolean, integer"]),
        (GOOD + "result = { $x = 1 }", ["isn't TOML"]),
        (GOOD + "result = { minimum = 2026-01-31 }", ["line 5: .*result.minimum: is a date or time"]),
        (GOOD + "result = { minimum = nan }", ["line 5: .*result.minimum: is nan, which JSON doesn't have"]),
        (GOOD + "result = { maximum = 9007199254740993 }", ["line 5: .*result.maximum: is an integer beyond"]),
        (GOOD + "result = { pattern = '(?=a)' }", ["line 5: .*result.pattern: must be a regular expression"]),
        (GOOD + "result = { pattern = 'a{100000}' }", ["line 5: .*result.pattern: must be a regular expression"]),
        (GOOD + "result = { '$ref' = 'http://127.0.0.1/s' }", ["line 5: .*: must refer to a place in the same schema"]),
        (GOOD + "result = { '$ref' = '#/$defs/x' }", ["line 5: .*: refers to '#/\\$defs/x', which isn't there"]),
        (GOOD + "result = { '$ref' = '#' }", ["line 5: .*: more than 50 subschemas apply"]),
        (
            GOOD + f'result = {{ title = "{LONG}" }}',
            ["line 5: .*result: has 70,.* bytes as JSON, more than the maximum of 65,536"],
        ),
        (
            GOOD + 'result = { file = "/etc/passwd" }',
            ["line 5: .*result.file: must be the path of a file in the tools"],
        ),
        (
            GOOD + 'result = { file = "../x" }',
            ["line 5: .*result.file: must be the path of a file in the tools file's"],
        ),
        (GOOD + 'result = { file = "gone.json" }', ["line 5: .*result.file: can't read .*gone.json: No such file"]),
        (GOOD + 'result = { file = "twice.json" }', ["line 5: .*twice.json has the key 'a' twice in one object"]),
        (GOOD + 'result = { file = "list.json" }', ["line 5: .*list.json must contain a JSON object"]),
        (
            GOOD + 'prompt = "prompt.toml"',
            ["line 4: .*text: isn't an input of prompt.toml", "line 4: .*lacks 'tone', which is an input of"],
        ),
        (GOOD + 'prompt = "twice.json"', ["line 5: .*prompt: twice.json isn't TOML"]),
        (
            GOOD + '[[tools."tools.a.b.c".examples]]\n[[tools."tools.a.b.c".examples]]\narguments = { text = 1 }\n',
            ["line 6: tools.a.b.c.examples.1: arguments.text: Must be of type string"],
        ),
        (
            GOOD + RESULT + '[[tools."tools.a.b.c".examples]]\nresult = { n = "x" }\n',
            ["line 7: tools.a.b.c.examples.0.result: result.n: Must be of type integer"],
        ),
        (
            GOOD + '[[tools."tools.a.b.c".examples]]\nresult = { n = 1 }\n',
            ["line 6: .*result: must be a text: the tool has no result schema"],
        ),
        (
            GOOD.replace('{ type = "string" }', '{ type = "string", default = 1 }'),
            ["line 4: .*text.default: doesn't match its own schema: Must be of type string"],
        ),
        (GOOD.replace("tools.a.b.c", "tools.agenta.api.refine_prompt"), ["line 1: .*: is the name of a built-in tool"]),
    ],
)
def test_faults(text: str, expected: list[str], tmp_path: Path) -> None:
    tmp_path.joinpath("twice.json").write_text('{"a": 1, "a": 2}')
    tmp_path.joinpath("list.json").write_text("[]")
    tmp_path.joinpath("prompt.toml").write_text('input_keys = ["tone"]')
    found = faults(text, tmp_path, Limits(frozenset({"tools.agenta.api.refine_prompt"}), 90, 2))
    assert len(found) == len(expected), found
    for fault, pattern in zip(found, expected, strict=True):
        assert re.match(pattern, fault), fault


def test_all_faults_of_all_tools_at_once() -> None:
    text = "".join(
        GOOD.replace("tools.a.b.c", f"tools.a.b.c{n}").replace('"app"', "1") + "result.type = 1\n" for n in range(30)
    )
    found = faults(text)
    assert [fault.partition(":")[0] for fault in found] == [
        f"line {5 * n + offset}" for n in range(30) for offset in (2, 5)
    ]
    with pytest.raises(ToolsFileError, match="and 10 more errors"):
        parse(text.encode(), Path())


@pytest.mark.parametrize("deep", [f"result = {{ x = {'[' * 5000}{']' * 5000} }}", f"result.{'.'.join('a' * 5000)} = 1"])
def test_nested_too_deeply(deep: str) -> None:
    assert faults(GOOD + deep) == ["is nested too deeply"]


def test_there_are_bounds() -> None:
    def some(count: int, more: str = "") -> bytes:
        return "".join((GOOD + more).replace("tools.a.b.c", f"tools.a.b.c{n}") for n in range(count)).encode()

    assert len(parse(some(500), Path())) == 500
    assert faults(some(501).decode()) == ["line 1: there are 501 tools, more than the maximum of 500"]
    (fault,) = faults(some(400, f'result = {{ title = "{"x" * 6000}" }}\n').decode())
    assert "bytes together, more than the maximum of 2,097,152" in fault
    (fault,) = faults("".join(GOOD.replace("b.c", f"b.c{n}") + f'permission = "p{n}"\n' for n in range(21)))
    assert "21 different permissions are used, more than the maximum of 20" in fault


def test_a_start_does_not_pay_for_what_is_not_used() -> None:
    look = (
        "import asyncio, sys; from agenta_ai_server.assembly.service import find_faults; "
        "from agenta_ai_server.settings import read; settings = read({'AGENTA_AI_GRPC_AUTH': 'none'}).settings; "
        "asyncio.run(find_faults(settings)); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True).stdout.split()
    assert "agenta_ai_server.tools.refine_prompt.tool" in loaded
    of_a_file = {"jsonschema_rs", "jsonschema", "agenta_ai_server.tools.tools_file.read"}
    assert not {*of_a_file, "agenta_ai_server.tools.cases.tool"}.intersection(loaded)


def test_not_utf8() -> None:
    with pytest.raises(ToolsFileError, match=r"isn't UTF-8 \(at byte 2\)"):
        parse(b"# \xff", Path())


# --- The lines

_KEYS = st.sampled_from(["a", "b-c", '"q.r"', "'s t'", "d . e", '"\\u0061\\""'])
_SCALARS = [
    "1",
    "1.5",
    "true",
    '"]}#,"',
    "'#'",
    '"""x\n[a]\ny = "1\\""""',
    "'''\n]}\n'''",
    "1979-05-27 07:32:00",
    '"\\\\"',
]


def _values(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    arrays = st.lists(inner, max_size=3).map(lambda items: "[ # ]\n" + " ,\n".join(items) + "\n]")
    tables = st.dictionaries(st.sampled_from(["k", '"l m"', "n"]), inner, max_size=3).map(
        lambda table: "{" + ", ".join(f"{key} = {value}" for key, value in table.items()) + "}"
    )
    return arrays | tables


_VALUES = st.recursive(st.sampled_from(_SCALARS), _values, max_leaves=6)
_LINES = st.one_of(
    st.tuples(_KEYS, _VALUES).map(lambda pair: f"{pair[0]} = {pair[1]}  # x = 1"),
    _KEYS.map(lambda key: f"[{key}]"),
    _KEYS.map(lambda key: f"[[ {key} ]]"),
    st.sampled_from(["", "# [x]"]),
)


def _places(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if place:
        yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*place, key))


@given(st.lists(_LINES, max_size=8))
def test_each_key_has_the_line_that_it_stands_in(lines: list[str]) -> None:
    # Each line that makes the document invalid is left out: tomllib is the judge of that.
    good: list[str] = []
    for line in lines:
        try:
            tomllib.loads("\n".join([*good, line]))
        except tomllib.TOMLDecodeError:
            continue
        good.append(line)
    text = "\n".join(good)
    located = locate(text)
    places = set(_places(tomllib.loads(text)))
    assert set(located) <= places
    # What has no line is a table that only stands in the names of others.
    assert all(any(other[: len(place)] == place for other in located) for place in places - set(located))
    rows = text.split("\n")
    for place, number in located.items():
        assert 1 <= number <= len(rows)
        if isinstance(place[-1], str) and place[-1] in "abk":
            assert place[-1] in rows[number - 1] or "u0061" in rows[number - 1]
    assert line_of(located, ("nowhere",)) == 1
