"""What Agenta's renderers show, with inputs that look like real ones."""

from __future__ import annotations

import contextlib
import json
import random
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import jsonpath
import mystace
from jinja2 import meta
from jinja2.sandbox import SandboxedEnvironment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jinja2 import Template

WORDS = ("Amber", "Birch", "Cedar", "Delta", "Ember", "Fjord", "Grove", "Heron", "Inlet", "Jasper", "Knoll", "Lotus")
_PATH = re.compile(r"\{\{\{?\s*(\$[^{}]*?)\s*\}?\}\}")
_UNTOUCHED = re.compile(r"\{%-?\s*raw\s*-?%\}.*?\{%-?\s*endraw\s*-?%\}|\{#.*?#\}", re.DOTALL)
_COMMENT = re.compile(r"\{\{!.*?\}\}", re.DOTALL)
DELIMITERS = re.compile(r"\{\{=(\S+) (\S+)=\}\}")
_CURLY = re.compile(r"\{\{\s*(.*?)\s*\}\}")
SITUATIONS = 40


class Inputs:
    """Realistic inputs for a schema: all there first, then with chance deciding what is missing, empty or long."""

    def __init__(self, schema: dict[str, Any], seed: str) -> None:
        self._schema = schema
        self._random = random.Random(seed)
        self.values: set[str] = set()

    def situations(self, template_format: str) -> Iterator[dict[str, Any]]:
        """Yield inputs; the values in them that can be told from each other are in ``values``."""
        for number in range(SITUATIONS):
            self.values = set()
            self._count = self._random.randrange(1000)
            # Other than these two, a format takes all inputs or fails.
            risk = (
                0.0 if number < 4 or template_format in {"curly", "fstring"} else self._random.choice((0.1, 0.3, 0.6))
            )
            yield self._object(self._schema, risk, sizes=(2, 3, 4) if number < 4 else (0, 1, 2, 3, 5))

    def _object(self, schema: dict[str, Any], risk: float, sizes: tuple[int, ...]) -> dict[str, Any]:
        made = {}
        for name, kind in schema.items():
            if self._random.random() >= risk / 2:
                made[name] = self._value(kind, risk, sizes)
        return made

    def _value(self, kind: Any, risk: float, sizes: tuple[int, ...]) -> Any:
        chance = self._random
        match kind:
            case dict():
                return self._object(kind, risk / 2, sizes)
            case list():
                return [self._value(kind[0], risk / 2, sizes) for _ in range(chance.choice(sizes))]
            case tuple():
                return chance.choice(kind)
            case "flag":
                return chance.random() < 0.6
        self._count += chance.randint(1, 9)
        if kind == "number":
            value = chance.choice((self._count + 20_000, self._count)) if risk else self._count + 20_000
            if value >= 20_000:
                self.values.add(str(value))
            return value
        if chance.random() < risk / 2:
            return ""
        text = f"{chance.choice(WORDS)}{self._count:05d}{chance.choice(WORDS).lower()}"
        self.values.add(text)
        return text


def render(template_format: str, text: str, inputs: dict[str, Any]) -> str:
    """Render a text as Agenta does. Raises whatever that raises."""
    return {"jinja2": _jinja2, "mustache": _mustache, "curly": _curly, "fstring": _fstring}[template_format](
        text, inputs
    )


def names(template_format: str, text: str) -> set[str]:
    """The names of the inputs that a text asks for, or the steps of their paths, where rendering doesn't tell them."""
    if template_format == "mustache":
        return set(_steps(_COMMENT.sub("", text)))
    if template_format != "jinja2":
        return set()
    return meta.find_undeclared_variables(SandboxedEnvironment().parse(_PATH.sub("x", text)))


def _steps(text: str, opening: str = "{{") -> Iterator[str]:
    change = DELIMITERS.search(text)
    for tag in re.finditer(rf"{re.escape(opening)}[{{&#^]?\s*([A-Za-z_][\w.]*)", text[: change and change.start()]):
        yield from tag[1].split(".")
    if change:
        yield from _steps(text[change.end() :], change[1])


def _string(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _path(path: str, inputs: dict[str, Any]) -> str:
    found = jsonpath.findall(path, inputs)
    if not found:
        raise KeyError(path)
    return _string(found[0] if len(found) == 1 else found)


def _around(inputs: dict[str, Any], engine: Callable[[str], str], pieces: list[tuple[str, bool]]) -> str:
    paths: list[str] = []

    def hide(match: re.Match[str]) -> str:
        paths.append(match[1])
        return f"\0JP{len(paths) - 1}\0"

    rendered = engine("".join(_PATH.sub(hide, piece) if filled else piece for piece, filled in pieces))
    return re.sub("\0JP(\\d+)\0", lambda match: _path(paths[int(match[1])], inputs), rendered)


@lru_cache(maxsize=16)
def _template(masked: str) -> Template:
    return SandboxedEnvironment().from_string(masked)


def _jinja2(text: str, inputs: dict[str, Any]) -> str:
    pieces, at = [], 0
    for match in _UNTOUCHED.finditer(text):
        pieces += [(text[at : match.start()], True), (match[0], False)]
        at = match.end()
    return _around(inputs, lambda masked: _template(masked).render(inputs), [*pieces, (text[at:], True)])


def _mustache(text: str, inputs: dict[str, Any]) -> str:
    if re.search(r"\{\{\{?\s*(>[^{}]*)?\}\}", text):
        raise ValueError("refused")

    def render(masked: str) -> str:
        return mystace.render_from_template(masked, dict(inputs), stringify=_string, html_escape_fn=str)

    return _around(inputs, render, [(text, True)])


def _curly(text: str, inputs: dict[str, Any]) -> str:
    def fill(match: re.Match[str]) -> str:
        name = match[1].strip()
        if name.startswith("$"):
            return _path(name, inputs)
        if name.startswith("/"):
            return _string(jsonpath.JSONPointer(name).resolve(inputs))
        if "[" in name or "]" in name:
            raise KeyError(name)
        if name in inputs:
            return _string(inputs[name])
        found: Any = inputs
        for step in name.split("."):
            found = found[int(step)] if isinstance(found, list) else found[step]
        return _string(found)

    return _CURLY.sub(fill, text)


def _fstring(text: str, inputs: dict[str, Any]) -> str:
    return text.format(**inputs)


class Oracle:
    """Says what Agenta's renderers say of other texts in the place of one.

    Args:
        template_format: Name of the format.
        old: The text.
        schema: Of its inputs.
        seed: Chooses the situations.
    """

    def __init__(self, template_format: str, old: str, schema: dict[str, Any], seed: str) -> None:
        self._format = template_format
        self._names = names(template_format, old)
        # In each situation in which it can be rendered: the inputs, and the values that it shows.
        self._shown: list[tuple[str, set[str]]] = []
        inputs = Inputs(schema, seed)
        for given in inputs.situations(template_format):
            kept = json.dumps(given)
            with contextlib.suppress(Exception):
                before = render(template_format, old, json.loads(kept)).casefold()
                self._shown.append((kept, {value for value in inputs.values if value.casefold() in before}))

    def is_broken(self, new: str) -> bool:
        """Whether the new text fails, or doesn't show a value, in a situation in which the old one did."""
        try:
            for kept, values in self._shown:
                after = render(self._format, new, json.loads(kept)).casefold()
                if any(value.casefold() not in after for value in values):
                    return True
            return not names(self._format, new) <= self._names
        except Exception:
            return True
