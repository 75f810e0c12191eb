"""Templates and answers that nobody thought of: what is whole is accepted, what is broken is not, and nothing crashes.

A template is made from pieces of which it is known what they use, so that what must become of an answer is known
without the code under test.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Any

import jinja2.sandbox
import mystace
import pytest
from calls import tool_call
from hypothesis import assume, given
from hypothesis import strategies as st

from agenta_ai_server.agenta.completion_service import Completion
from agenta_ai_server.concurrency.limiter import ConcurrencyLimiter
from agenta_ai_server.domain.errors import Reason, Refused, ToolFailed
from agenta_ai_server.domain.values import Attempt
from agenta_ai_server.tools.cases.spending import Spending
from agenta_ai_server.tools.catalog import Dependencies
from agenta_ai_server.tools.computing import Computing
from agenta_ai_server.tools.refine_prompt.guarantee import Guarantee
from agenta_ai_server.tools.refine_prompt.tool import provide
from agenta_ai_server.tools.workers.pool import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from agenta_ai_server.agenta.completion_service import AnyPrompt
    from agenta_ai_server.domain.outcome import ToolOutcome
    from agenta_ai_server.domain.tool_call import ToolCall
from agenta_ai_server.domain.values import Json

NAMES = ["a", "b", "name", "order", "x_1"]
ROLES = ["system", "developer", "user", "assistant"]
LITERAL = st.text(st.characters(codec="utf-8", exclude_characters="{}\0", exclude_categories=["Cc"]), min_size=1)


@dataclass(frozen=True)
class Piece:
    """A bit of a text, and the variables that it uses."""

    text: str
    uses: frozenset[str] = frozenset()


def _pieces(forms: Mapping[str, str]) -> st.SearchStrategy[Piece]:
    """Pieces of these forms, each with a name for its @, and what it then uses."""
    return st.builds(
        lambda form, name: Piece(form.replace("@", name), frozenset({forms[form].replace("@", name)} - {""})),
        st.sampled_from(list(forms)),
        st.sampled_from(NAMES),
    )


FORMS: dict[str, dict[str, str]] = {
    "curly": {"{{@}}": "@", "{{ @ }}": "@", "{{@.id}}": "@.id", "{{$.@.id}}": "$.@.id", "{{/@/0}}": "/@/0", "{{@": ""},
    "fstring": {"{@}": "@", "{@!r:>9}": "@", "{@[id]}": "@[id]", "{{@}}": "", "{@:<5}": "@"},
    "jinja2": {
        "{{ @ }}": "@",
        "{{ @|string|upper }}": "@",
        "{{ @s.id }}": "@s.id",
        "{{ @s['id'] }}": "@s.id",
        "{% if @_on %}yes{% endif %}": "?@_on",
        "{# @ #}": "",
        "{% raw %}{{ @ }}{% endraw %}": "",
        "{% for i in @_list %}-{% endfor %}": "?@_list",
    },
    "mustache": {
        "{{@}}": "@",
        "{{{ @ }}}": "@",
        "{{&@}}": "@",
        "{{#@_on}}yes{{/@_on}}": "#@_on",
        "{{^@_on}}no{{/@_on}}": "^@_on",
        "{{! @ }}": "",
    },
}
BREAKERS = {
    "curly": ["{{$x}}", "{{a[0]}}"],
    "fstring": ["{", "}", "{}", "{0}", '{"a": 1}', "{a!x}"],
    "jinja2": ["{% if a %}", "{% endif %}", "{{ a|nope }}", "{{ a", "{% include 'a' %}", "{{ 'a'() }}"],
    "mustache": ["{{#a}}", "{{/a}}", "{{> a}}", "{{}}"],
}


class _Text(str):
    """A value that is a text, has an id, and may be repeated."""

    id = "7"

    def __getitem__(self, key: Any) -> Any:
        return "7"


def _inputs() -> dict[str, Any]:
    names = [name + suffix for name in NAMES for suffix in ("", "s", "_on", "_list")]
    return {name: _Text("value") for name in names}


def _render_fstring(text: str) -> object:
    return Formatter().vformat(text, (), _inputs())


def _render_jinja2(text: str) -> object:
    return jinja2.sandbox.ImmutableSandboxedEnvironment().from_string(text).render(_inputs())


def _render_mustache(text: str) -> object:
    return mystace.render_from_template(text, _inputs())


RENDER: dict[str, Callable[[str], object]] = {
    "curly": str,
    "fstring": _render_fstring,
    "jinja2": _render_jinja2,
    "mustache": _render_mustache,
}


class Model:
    """A completion service that writes one text."""

    def __init__(self) -> None:
        self.text = ""

    async def complete(self, prompt: AnyPrompt, inputs: Mapping[str, Json], call: ToolCall) -> Completion:
        return Completion(self.text, Attempt("0" * 32, 0.0))


class Service:
    """The tool with whatever model, on a loop of its own, whose workers serve all examples."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        computing, self._workers = Computing(), Workers()
        self._model = Model()
        self._tool = provide(
            Dependencies(
                self._model,
                {"refine_prompt": "app"},
                ConcurrencyLimiter(),
                Guarantee(computing, self._workers),
                computing,
                self._workers,
                Spending(),
            )
        )

    def run(self, source: str, written: str) -> ToolOutcome:
        self._model.text = written
        call = tool_call(arguments={"prompt_template_json": source})
        return self._runner.get_loop().run_until_complete(self._tool.run(call))

    def close(self) -> None:
        self._runner.run(self._workers.aclose())
        self._runner.close()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


