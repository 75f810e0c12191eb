"""What models do to templates: changes that break them, and changes that don't."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from guarantee.corpus.oracle import DELIMITERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Mutation = Callable[[str], Iterator[str]]

_OUTPUT = re.compile(r"\{\{-?\s*([A-Za-z_][^{}]*?)\s*-?\}\}")
_MUSTACHE = re.compile(r"(?<!\{)\{\{([A-Za-z_][\w.]*)\}\}(?!\})")
_FIELD = re.compile(r"(?<!\{)\{([A-Za-z_][^{}:!]*)([^{}]*)\}(?!\})")
_PER_KIND = 3


def each(pattern: re.Pattern[str], form: str) -> Mutation:
    """Replace one match after the other; ``@`` is the whole of it, ``#`` its first group."""

    def mutate(text: str) -> Iterator[str]:
        for match in list(pattern.finditer(text))[:_PER_KIND]:
            new = form.replace("@", match[0])
            if "#" in form and match.re.groups:
                new = new.replace("#", match[1])
            yield text[: match.start()] + new + text[match.end() :]

    return mutate


def swap(old: str, new: str) -> Mutation:
    """Replace a regular expression, first alone and then everywhere."""

    def mutate(text: str) -> Iterator[str]:
        once = re.sub(old, new, text, count=1)
        if once != text:
            yield once
        everywhere = re.sub(old, new, text)
        if everywhere not in (text, once):
            yield everywhere

    return mutate


def add(more: str) -> Mutation:
    """Put something at the end."""
    return lambda text: iter([f"{text}\n{more}"])


def _by_delimiters(mutate: Mutation, text: str) -> Iterator[str]:
    """Mutate a text of mustache, also the part of it that has other delimiters than braces."""
    change = DELIMITERS.search(text)
    if not change:
        yield from mutate(text)
        return
    before, after = text[: change.end()], text[change.end() :]
    tags = {change[1]: "{{", change[2]: "}}", "{{": "\1", "}}": "\2"}
    for new in mutate(_replaced(after, tags)):
        yield before + _replaced(new, {to: old for old, to in tags.items()})
    for new in mutate(text[: change.start()]):
        yield new + text[change.start() :]


def _replaced(text: str, pairs: dict[str, str]) -> str:
    return re.sub("|".join(map(re.escape, pairs)), lambda match: pairs[match[0]], text)


_TEXT = re.compile(r"^(?:You|Answer|Return|Say|Be|Quote)[^{}\n]*$", re.MULTILINE)

