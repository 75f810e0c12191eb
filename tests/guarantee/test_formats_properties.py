"""What holds for every text, checked against the renderers themselves."""

from __future__ import annotations

import asyncio
import math
import re
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import jinja2
import mystace
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jinja2.sandbox import SandboxedEnvironment

from agenta_ai_server.tools.refine_prompt.formats import READ, RENDERED
from agenta_ai_server.tools.refine_prompt.formats.syntax import TemplateSyntaxError
from agenta_ai_server.tools.refine_prompt.rendering import comparison
from agenta_ai_server.tools.refine_prompt.rendering.mustache import MustacheText
from agenta_ai_server.tools.refine_prompt.rendering.verdict import Fault
from agenta_ai_server.tools.workers.pool import LimitExceeded, Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# Jinja2's lexer leaves it to Python to complain about '\d', which is an error only in tests.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

_SPECIAL = [
    *"{}[]()<>#^/&!=%$.:|+-*~,'\"\\ \n\t\0aeixo019_",
    *("{{", "}}", "{%", "%}", "{#", "#}", "{{$.a", "{{ a }}", "{% if a %}", "{% endif %}", "{% for i in x %}"),
    *("{% endfor %}", "{% set x = ", "{% raw %}", "{% endraw %}", "{% macro m(a) %}", "{% endmacro %}", "{{#a}}"),
    *("{{/a}}", "{{=<% %>=}}", "<%", "%>", "|upper", "not ", " if ", " else ", ".items()", "\ud800", "é", "\U0001f600"),
]
anything = st.one_of(st.text(st.characters(codec=None)), st.lists(st.sampled_from(_SPECIAL), max_size=40).map("".join))


def read(template_format: str, text: str) -> Fault | None:
    """Read a text without an estimate of how long its check takes, which is longer on a slow or busy machine."""
    return comparison.read(template_format, [text], [], seconds=math.inf)