def refined(service: Service, template: object, written: str) -> ToolOutcome | None:
    """What becomes of what a model writes; ``None`` if it is discarded, for the one reason that is allowed."""
    try:
        return service.run(json.dumps(template), written)
    except ToolFailed as caught:
        failure = caught
    assert failure.reason is Reason.UPSTREAM_OUTPUT_INVALID
    assert failure.violations
    assert len(failure.message.encode()) < 4096
    return None


def _messages(texts: list[list[Piece]], roles: list[str]) -> list[dict[str, str]]:
    return [
        {"role": role, "content": "".join(piece.text for piece in text)}
        for role, text in zip(roles, texts, strict=True)
    ]


def _uses(texts: list[list[Piece]]) -> frozenset[str]:
    return frozenset[str]().union(*(piece.uses for text in texts for piece in text))


@st.composite
def conversations(draw: st.DrawFn, name: str) -> tuple[list[list[Piece]], list[str]]:
    piece = st.one_of(st.builds(Piece, LITERAL), _pieces(FORMS[name]))
    texts = draw(st.lists(st.lists(piece, min_size=1, max_size=6), min_size=1, max_size=4))
    for text in texts:
        assume("".join(piece.text for piece in text).strip())
    return texts, draw(st.lists(st.sampled_from(ROLES), min_size=len(texts), max_size=len(texts)))


@st.composite
def rewrites(draw: st.DrawFn, name: str, texts: list[list[Piece]]) -> list[list[Piece]]:
    """The pieces of a conversation shuffled over its messages, with some left out, repeated, changed or new."""
    every = [piece for text in texts for piece in text]
    kept = draw(st.lists(st.sampled_from(every), max_size=2 * len(every)))
    if draw(st.booleans()):
        kept += every
    new = draw(st.lists(st.one_of(st.builds(Piece, LITERAL), _pieces(FORMS[name])), max_size=2))
    pieces = draw(st.permutations(kept + (new if draw(st.booleans()) else [])))
    written: list[list[Piece]] = [[] for _ in texts]
    for piece in pieces:
        written[draw(st.integers(0, len(texts) - 1))].append(piece)
    return [text or [Piece("x")] for text in written]


def _is_glued(texts: list[list[Piece]]) -> bool:
    """Whether two pieces may have become another by standing side by side, as ``{{`` and a name do."""
    return any("{{" in piece.text and "}}" not in piece.text for text in texts for piece in text)


def _says_something(text: list[Piece]) -> bool:
    """Whether a text says something whatever its inputs are: the condition of a section may be false."""
    return any(
        not piece.text.startswith(("{{#", "{{^", "{%"))
        if piece.uses
        else piece.text.isprintable() and piece.text[0] not in " {"
        for piece in text
    )