BREAKING: dict[str, dict[str, Mutation]] = {
    "jinja2": {
        "dropped": each(_OUTPUT, ""),
        "filled in": each(_OUTPUT, "a thing"),
        "commented out": each(_OUTPUT, "{# @ #}"),
        "made raw": each(_OUTPUT, "{% raw %}@{% endraw %}"),
        "in a dead branch": each(_OUTPUT, "{% if false %}@{% endif %}"),
        "in a branch that contradicts itself": each(_OUTPUT, "{% if not (#) %}@{% endif %}"),
        "in an empty loop": each(_OUTPUT, "{% for _ in [] %}@{% endfor %}"),
        "in a macro that isn't called": each(_OUTPUT, "{% macro zz() %}@{% endmacro %}"),
        "only assigned": each(_OUTPUT, "{% set zz = # %}"),
        "only asked": each(_OUTPUT, "{% if # %}yes{% endif %}"),
        "its length": each(_OUTPUT, "{{ (#)|string|length }}"),
        "cut": each(_OUTPUT, "{{ ((#)|string)[:4] }}"),
        "truncated": each(_OUTPUT, "{{ (#)|string|truncate(5, true, '') }}"),
        "its first character": each(_OUTPUT, "{{ (#)|string|first }}"),
        "counted in a filter block": each(_OUTPUT, "{% filter wordcount|string %}@{% endfilter %}"),
        "a default of a constant": each(_OUTPUT, "{{ 'x'|default(#) }}"),
        "a comparison": each(_OUTPUT, "{{ (#) == 'zz' }}"),
        "an unknown filter": each(_OUTPUT, "{{ #|shorten }}"),
        "a wrong method": each(_OUTPUT, "{{ (#).shout() }}"),
        "a method without its arguments": each(_OUTPUT, "{{ (#).replace('a') }}"),
        "a method that returns nothing": each(_OUTPUT, "{{ [#].sort() }}"),
        "an invented name": add("{{ invented_name }}"),
        "an invented condition": each(_OUTPUT, "{% if invented_flag %}@{% endif %}"),
        "an unclosed block": add("{% if true %}"),
        "an unclosed tag": add("{{ question"),
        "an include": add("{% include 'other.txt' %}"),
        "a wrong attribute": swap(r"\{\{([^{}]*)\.(\w+)\s*\}\}", r"{{\1.\2_name }}"),
        "a renamed variable": swap(r"\{\{ (\w+)", r"{{ \1_x"),
        "a loop dropped": swap(r"\{%-? for [^%]*%\}|\{%-? endfor %\}", ""),
        "a loop over part": swap(r"in (\w+) %\}", r"in \1[:1] %}"),
        "a loop that skips all": swap(r"in ([\w.'\[\]]+) %\}", r"in \1 if false %}"),
        "a loop over something else": swap(r"in (\w+) %\}", r"in \1_list %}"),
        "keys instead of pairs": swap(r"\.items\(\)", ""),
        "a list's element": swap(r"(\w+)\|join\(', '\)", r"\1[0]"),
        "a guard dropped": swap(
            r"\{% if [^%]*%\}|\{% elif [^%]*%\}.*?(?=\{% endif)|\{% else %\}.*?(?=\{% endif)|\{% endif %\}", ""
        ),
        "a condition inverted": swap(r"\{% if ", "{% if not "),
        "an attribute of the loop": swap(r"loop\.\w+", "loop.position"),
        "another JSONPath": swap(r"\$\.region", "$.zone"),
        "a JSONPath dead": swap(r"(\{\{\$[^}]*\}\})", r"{% if false %}\1{% endif %}"),
        "only a constant's branch": each(_OUTPUT, "{% set on = false %}{% if on %}@{% endif %}"),
    },
    "mustache": {
        "dropped": each(_MUSTACHE, ""),
        "filled in": each(_MUSTACHE, "a thing"),
        "commented out": each(_MUSTACHE, "{{! # }}"),
        "single braces": each(_MUSTACHE, "{#}"),
        "contradiction": each(_MUSTACHE, "{{^#}}@{{/#}}"),
        "only asked": each(_MUSTACHE, "{{##}}yes{{/#}}".replace("##", "\0")),
        "an unclosed tag": each(_MUSTACHE, "{{#"),
        "renamed": each(_MUSTACHE, "{{#_x}}"),
        "another path": each(_MUSTACHE, "{{#.value}}"),
        "capitals": swap(r"(?<!\{)\{\{([a-z])([\w.]*)\}\}", lambda m: "{{" + m[1].upper() + m[2] + "}}"),  # type: ignore[arg-type]
        "an invented name": add("{{invented_name}}"),
        "an invented section": add("{{#invented}}x{{invented_name}}{{/invented}}"),
        "an unclosed section": add("{{#question}}"),
        "an invented path": add("{{user.invented}}"),
        "an invented raw name": add("{{{invented_name}}}"),
        "an invented name by ampersand": add("{{&invented_name}}"),
        "an invented condition": add("{{^invented}}x{{/invented}}"),
        "an invented list": add("{{#invented}}{{.}}{{/invented}}"),
        "an unclosed inversion": add("{{^question}}"),
        "an unfinished tag": add("{{question}"),
        "a nameless section": add("{{#}}x{{/}}"),
        "a partial": add("{{> other}}"),
        "an empty tag": add("{{ }}"),
        "a section dropped": swap(r"\{\{[#/](?!\.)[\w.]+\}\}", ""),
        "a section closed by another name": swap(r"\{\{/([\w.]+)\}\}", r"{{/\1x}}"),
        "a section inverted": swap(r"\{\{#", "{{^"),
        "a section renamed": swap(r"\{\{([#/])([\w.]+)\}\}", r"{{\1\2_list}}"),
        "a dot dropped": swap(r"\{\{\.\}\}", "it"),
        "escaped": swap(r"\{\{\{(\w+)\}\}\}", r"{{\1_raw}}"),
        "spaces in a path": swap(r"\{\{(\w+)\.(\w+)\}\}", r"{{\1. \2}}"),
        "a path's end only": swap(r"\{\{\w+\.(\w+)\}\}", r"{{\1}}"),
        "a path's beginning only": swap(r"\{\{(\w+)\.\w+\}\}", r"{{#\1}}yes{{/\1}}"),
        "a JSONPath in a section": swap(r"(\{\{\$[^}]*\}\})", r"{{^region}}\1{{/region}}"),
        "another JSONPath": swap(r"\$\.region", "$.zone"),
        "a JSON Pointer": add("{{/a/b}}"),
        "a stray end": add("{{/question}}"),
        "crossed sections": add("{{#a}}{{#b}}{{/a}}{{/b}}"),
        "an unclosed comment": add("{{! note"),
        "an unclosed raw tag": add("{{{name"),
        "a broken JSONPath": add("{{$.a[}}"),
        "an unknown JSONPath": add("{{$.nowhere}}"),
        "delimiters that are none": add("{{=<%=}}"),
        "a section inside of the other": swap(r"\{\{(\w+)\}\}", r"{{^zz}}{{^\1}}{{\1}}{{/\1}}{{/zz}}"),
    },
    "curly": {
        "dropped": each(_CURLY := re.compile(r"\{\{\s*([^{}#]+?)\s*\}\}"), ""),
        "filled in": each(_CURLY, "a thing"),
        "single braces": each(_CURLY, "{#}"),
        "unclosed": each(_CURLY, "{{#}"),
        "escaped": each(_CURLY, r"\{\{#\}\}"),
        "three braces": each(_CURLY, "{{{#}}}"),
        "renamed": each(_CURLY, "{{#_x}}"),
        "with a filter": each(_CURLY, "{{#|upper}}"),
        "with a default": each(_CURLY, "{{# or 'x'}}"),
        "longer": each(_CURLY, "{{#.value}}"),
        "indexed": each(_CURLY, "{{#[0]}}"),
        "an f-string": each(_CURLY, "${#}"),
        "a percent": each(_CURLY, "%(#)s"),
        "angle brackets": each(_CURLY, "<#>"),
        "square brackets": each(_CURLY, "[[#]]"),
        "split over lines": each(_CURLY, "{{#\nname}}"),
        "in capitals": swap(r"\{\{(\s*[a-z])", lambda m: m[0].upper()),  # type: ignore[arg-type]
        "invented": add("{{invented_name}}"),
        "invented path": add("{{user.invented}}"),
        "empty": add("{{}}"),
        "a dot": add("{{.}}"),
        "a broken JSONPath": add("{{$.a[}}"),
        "a function of JSONPath": add("{{$.items.length()}}"),
        "a dollar": add("{{$name}}"),
        "another JSONPath": swap(r"\$\.geo", "$.map"),
        "another pointer": swap(r"/order/code", "/order"),
        "a section": add("{{#if x}}y{{/if}}"),
        "an index": add("{{a[0]}}"),
        "an unknown pointer": add("{{/nowhere}}"),
    },
    "fstring": {
        "dropped": each(_FIELD, ""),
        "filled in": each(_FIELD, "a thing"),
        "made literal": each(_FIELD, "{@}"),
        "unclosed": each(_FIELD, "{#"),
        "renamed": each(_FIELD, "{#_x}"),
        "an attribute": each(_FIELD, "{#.value}"),
        "an index": each(_FIELD, "{#[zz]}"),
        "only for numbers that are dates": each(_FIELD, "{#:%Y}"),
        "an unknown conversion": each(_FIELD, "{#!x}"),
        "an unknown specification": each(_FIELD, "{#:zz}"),
        "cut to nothing": each(_FIELD, "{#!s:.0}"),
        "cut": each(_FIELD, "{#!s:.1}"),
        "a character": each(_FIELD, "{#:c}"),
        "numbered": each(_FIELD, "{0}"),
        "nameless": each(_FIELD, "{}"),
        "an expression": each(_FIELD, "{# + 1}"),
        "a call": each(_FIELD, "{#()}"),
        "blanks": each(_FIELD, "{ # }"),
        "invented": add("{invented_name}"),
        "a lone brace": add("}"),
        "an open brace": add("{"),
        "an example in JSON": add('{"a": 1}'),
        "a number alone": add("{:d}"),
        "a conversion alone": add("{!r}"),
        "a nested width": add("{invented:{width}}"),
        "in capitals": swap(r"(?<!\{)\{([a-z])", lambda m: m[0].upper()),  # type: ignore[arg-type]
        "braces undoubled": swap(r"\{\{|\}\}", "{"),
        "braces doubled": swap(r"(?<!\{)\{(\w+)\}(?!\})", r"{{\1}}"),
    },
}