class Renderer:
    """Reads texts of the formats that are rendered, in a process that can be stopped."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._workers = Workers()

    def read(self, name: str, text: str) -> list[Fault] | None:
        """Return what is wrong with the text; ``None`` if that takes too much."""
        request = {"task": "read templates", "template_format": name, "old": [text], "fixed": []}
        try:
            return [Fault(*fault) for fault in self._runner.run(self._workers.ask(request, "test"))]
        except LimitExceeded:
            return None

    def close(self) -> None:
        self._runner.run(self._workers.aclose())
        self._runner.close()


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    renderer = Renderer()
    yield renderer
    renderer.close()


def _read(name: str, text: str) -> frozenset[str] | None:
    try:
        return READ[name](text)
    except TemplateSyntaxError as caught:
        error = caught
    assert str(error).encode()
    assert len(str(error)) < 400
    assert 1 <= error.line <= text.count("\n") + 1
    return None


def _over(alphabet: str | Iterable[str], size: int = 25) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(list(alphabet)), max_size=size).map("".join)


@pytest.mark.parametrize("name", READ)
@given(text=anything)
def test_any_text_is_read_or_refused(name: str, text: str) -> None:
    assert _read(name, text) == _read(name, text)


@pytest.mark.parametrize("name", READ)
@given(piece=anything, count=st.integers(1, 3000))
def test_repetition_is_read_or_refused(name: str, piece: str, count: int) -> None:
    _read(name, piece * min(count, 100_000 // max(len(piece), 1)))


@pytest.mark.parametrize("name", RENDERED)
@given(text=anything)
def test_any_text_is_rendered_or_refused(name: str, renderer: Renderer, text: str) -> None:
    faults = renderer.read(name, text)
    assert faults == renderer.read(name, text)
    assert all(len(fault.description) < 400 for fault in faults or ())


@pytest.mark.parametrize("name", RENDERED)
@given(piece=anything, count=st.integers(1, 1000))
def test_repetition_is_rendered_or_refused(name: str, renderer: Renderer, piece: str, count: int) -> None:
    text = piece * min(count, 100_000 // max(len(piece), 1))
    renderer.read(name, text)


@given(text=_over(["{{", "}}", "{{=", "=}}", "| |", "|", "|=", "=|", "[ ]", "[=", "=]", "{", "}", "#", "a", " ", "\n"]))
def test_tags_of_mustache_are_counted_by_the_delimiters_in_use(text: str) -> None:
    try:
        tokens = mystace.tokenize.mustache_tokenizer(text)
    except mystace.MystaceError:
        return
    tags = [token for token in tokens if token.type is not mystace.tokenize.TokenType.LITERAL]
    assert MustacheText.tags(text) == len(tags)


# curly


@given(text=_over(["{", "}", "{{", "}}", " ", "\n", "a", ".", "/"]))
def test_curly_finds_what_the_plain_regular_expression_finds(text: str) -> None:
    found = _read("curly", text)
    names = {match.strip() for match in re.findall(r"\{\{(\s*.*?\s*)\}\}", text)}
    assert found == (names if all(name.strip(".") for name in names) else None)


# fstring


class _Value:
    """An input that has what is asked of it, and takes each spec that a text or a number takes."""

    def __getattr__(self, name: str) -> _Value:
        return self

    def __getitem__(self, key: object) -> _Value:
        return self

    def __repr__(self) -> str:
        return "5"

    def __format__(self, spec: str) -> str:
        for value in ("5", 5):
            try:
                return format(value, spec)
            except ValueError:
                pass
        return format(5.0, spec)


@given(text=_over([*"{}{}ab.[]!:rs>05f", "{a", "{a:", "{{", "}}", "{a}", ":{b}}"]))
def test_fstring_accepts_what_python_can_format(text: str) -> None:
    found = _read("fstring", text)
    # What a nested field does to a spec depends on its value.
    assume(not re.search(r":[^}]*\{", text))
    try:
        text.format_map(defaultdict(_Value))
        formats = True
    except ValueError:
        formats = False
    assert (found is not None) == formats


@given(text=_over(["{a}", "{b.c}", "{d[0].e!r}", "{f:>10}", "{g:{w}}", "{h:.{p}f}", "{{", "}}", "x", "\n"]))
def test_fstring_renders_with_its_variables_alone(text: str) -> None:
    found = _read("fstring", text)
    assert found is not None
    text.format(**{re.split(r"[.:\[]", path.removeprefix(":"))[0]: _Value() for path in found})


@given(
    text=_over(["{a}", "{a!r}", "{b:>9}", "{b:s}", "{b:.5}", "{c:d}", "{c:.2f}", "{c:{w}}", "{d:,}", "{d:.{w}f}"]),
    values=st.fixed_dictionaries(
        {name: st.sampled_from(["x", "5", 5, 0, -1, 0.5, 1e100]) for name in "abcd"} | {"w": st.integers(1, 9)}
    ),
)
def test_fstring_knows_which_values_a_text_demands(text: str, values: dict[str, object]) -> None:
    kinds = {str: "no text", int: "no whole number", float: "no fraction"}
    met = not any(f"{name}:{kinds[type(value)]}" in (_read("fstring", text) or ()) for name, value in values.items())
    try:
        text.format(**values)
        formats = True
    except ValueError:
        formats = False
    assert met == formats


# mustache

_MUSTACHE = [
    "{{a}}",
    "{{#a}}",
    "{{/a}}",
    "{{^b}}",
    "{{/b}}",
    "{{#b}}",
    "{{{c.d}}}",
    "{{& e }}",
    "{{.}}",
    "{{!x}}",
    "\n",
]


@given(text=_over([*_MUSTACHE, "{{", "}}", "{", "}", "#", "^", "&", "!", "=", " ", "a", "{{=<% %>=}}", "<%a%>", "<%"]))
def test_mustache_accepts_what_the_renderer_reads(text: str) -> None:
    fault = read("mustache", text)
    # These the renderer would take; Agenta doesn't.
    assume(fault is None or not re.search(r"\{\{\{?\s*\}\}", text))
    try:
        mystace.create_mustache_tree(text)
    except (mystace.MystaceError, IndexError):
        assert fault
    else:
        assert fault is None or "no name" in fault.description


@given(text=_over(_MUSTACHE, 12))
def test_mustache_may_stay_as_it_is(text: str) -> None:
    assume(read("mustache", text) is None)
    assert comparison.compare("mustache", [text], [], [text]) == []


# jinja2


_FORMS = [
    "{0}",
    "{0}",
    "{0}",
    "{0}|upper",
    "{0}|default({1})",
    "{0} ~ {1}",
    "({0} if {1} else {2})",
    "({0} ~ 1).upper()",
]
_FORMS += ["{0} == {1}", "({0} or {1})", "{0} is defined", "not {0}", "{0} in [{1}, {2}]"]
_FORMS += ["{0}|string|replace('1', {1}|string)"]


@st.composite
def jinja_expressions(draw: Callable[[st.SearchStrategy[Any]], Any], names: tuple[str, ...]) -> str:
    """An expression over given names, each of which may stand for text."""
    atom = st.sampled_from([*names, "a", "b", "o.p", "o['q'].r", "o['s t']", "l[0]", "l[0]", "'x'", "'1'"])
    form = draw(st.sampled_from(_FORMS))
    return str(form.format(draw(atom), draw(atom), draw(atom)))


# A block by its kind, and the names that are new inside of it. The outer name is {0}, the expression {1}, the body {2}.
_BLOCKS: dict[str, tuple[str, ...]] = {
    "{{% if {1} %}}{2}{{% elif a %}}{{% else %}}{2}{{% endif %}}": (),
    "{{% filter upper %}}{2}{{% endfilter %}}": (),
    "{{% for {0} in rows if {0}.ok %}}{{{{ loop.index }}}}{2}{{% endfor %}}": ("{0}.sku", "{0}['n'].m"),
    "{{% for {0}_k, {0}_v in pairs.items() %}}{2}{{% endfor %}}": ("{0}_k", "{0}_v.z"),
    "{{% with {0} = {1} %}}{2}{{% endwith %}}": ("{0}",),
    "{{% macro m{0}({0}) %}}{2}{{% endmacro %}}{{{{ m{0}({1}) }}}}": ("{0}",),
}


@st.composite
def jinja_templates(draw: Callable[[st.SearchStrategy[Any]], Any], names: tuple[str, ...] = (), depth: int = 0) -> str:
    """A template that renders, over inputs of fixed kinds: a, b texts; o an object; l, rows, pairs lists."""
    pieces = ["Some } text {# {{ no }} #}{% raw %}{{ no }}{% endraw %}\n"]
    for index in range(draw(st.integers(1, 3))):
        own, expression = f"v{depth}_{index}", draw(jinja_expressions(names))
        kind = draw(st.sampled_from(["output", "set", *(_BLOCKS if depth < 3 else ())]))
        if kind == "output":
            pieces.append(f"{{{{ {expression} }}}}")
        elif kind == "set":
            pieces.append(f"{{% set {own} = {expression} %}}")
            names = (*names, own)
        else:
            new = tuple(name.format(own) for name in _BLOCKS[kind])
            pieces.append(kind.format(own, expression, draw(jinja_templates((*names, *new), depth + 1))))
    return "".join(pieces)


@given(text=jinja_templates())
def test_jinja2_renders_and_may_stay_as_it_is(text: str) -> None:
    assert read("jinja2", text) is None
    assert comparison.compare("jinja2", [text], [], [text]) == []


@given(text=jinja_templates(), name=st.sampled_from(["o", "rows", "pairs", "l", "a", "b"]))
def test_jinja2_notices_every_name(text: str, name: str) -> None:
    renamed = re.sub(rf"\b{name}\b", "other", text)
    assume(read("jinja2", text) is None)
    assert bool(comparison.compare("jinja2", [text], [], [renamed])) is (renamed != text)


_JINJA = (
    "{{ a }};{% if a %};{% else %};{% endif %};{% for x in l %};{% for loop in l %};{% endfor %};{{ x.y }};{{ loop }};"
    "{% set x = a %};{% set x %};{% endset %};{% with x = a %};{% endwith %};{% block b %};{% endblock %};"
    "{% macro m(x) %};{% macro m(x, caller) %};{% endmacro %};{{ m(a) }};{{ caller() }};{% call m(a) %};{% endcall %};"
    "{% raw %};{% endraw %};{# ; #};{{ a; }};|upper;|nope;(;);not ;{% include 'a' %};{{ a|default(b=1, b=a) }}"
)


@given(text=_over(_JINJA.split(";"), 10))
def test_jinja2_accepts_only_what_compiles(text: str) -> None:
    fault = read("jinja2", text)
    try:
        SandboxedEnvironment().from_string(text)
    except (jinja2.TemplateSyntaxError, SyntaxError):
        assert fault