@pytest.mark.parametrize("name", FORMS)
@given(data=st.data())
def test_an_answer_passes_exactly_if_it_uses_what_the_prompt_used(
    name: str, service: Service, data: st.DataObject
) -> None:
    texts, roles = data.draw(conversations(name))
    written = data.draw(rewrites(name, texts))
    assume(not _is_glued(texts + written))
    assume(all(_says_something(text) for text in texts + written))
    template = {"messages": _messages(texts, roles), "template_format": name, "n": [1.5, {"é": None}]}
    answer = {"messages": _messages(written, roles), "summary": "s"}
    result = refined(service, template, json.dumps(answer))
    assert (result is not None) == _keeps(name, _uses(texts), _uses(written))
    if result:
        structured: Any = result.structured
        assert structured["messages"] == answer["messages"]
        assert json.loads(structured["prompt_template_json"]) == {**template, "messages": answer["messages"]}
        for message in structured["messages"]:
            RENDER[name](message["content"])


def _keeps(name: str, old: frozenset[str], new: frozenset[str]) -> bool:
    """Whether one set of variables may take the place of another, as the documentation has it."""
    if name == "mustache":
        # Whether a section or an inverted one: both depend on the input, but what an inverted one says isn't lost.
        plain_old, plain_new = ({each.lstrip("#^") for each in names} for names in (old, new))
        return plain_old == plain_new and {each for each in old if each[0] == "^"} <= new
    return old == new


def _without_one(messages: list[Json], at: int) -> list[Json]:
    return messages[:at] + messages[at + 1 :]


def _with(messages: list[Any], at: int, **changes: Any) -> list[Json]:
    return [{**message, **changes} if index == at else message for index, message in enumerate(messages)]


BREAKS: dict[str, Callable[[list[Any], int], list[Json]]] = {
    "a message less": _without_one,
    "a message more": lambda messages, at: [*messages, messages[at]],
    "another role": lambda messages, at: _with(
        messages, at, role="system" if messages[at]["role"] == "user" else "user"
    ),
    "no role": lambda messages, at: _with(messages, at, role=None),
    "no content": lambda messages, at: _with(messages, at, content=None),
    "parts": lambda messages, at: _with(messages, at, content=[{"type": "text", "text": messages[at]["content"]}]),
    "blank": lambda messages, at: _with(messages, at, content=" \n"),
    "a number": lambda messages, at: _with(messages, at, content=7),
    "a string": lambda messages, at: [*messages[:at], messages[at]["content"], *messages[at + 1 :]],
}


@pytest.mark.parametrize("name", FORMS)
@given(data=st.data())
def test_one_break_is_enough(name: str, service: Service, data: st.DataObject) -> None:
    texts, roles = data.draw(conversations(name))
    assume(not _is_glued(texts))
    messages = _messages(texts, roles)
    at = data.draw(st.integers(0, len(messages) - 1))
    kind = data.draw(st.sampled_from([*BREAKS, "syntax", "a new variable"]))
    if kind == "syntax":
        broken = data.draw(st.sampled_from(BREAKERS[name]))
        answer: list[Json] = _with(messages, at, content=messages[at]["content"] + " " + broken)
    elif kind == "a new variable":
        new = "{fresh}" if name == "fstring" else "{{fresh}}"
        answer = _with(messages, at, content=messages[at]["content"] + " " + new)
    else:
        answer = BREAKS[kind](list(messages), at)
    template = {"messages": messages, "template_format": name}
    assert refined(service, template, json.dumps({"messages": answer, "summary": "s"})) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(codec=None)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["messages", "role", "content", "summary", "x"]), inner, max_size=4)
    ),
)
PROMPT = {"messages": [{"role": "user", "content": "Hello {{a}}"}]}


@given(written=st.one_of(st.text(st.characters(codec="utf-8")), JSON.map(json.dumps)))
def test_whatever_a_model_writes_is_read_or_discarded(service: Service, written: str) -> None:
    result = refined(service, PROMPT, written)
    if result:
        assert "{{a}}" in str(result.structured)


@given(template=st.one_of(st.text(st.characters(codec="utf-8"), min_size=1), JSON.map(json.dumps)))
def test_whatever_a_caller_sends_is_refined_or_refused(service: Service, template: str) -> None:
    error: Refused | ToolFailed | None = None
    try:
        service.run(template, "{}")
    except (Refused, ToolFailed) as caught:
        error = caught
    assert error
    assert error.reason in {Reason.ARGUMENTS_INVALID, Reason.UPSTREAM_OUTPUT_INVALID}
    assert error.message.encode()


def test_the_pieces_render() -> None:
    for name, forms in FORMS.items():
        for form in forms:
            RENDER[name](form.replace("@", "a"))