LEGITIMATE: dict[str, dict[str, Mutation]] = {
    "jinja2": {
        "reworded": each(_TEXT, "Please mind this: @"),
        "trimmed": each(_OUTPUT, "{{ (#)|string|trim }}"),
        "upper": each(_OUTPUT, "{{ (#)|string|upper }}"),
        "lower": each(_OUTPUT, "{{ (#)|string|lower }}"),
        "default": each(_OUTPUT, "{{ (#)|default('unknown') }}"),
        "default for empty": each(_OUTPUT, "{{ (#)|default('unknown', true) }}"),
        "or": each(_OUTPUT, "{{ (#) or 'unknown' }}"),
        "quoted": each(_OUTPUT, '"@"'),
        "bold": each(_OUTPUT, "**@**"),
        "twice": each(_OUTPUT, "@ (again: @)"),
        "guarded": each(_OUTPUT, "{% if # %}@{% endif %}"),
        "by another name": each(_OUTPUT, "{% set zz = # %}{{ zz }}"),
        "by a macro": each(_OUTPUT, "{% macro zz(v) %}[{{ v }}]{% endmacro %}{{ zz(#) }}"),
        "by with": each(_OUTPUT, "{% with zz = # %}{{ zz }}{% endwith %}"),
        "by a list": each(_OUTPUT, "{% set zz = [] %}{% set _ = zz.append(#) %}{{ zz|join }}"),
        "by a block": each(_OUTPUT, "{% set zz %}@{% endset %}{{ zz }}"),
        "without blanks": each(_OUTPUT, "{{#}}"),
        "white space control": each(_OUTPUT, "{{- # -}}"),
        "a comment": add("{# Keep this prompt short. #}"),
        "raw braces": add("{% raw %}Never write {{ this }}.{% endraw %}"),
        "an own constant": add("{% set closing = 'Thanks.' %}{{ closing }}"),
        "by item": swap(r"\{\{ (\w+)\.(\w+) \}\}", r"{{ \1['\2'] }}"),
        "loops controlled": swap(r"\{% for ", "{%- for "),
        "an else": swap(r"\{% endfor %\}$", "{% else %}None.{% endfor %}"),
        "as a list": swap(r"in (\w+) %\}", r"in \1|list %}"),
        "a loop variable renamed": swap(r"\bdoc\b", "entry"),
        "numbered": swap(r"(\{% for m in \w+ %\})", r"\1{{ loop.index }}. "),
        "more blanks": swap(r"\{\{ ", "{{   "),
    },
    "mustache": {
        "reworded": each(_TEXT, "Please mind this: @"),
        "blanks": each(_MUSTACHE, "{{ # }}"),
        "more blanks": each(_MUSTACHE, "{{  #\t}}"),
        "raw": each(_MUSTACHE, "{{{#}}}"),
        "ampersand": each(_MUSTACHE, "{{&#}}"),
        "quoted": each(_MUSTACHE, '"@"'),
        "bold": each(_MUSTACHE, "**@**"),
        "twice": each(_MUSTACHE, "@ (again: @)"),
        "otherwise": each(_MUSTACHE, "@{{^#}}unknown{{/#}}"),
        "guarded": each(_MUSTACHE, "{{\0#}}@{{/#}}"),
        "guarded by a dot": each(_MUSTACHE, "{{\0#}}{{.}}{{/#}}"),
        "a comment": add("{{! Keep this prompt short. }}"),
        "braces": add("Never write { or }."),
        "single braces": add("Write {name} so."),
        "a list": add("- one\n- two"),
        "JSON": add('{"a": [1]}'),
        "a table": add("| a | b |\n| - | - |"),
        "a closed pair": add("Never write }}."),
        "an open comment": add("<!-- mind this -->"),
        "on lines of their own": swap(r"(\{\{[#/^][\w.]+\}\})", r"\n\1\n"),
        "blanks in sections": swap(r"\{\{([#/^])([\w.]+)\}\}", r"{{\1 \2 }}"),
        "by a section": swap(r"\{\{(\w+)\.(\w+)\}\}", r"{{#\1}}{{\2}}{{/\1}}"),
        "upside down": lambda text: iter(
            ["\n".join(reversed(text.split("\n"))) if not re.search(r"\{\{[#=]", text) else text + "\nNow."]
        ),
        "Markdown": lambda text: iter([f"# Task\n\n{text}\n\n---\nEnd."]),
    },
    "curly": {
        "reworded": each(_TEXT, "Please mind this: @"),
        "blanks": each(_CURLY, "{{ # }}"),
        "more blanks": each(_CURLY, "{{  #\t}}"),
        "no blanks": each(_CURLY, "{{#}}"),
        "on two lines": each(_CURLY, "{{\n#\n}}"),
        "quoted": each(_CURLY, '"@"'),
        "bold": each(_CURLY, "**@**"),
        "twice": each(_CURLY, "@ (again: @)"),
        "in a list": each(_CURLY, "\n- @\n"),
        "in an XML tag": each(_CURLY, "<value>@</value>"),
        "in backticks": each(_CURLY, "`@`"),
        "an open pair": add("Never write {{."),
        "a closed pair": add("Never write }}."),
        "single braces": add("Never write {x}."),
        "JSON": add('{"a": {"b": 1}}'),
        "upside down": lambda text: iter(["\n".join(reversed(text.split("\n")))]),
        "Markdown": lambda text: iter([f"# Task\n\n{text}\n\n---\nEnd."]),
        "another JSONPath style": swap(r"\$\.geo\.region", "$['geo']['region']"),
    },
    "fstring": {
        "reworded": each(_TEXT, "Please mind this: @"),
        "quoted": each(_FIELD, '"@"'),
        "bold": each(_FIELD, "**@**"),
        "twice": each(_FIELD, "@ (again: @)"),
        "as a string": each(_FIELD, "{#!s}@"),
        "as represented": each(_FIELD, "{#!r}@"),
        "wider": each(_FIELD, "{#!s:>9}@"),
        "filled": each(_FIELD, "{#!s:*^30}@"),
        "plain": each(_FIELD, "{#}@"),
        "in a list": each(_FIELD, "\n- @\n"),
        "in backticks": each(_FIELD, "`@`"),
        "in an XML tag": each(_FIELD, "<value>@</value>"),
        "braces": add("Never write {{ or }}."),
        "JSON": add('{{"a": {{"b": 1}}}}'),
        "upside down": lambda text: iter(["\n".join(reversed(text.split("\n")))]),
        "Markdown": lambda text: iter([f"# Task\n\n{text}\n\n---\nEnd."]),
    },
}


def mutants(kinds: dict[str, Mutation], text: str) -> Iterator[tuple[str, str]]:
    """Each change of a text with its kind."""
    for kind, mutate in kinds.items():
        for new in _by_delimiters(mutate, text):
            if new != text:
                # The number sign is itself a part of some forms.
                yield kind, new.replace("\0", "#")
