"""One text at a time: the variables that are found in it, or whether it can be rendered, and if not, why and where."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from agenta_ai_server.tools.computing import LONG_CHARACTERS
from agenta_ai_server.tools.refine_prompt import guarantee, template
from agenta_ai_server.tools.refine_prompt.formats import DEFAULT, READ, work
from agenta_ai_server.tools.refine_prompt.formats.syntax import Extent, TemplateSyntaxError, compared, is_blank, shown
from agenta_ai_server.tools.refine_prompt.rendering import comparison

CURLY = {
    "": set(),
    "no variable": set(),
    "{{name}}": {"name"},
    "{{ name }} {{name}} {{\tname\n}}": {"name"},
    "{{ a.b }}{{a.b.0.c}}": {"a.b", "a.b.0.c"},
    "{{$.inputs.geo.region}}": {"$.inputs.geo.region"},
    "{{ $ }}{{$['a b'][0]}}": {"$", "$['a b'][0]"},
    "{{$..a}}{{$.*}}{{$[?(@.a[0] == ']')].b}}{{$.a-b}}": {"$..['a']", "$[*]", "$[?@.a[0] == ']'].b", "$['a-b']"},
    "{{/json/pointer}}{{/a[0]}}": {"/json/pointer", "/a[0]"},
    "{{$.a[?(@.b[?@.c > 1])]}}": {"$.a[?@.b[?@.c > 1]]"},
    "{{$['[[[[[[!!!!!!-é'][?@ =~ /[a-z]é-?/i]}}": {"$['[[[[[[!!!!!!-é'][?@ =~ /[a-z]é-?/i]"},
    "{{$.long_" + "g" * 480 + "}}" * 20: {"$.long_" + "g" * 480},
    "{{name}": set(),
    "{name}}": set(),
    "{name}": set(),
    "{ {name}}": set(),
    "{{ name } }": set(),
    "{{a b}}": {"a b"},
    "{{a-b}}{{Überschrift}}{{名前}}": {"a-b", "Überschrift", "名前"},
    "{{a.}}{{.a}}": {"a.", ".a"},
    "{{{x}}}": {"{x"},
    "{{{{x}}}}": {"{{x"},
    "{{a}}}}": {"a"},
    "{{a{{b}}": {"a{{b"},
    "{{a\nb}}": set(),
    "{{a\n{{b}}": {"b"},
    "{{a\n\n{{\n\n b \n}}": {"b"},
    "{{\n{{\na}}": {"a"},
    "{{#if x}}{{/if}}": {"#if x", "/if"},
    '{"k": {{v}}}': {"v"},
    "{{x\0y}}{{\ud800}}": {"x\0y", "\ud800"},
    "{{ x|upper }}": {"x|upper"},
}
CURLY_ERRORS = {
    "{{items[0]}}": (1, 1),
    "one\n two {{ a[0].b }}": (2, 6),
    "{{ok}} {{a]}}": (1, 8),
    "{{$name}}": (1, 1),
    "{{ $$.a }}": (1, 1),
    "{{a}} {{$ .a}}": (1, 7),
    "{{}}": (1, 1),
    "{{a}} {{ }}": (1, 7),
    "{{.}}": (1, 1),
    "a\n{{ ... }}": (2, 1),
    "{{$.a[}}": (1, 1),
    "{{$..}}": (1, 1),
    "{{$.}}": (1, 1),
    "{{$...a}}": (1, 1),
    "{{$.a]}}": (1, 1),
    "{{$[]}}": (1, 1),
    "{{$.a['b}}": (1, 1),
    "{{$" + "[" * 50_000 + "}}": (1, 1),
    "{{$" + ".a['" * 20_000 + "}}": (1, 1),
    # What the library leaves to Python.
    "a\n{{$[?@.a==1e999]}}": (2, 1),
    "{{$[?@.a==" + "1" * 400 + "]}}": (1, 1),
    "{{$[?@=~/(/]}}": (1, 1),
    "{{$[?@=~/a{99999999999999999999}/]}}": (1, 1),
    # What takes it long.
    "{{$.a" + "[?@" * 6 + "]" * 6 + "}}": (1, 1),
    "{{$[?" + "(" * 5 + "@" + ")" * 5 + "]}}": (1, 1),
    "{{$[?!!! not !@]}}": (1, 1),
    "{{$[?@=~/[a-\uffff]/i]}}": (1, 1),
    "{{$[?@=~/[a-\\uffff]/]}}": (1, 1),
    "{{$[?" + "@||" * 200 + "@]}}": (1, 1),
    "{{a}} {{$." + "}}{{$.".join(f"a{number}" for number in range(900)) + "}}": (1, 6747),
}

FSTRING = {
    "": set(),
    "{name}": {"name"},
    "{name} {name!r} {name:>10} {name!s:.5}": {"name"},
    "{a.b}{a[0]}{a[key]}{a.b[c d].e}": {"a.b", "a[0]", "a[key]", "a.b[c d].e"},
    "{{literal}}": set(),
    "{{{name}}}": {"name"},
    '{{"a": {value}}}': {"value"},
    "{{}}": set(),
    "{total:{width}}": {"total", ":width"},
    "{total:{total}}{width}": {"total", ":total", "width"},
    "{total:>{width}.{digits}f}": {"total", ":width", ":digits", "total:no text"},
    "{total:{fill}{align}{width}}{a:{b.c[0]!s:>2}}": {"total", ":fill", ":align", ":width", "a", ":b.c[0]"},
    "{total:.2f} {n:,}": {"total", "n", "total:no text", "n:no text"},
    "{n:b}": {"n", "n:no text", "n:no fraction"},
    "{n:%} {n!s:>9}": {"n", "n:no text"},
    "{a:s}": {"a", "a:no whole number", "a:no fraction"},
    "{a:.5}{b!r:.5s}": {"a", "b", "a:no whole number"},
    "{a:.0}": {"a", "a:no text", "a:no whole number"},
    "{n:+09.3e}{c:*^30}": {"n", "c", "n:no text"},
    "{a:}{b!r:}": {"a", "b"},
    "{my-var}{my var}{Überschrift}": {"my-var", "my var", "Überschrift"},
    "{a.0}": {"a.0"},
    "{a[-1]}": {"a[-1]"},
    "{a.__class__}": {"a.__class__"},
    "{order.id} {order.nope}": {"order.id", "order.nope"},
    "\ud800{a}\0": {"a"},
    "line\n{a}\nline": {"a"},
    "{class}{None}{1a}": {"class", "None", "1a"},
    "{$.a}": {"$.a"},
    "{x}}}": {"x"},
    "{{{{x}}}}": set(),
    "{x:5}{x:<5}{x!a}": {"x"},
    "{low/medium}": {"low/medium"},
}
FSTRING_ERRORS = {
    "{}": (1, 1),
    "{0}": (1, 1),
    "{a} {1.b}": (1, 5),
    "{.a}": (1, 1),
    "{[0]}": (1, 1),
    "{!r}": (1, 1),
    '{"a": 1}': (1, 1),
    'Answer so:\n{"a": "b"}': (2, 1),
    "{'a'}": (1, 1),
    "{low, medium}": (1, 1),
    "{\n}": (1, 1),
    "{ name }": (1, 1),
    "{name": (1, 1),
    "name}": (1, 5),
    "{{ok}} {a} }": (1, 12),
    "{{name}": (1, 7),
    "{a{b}}": (1, 1),
    "{a[0}": (1, 1),
    "{a[0]b}": (1, 1),
    "{a.}": (1, 1),
    "{a[]}": (1, 1),
    "{a!x}": (1, 1),
    "{a!}": (1, 1),
    "{a!rr}": (1, 1),
    "{a:hello}": (1, 1),
    "{a:,s}": (1, 1),
    "{a!s:.2f}": (1, 1),
    "{a:999999999}": (1, 1),
    "{a:.999999999f}": (1, 1),
    "{a:{b:{c}}}": (1, 4),
    "x {a:{{b}}}": (1, 3),
    "{a:zz{b}}": (1, 1),
    "{a:{b}z}": (1, 1),
    "{a:9999{b}}": (1, 1),
    "{a!s:.{b}f}": (1, 1),
    "{a!s:.0}": (1, 1),
    "{a:c}": (1, 1),
    "{a:{b!x}}": (1, 4),
    "{a:{}}": (1, 4),
    "{a[99999999999999999999]}": (1, 1),
    "{a:" * 1000: (1, 1),
}

# Each can be rendered in at least one situation.
JINJA = [
    "",
    "{{ name }}{{name}}{{- name -}}",
    "{% if tier == 'vip' %}Prioritise.{% endif %}",
    "{{ order.id }}{{ order['id'] }}{{ order.get('id') }}",
    "{{ a['b c'] }}{{ a[0] }}{{ a.0.x }}{{ a[-1] }}",
    "{{ a[i].x }}",
    "{{ name|upper|default('you', true) }}",
    "{{ a|default(b) }}",
    "{{ name is defined and not other is none }}",
    "{% for item in order['items'] %}{{ item.sku }}{% endfor %}",
    "{% for i in order.get('items') %}{{ loop.index }}{{ i['sku'] }}{% endfor %}",
    "{% for x in xs %}{{ x }}{% endfor %}{{ x }}",
    "{% for x in xs if x.ok %}{% else %}{{ x.no }}{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}{{ v.x }}{% endfor %}",
    "{% for x in xs|sort(attribute='a')|list %}{{ x.b }}{% endfor %}",
    "{% for x in tree recursive %}{{ loop(x.kids) }}{% endfor %}",
    "{% for i in range(3) %}{{ i }}{% endfor %}",
    "{% for x in a %}{% for y in x.b %}{{ y.c }}{{ x.d }}{% endfor %}{% endfor %}",
    "{{ items|map(attribute='sku')|join(', ') }}",
    "{{ items|selectattr('ok')|rejectattr('old', 'equalto', now)|sum('n') }}",
    "{% set x = order %}{{ x.id }}",
    "{% set x = 'constant' %}{{ x }}",
    "{% set a, b = x, y %}{{ a.p }}{{ b.q }}",
    "{% set a, b = pair %}{{ b.q }}",
    "{% set a = x %}{% set a = a.y %}{{ a.z }}",
    "{% if not name %}{% set name = 'you' %}{% endif %}{{ name }}",
    "{% if a %}{% set x = a %}{% elif b %}{% set x = b %}{% else %}{% set x = c %}{% endif %}{{ x.n }}",
    "{% if a %}{% set x = 1 %}{% endif %}{{ x }}",
    "{% for i in a %}{% set x = 1 %}{% endfor %}{{ x }}",
    "{% set ns = namespace(n=0) %}{% for x in xs %}{% set ns.n = ns.n + x.p %}{% endfor %}{{ ns.n }}",
    "{% set x %}{{ a }}{% endset %}{{ x }}",
    "{% with x = o.p %}{{ x.q }}{% endwith %}{{ x }}",
    "{% macro m(i, j=k) %}{{ i.sku }}{{ j }}{% endmacro %}{{ m(x) }}",
    "{% macro line(it) %}{{ it.sku }}{% endmacro %}{{ line(x) }}",
    "{% macro m() %}{{ caller(1) }}{% endmacro %}{% call(u) m() %}{{ u.n }}{% endcall %}",
    "{% filter upper %}{{ a }}{% endfilter %}",
    "{% block b %}{{ a }}{% endblock %}{{ self.b() }}",
    "{% for i in a %}{% block b %}{{ i.x }}{% endblock %}{% endfor %}",
    "{{ a if b else c }}{{ (d or e).f }}",
    "{{ name.upper() }}{{ d.get(k) }}{{ 'x'.join(xs) }}",
    "{{ namespace }}{{ range }}",
    "{{ cycler(a, b).next() }}{{ dict(a=b) }}",
    "{# {{ a }} #}{% raw %}{{ b }}{% endraw %}{{ '{{ c }}' }}",
    "{{$.a.b}}{{ $['c'] }}{{{$.d}}}",
    "{# {{$.a}} #}{% raw %}{{$.b}}{% endraw %}{% if c %}{{$.d}}{% endif %}",
    "{# {{$a}} #}",
    "{{ o._id }}{{ o.__typename }}",
    "a }} %} #} { { b",
    "\ud800{{ Überschrift }}",
    "{% autoescape true %}{{ a }}{% endautoescape %}",
    "{{ '{}'.format(a) }}{{ '%s'|format(a) }}",
    "{% if false %}{{ a }}{% elif b %}{{ c }}{% else %}{{ d }}{% endif %}",
    "{% if true %}{{ a }}{% elif b %}{{ c }}{% else %}{{ d }}{% endif %}",
    "{% if not [] %}{{ a }}{% else %}{{ b }}{% endif %}{{ c if 0 else d }}",
    "{% for x in [] %}{{ a }}{% else %}{{ b }}{% endfor %}",
    "{% for x in [1] %}{{ a }}{% else %}{{ b }}{% endfor %}",
    "{% for x in [1] if c %}{{ a }}{% else %}{{ b }}{% endfor %}",
    "{{ false and a }}{{ true and b }}{{ 1 or c }}{{ '' or d }}",
    "{{ a and b }}{{ a or b }}",
    "{% macro m() %}{{ a }}{% endmacro %}",
    "{% set x = a %}",
    "{% set x = a.b %}{% if x %}-{% endif %}",
    "{{ name[0:0] }}{{ b[:0] }}",
    "{{ x['items'] }}{{ x['keys'].a }}",
    "{{ x|attr('id') }}",
    "{{ xs|map(attribute='a.b')|join }}{{ xs|map(attribute=0)|join }}{{ ys|sum('n') }}",
    "{{ xs|join(', ', 'a') }}{{ ys|unique(false, 'b')|first }}{{ zs|max(attribute='c') }}",
    "{{ xs|sort(false, false, 'a,b.0')|first }}{{ xs|groupby('items')|first }}",
    "{% set sep = joiner(', ') %}{% for x in xs %}{{ sep() }}{{ x }}{% endfor %}",
    "{% for x in xs %}{{ loop.cycle('a', b) }}{{ loop.changed(x.c) }}{% endfor %}",
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, b=2) }}",
    "{{ [1].index(1) }}{{ {'a': 1}.items() }}{{ 'x'.upper() }}{{ 1.5.is_integer() }}",
    # Numbers by what they are compared with, and by where they stand.
    "{% for x in xs[:a] %}{{ x }}{% endfor %}{% for m in ms[-b:] %}{{ m.role }}: {{ m.text }}{% endfor %}",
    "{{ text[start:start + n] }}{{ text.split()[:limit]|join(' ') }}",
    "{{ 1 if xs|length > a }}{{ 1 if b < xs|length }}{{ 1 if xs|length + ys|length > c }}{{ 1 if xs|sum > d }}",
    "{% if text|length > n %}{{ text[:n] }}…{% else %}{{ text }}{% endif %}",
    "{{ 1 if text|wordcount > a }}{{ 1 if text.count('x') > b }}{{ 1 if text.find('x') < c }}",
    "{{ 1 if a|int > b }}{{ 1 if c - d > e }}",
    "{{ a|truncate(b) }}{{ a|truncate(length=c) }}{{ a|indent(d) }}{{ a|wordwrap(e) }}{{ a|center(width=f) }}",
    "{{ n|round(a) }}{{ xs|batch(b)|list }}{{ xs|slice(c)|list }}{{ t|replace('x', 'y', d) }}",
    "{% if a is divisibleby b %}{{ a }}{% endif %}{{ '-' * c }}",
    "{{ a.ljust(b) }}{{ a.zfill(c) }}{{ a.split(' ', d)|join }}{{ a.split(maxsplit=e) }}{{ a.replace('x', 'y', f) }}",
    # Agenta's to raise, in other situations or when it is shown.
    "{% if a %}\n{% import 'a' as b %}{% endif %}",
    "{% if false %}{{ a|nope }}{% endif %}",
    "{{ a|map('nope') }}",
    "{{ a|select('nope') }}",
    "{{ a.__class__ }}",
    "{{ a['__class__'] }}",
    "{{ x.items }}",
    "{% if x.keys %}{% endif %}",
    "{{ lipsum(nope=1) }}",
    "{{ '{{$.a}}' }}",
    "{{ x.get('{{$.a}}') }}",
    "{% filter upper %}{{$.a}}{% endfilter %}",
    "{% set x %}{{$.a}}{% endset %}",
    "{% macro m() %}{{$.a}}{% endmacro %}",
]
JINJA_ERRORS = {
    "{{ a": 1,
    "{% if a %}": 1,
    "x\n{% endif %}": 2,
    "{% if %}{% endif %}": 1,
    "\n\n{{ a b }}": 3,
    "{{ }}": 1,
    "{# a": 1,
    "{% raw %}a": 1,
    "{% nope %}": 1,
    "{% do a %}": 1,
    "{% trans %}a{% endtrans %}": 1,
    "{% for x in y %}{% break %}{% endfor %}": 1,
    "{% include 'a' %}": 1,
    "{% include 'a' ignore missing %}": 1,
    "{% from 'a' import b %}": 1,
    "{% extends 'a' %}": 1,
    "{{ a|nope }}": 1,
    "{% filter nope %}{% endfilter %}": 1,
    "{{ a is nope }}": 1,
    "{{ a|replace('b') }}": 1,
    "{{ a|upper(1) }}": 1,
    "{{ a|round(digits=1) }}": 1,
    "{{ a is divisibleby }}": 1,
    "{{ nope() }}": 1,
    "{{ caller() }}": 1,
    "{{ super() }}": 1,
    "{{ order.send() }}": 1,
    "{{ ''.__class__.__mro__() }}": 1,
    "{{ a|default(b=1, b=2) }}": 1,
    "{% macro m(a, a) %}{% endmacro %}": 1,
    "{% block a %}{% endblock %}{% block a %}{% endblock %}": 1,
    "{% block a required %}{% endblock %}": 1,
    "{% for loop in a %}{% endfor %}": 1,
    "{% for a in b %}{% set loop = a %}{% endfor %}": 1,
    "{% set order.id = 1 %}": 1,
    "{{$name}}": 1,
    "{% if {{$.a}} %}{% endif %}": 1,
    "a\x00b": 1,
    "{% for k, v in x.y.values %}{% endfor %}": 1,
    "{{ a() }}": 1,
    "{% set a = 1 %}{{ a() }}": 1,
    "{% set f = x|attr('id') %}{{ f() }}": 1,
    "{{ a['b']() }}": 1,
    "{{ (a or b)() }}": 1,
    "{{ 'a'() }}": 1,
    "{{ [1].nope() }}": 1,
    "{{ 'a'.items() }}": 1,
    "{{ range() }}": 1,
    "{{ range(1, 2, 3, 4) }}": 1,
    "{{ joiner(1, 2) }}": 1,
    "{% set x.y = 1 %}": 1,
    "{% set ns = namespace() %}{{ ns() }}": 1,
    "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}": 1,
    "{% macro m(a) %}{% endmacro %}{{ m(b=1) }}": 1,
    "{% macro m(a) %}{% endmacro %}{{ m(1, a=1) }}": 1,
    "{% macro m() %}{% endmacro %}{% call m() %}{% endcall %}": 1,
    "{% set a, b = 1, 2, 3 %}": 1,
    "{% set a, b = [1] %}": 1,
    "{% set a, b = 5 %}": 1,
    "{% call m() %}{{$.a}}{% endcall %}": 1,
    "{{$.a[}}": 1,
    "{{ 9**(9**9) }}": 1,
    "{{ 'x' * 10**12 }}": 1,
    "{{ range(10**9) }}": 1,
    "{{ 'x'.ljust(10**9) }}{{ 'x'|center(10**9) }}": 1,
    "{{ '%999999999d'|format(1) }}": 1,
    "{{ '{:999999999}'.format(1) }}": 1,
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}": 1,
    "{{ " + "(" * 300 + "a" + ")" * 300 + " }}": 1,
    "{{ " + "a + " * 2_500 + "a }}": None,
    "{% for i in range(9999) %}{% for j in range(9999) %}x{% endfor %}{% endfor %}": None,
    "{% set x = 'xxxxxxxxxx' %}" + "{% set x = x ~ x %}" * 18 + "{{ x }}": None,
}

MUSTACHE = [
    "",
    "{{name}}{{ name }}{{{name}}}{{{ name }}}{{&name}}{{& name }}",
    "{{customer.name}}",
    "{{#items}}- {{sku}} x{{qty}}\n{{/items}}{{^items}}no items{{/items}}",
    "{{# items }}{{ sku }}{{/ items }}",
    "{{#items}}{{/items}}{{sku}}",
    "{{^a}}{{b}}{{/a}}",
    "{{#a}}{{^b}}{{c}}{{/b}}{{/a}}",
    "{{#a}}{{#b}}{{c}}{{/b}}{{d}}{{/a}}{{e}}",
    "{{#a}}{{.}}{{/a}}",
    "{{.}}",
    "{{#a.b}}{{c.d}}{{/a.b}}",
    "{{#a}}{{#a}}{{b}}{{/a}}{{/a}}",
    "{{! a comment }}{{!}}",
    "{{!\n over {{ lines\n}}{{a}}",
    "{{=<% %>=}}<%a%>{{b}}<%=| |=%>|c|",
    "{{=| |=}}|#a||b||/a|",
    "{{$.a.b}}{{{ $['c'] }}}{{$}}",
    "{{#a}}{{$.b}}{{/a}}",
    "{{=<% %>=}}{{$.a}}<%b%>",
    "{{! {{$.a}} }}{{b}}",
    "{{\nname\n}}",
    "{{a b}}{{a\nb}}{{a|upper}}{{a-b}}",
    "{name} { {name}} }}",
    "{{a}}}",
    "{{名前}}\ud800",
    "{{a/b}}",
    "{{#if x}}{{y}}{{/if x}}",
    "{{a.0.b}}",
]
MUSTACHE_ERRORS: dict[str, tuple[int, int] | None] = {
    "{{>partial}}": (1, 1),
    "a\n{{ > partial }}": (2, 1),
    "{{=<% %>=}}<%>p%>": None,
    "{{}}": (1, 1),
    "a {{ }}": (1, 3),
    "{{{}}}": (1, 1),
    "{{! {{}} }}": (1, 5),
    "{{=<% %>=}}<%={{ }}=%>": (1, 15),
    "{{&}}": None,
    "{{#}}{{/}}": None,
    "{{/}}": None,
    "{{/json/pointer}}": (1, 1),
    "{{#a/b}}{{/a/b}}": (1, 9),
    "{{#a}}": (1, 1),
    "\n{{!\n\n}}\n {{^a}}": (5, 2),
    "{{#a}}{{#b}}{{/a}}{{/b}}": (1, 13),
    "{{/a}}": (1, 1),
    "{{#a}}{{/b}}": (1, 7),
    "{{#a}}{{/a.}}": (1, 7),
    "ok\nname: {{name": (2, 7),
    "{{{name}}": (1, 1),
    "{{a}} {{#b": (1, 7),
    "{{=<%=}}": None,
    "{{=<% %> !=}}": None,
    "{{= =}}": None,
    "{{$name}}": (1, 1),
    "{{#a{{$.b}}}}": None,
    "{{#a {{$.b}} }} }}": None,
    "a\x00b": (1, 2),
    "{{=<% %>=}}<%a}}": None,
    "{{#a}}" * 100 + "{{/a}}" * 100: None,
}

ACCEPTED = [
    (name, text, expected)
    for name, table in (("curly", CURLY), ("fstring", FSTRING))
    for text, expected in table.items()
]


def _short(value: object) -> str | None:
    """An id for a test with a long text."""
    return f"{value[:60]}…" if isinstance(value, str) and len(value) > 60 else None


@pytest.mark.parametrize(("name", "text", "expected"), ACCEPTED, ids=_short)
def test_finds_the_variables(name: str, text: str, expected: set[str]) -> None:
    found = READ[name](text)
    assert {name for name in found if not isinstance(name, Extent)} == expected


@pytest.mark.parametrize(
    ("name", "text"), [("jinja2", text) for text in JINJA] + [("mustache", text) for text in MUSTACHE], ids=_short
)
def test_can_be_rendered(name: str, text: str) -> None:
    assert comparison.read(name, [text], []) is None


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        *(("curly", text, where) for text, where in CURLY_ERRORS.items()),
        *(("fstring", text, where) for text, where in FSTRING_ERRORS.items()),
    ],
    ids=_short,
)
def test_says_what_is_wrong_and_where(name: str, text: str, where: tuple[int, int]) -> None:
    with pytest.raises(TemplateSyntaxError) as caught:
        READ[name](text)
    error = caught.value
    assert error.message.endswith(".")
    assert len(str(error)) < 400
    assert (error.line, error.column) == where


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        *(("jinja2", text, where) for text, where in JINJA_ERRORS.items()),
        *(("mustache", text, where) for text, where in MUSTACHE_ERRORS.items()),
    ],
    ids=_short,
)
def test_says_why_it_cannot_be_rendered(name: str, text: str, where: tuple[int, int] | int | None) -> None:
    fault = comparison.read(name, [text], [])
    assert fault
    assert len(fault.description) < 400
    if isinstance(where, int):
        assert f"(line {where}" in fault.description
    elif where:
        assert "(line {}, column {})".format(*where) in fault.description


@pytest.mark.parametrize(
    ("name", "before", "after", "lost", "invented"),
    [
        ("curly", "Hi {{name}}, {{ a.b }}", "{{a.b}} and {{a.b}}: {{  name\t}}", "", ""),
        ("curly", "{{a}} {{b.c}}", "{{b.c}} {{d}}", "a", "d"),
        ("curly", "{{a.b}}", "{{a.c}}", "a.b", "a.c"),
        ("curly", "{{name}}", "{name}", "name", ""),
        ("curly", "{{name}}", "{{Name}}", "name", "Name"),
        ("curly", "{{$.a.b}}{{$['it\\'s']}}", "{{ $['a']['b'] }}{{$[\"it's\"]}}", "", ""),
        ("fstring", "{order.id}", "{order[id]}", "order.id", "order[id]"),
        ("fstring", "{name}", "{{name}}", "name", ""),
        ("fstring", "{price:.2f} {who!r}", "{who:>9} pays {price:,.0f}, {price}", "", ""),
        ("fstring", "{total:.2f}", "{total}", "", ""),
        ("fstring", "{total:.2f}", "{total:,.1f} {total!r:>9}", "", ""),
        ("fstring", "{total}", "{total:.2f}", "", "total:no text"),
        ("fstring", "{total:.2f}", "{total:d}", "", "total:no fraction"),
        ("fstring", "{total:{w}}", "{total} {w}", ":w", "w"),
        ("fstring", "{b}", "{b!s:.1}", "", "b:at most 1 character"),
        ("fstring", "{b!s:.20}", "{b!s:.5}", "", "b:at most 5 characters"),
        ("fstring", "{b:5.20}", "{b!s:.5}", "", "b:at most 5 characters"),
        ("fstring", "{b!s:.20}{b!s:.5}", "{b!s:.5}{b!s:.10}", "", "b:at most 10 characters"),
        ("fstring", "{b!s:.20}{b}", "{b!s:.20}", "", "b:at most 20 characters"),
        ("fstring", "{b!s:.20}{b}", "{b}{b!s:.5}", "", ""),
        ("fstring", "{b!s:.20}", "{b!s:.30}{b!s:.5}", "", ""),
        ("fstring", "{b!s:.5}", "{b!s:.20}{b!s:.5}", "", ""),
    ],
)
def test_what_was_lost_and_what_was_invented(name: str, before: str, after: str, lost: str, invented: str) -> None:
    assert compared(READ[name](before), READ[name](after)) == (set(lost.split()), {invented} - {""})


_MANY = "".join(f"{{% if k{n} == 'v' %}}x {{{{ a{n} }}}}{{% else %}}y {{{{ a{n} }}}}{{% endif %}}" for n in range(30))
# An old text, a new one, and whether that may take its place.
RENDERED = [
    ("mustache", "{{#xs}}{{a}}{{/xs}}", "{{#xs}}{{a}}{{/xs}}{{^xs}}none{{/xs}}", True),
    ("mustache", "{{name}}", "{{name}}{{^name}}nobody{{/name}}", True),
    ("mustache", "{{#a}}{{#b}}x{{/b}}{{/a}}", "{{#a}}{{#b}}x{{/b}}{{^b}}y{{/b}}{{/a}}", True),
    ("mustache", "{{#a}}{{#b}}x{{/b}}{{/a}}", "{{#a}}{{#b}}x{{/b}}{{/a}}{{^b}}y{{/b}}", True),
    ("mustache", "{{^xs}}none{{/xs}}", "{{#xs}}some{{/xs}}", False),
    ("mustache", "{{name}}", "{{#name}}{{name}}{{/name}}", True),
    ("jinja2", "{{ a }}", "{% if a %}yes{% endif %}", False),
    ("jinja2", "{{ a }}", "{{ a is defined }}{{ a == 1 }}{{ a and 'x' }}", False),
    ("jinja2", "{{ a }}", "{{ 'x'|replace('y', a) }}", False),
    ("jinja2", "{{ a }}", "{{ a|length }}{{ [a]|count }}{{ a.startswith('x') }}{{ a.count('x') }}", False),
    ("jinja2", "{{ o.get('a', b) }}", "{{ o.a }}", False),
    ("jinja2", "{{ a }}", "{% set x = a %}", False),
    ("jinja2", "{{ a }}", "{% if false %}{{ a }}{% endif %}", False),
    ("jinja2", "{{ a }}", "{% for x in [] %}{{ a }}{% endfor %}", False),
    ("jinja2", "{{ a }}", "{% macro m() %}{{ a }}{% endmacro %}", False),
    ("jinja2", "{{ a }}", "{{ a[0:0] }}", False),
    ("jinja2", "{{ a }}", "{{ false and a }}", False),
    ("jinja2", "{{ a }}", "{% set x = a %}{{ x }}", True),
    ("jinja2", "{{ a }}", "{% macro m() %}{{ a }}{% endmacro %}{{ m() }}", True),
    ("jinja2", "{{ a.id }}", "{{ a|attr('id') }}", False),
    ("jinja2", "{{ a['items'] }}", "{% for x in a['items'] %}{{ x }}{% endfor %}", False),
    ("jinja2", "{% if a %}x{% endif %}", "x", False),
    ("jinja2", "{% if a %}x{% endif %}", "{% set y = a %}x", False),
    ("jinja2", "{% if a %}x{% endif %}", "{{ a }}", True),
    ("jinja2", "{% if a %}{{ a.id }}{% endif %}", "{{ a.id }}", False),
    ("jinja2", "{% if a.ok %}{{ a.id }}{% endif %}", "{{ a.id }}", False),
    ("jinja2", "{% for x in xs %}-{% endfor %}", "-", False),
    ("jinja2", "{% for x in xs %}{{ x.a }}{% endfor %}", "{{ xs|map(attribute='a')|join(', ') }}", True),
    ("jinja2", "{% set x = a %}{{ b }}", "{{ b }}", False),
    ("jinja2", "{{ a }}", "{{ a if a else 'nobody' }}", True),
    ("jinja2", "{{ a.id }}", "{% if a is defined and a.id %}{{ a.id }}{% endif %}", True),
    ("jinja2", "{{ a.id }}", "{% if a.ok %}{{ a.id }}{% endif %}", False),
    ("jinja2", "{{ a }}", "{% if a.id %}{{ a }}{% endif %}", False),
    ("jinja2", "{{ a }}", "{% if b %}{{ a }}{% endif %}", False),
    ("jinja2", "{{ a }}", "{% set x = b.c.d %}{{ a }}", False),
    ("jinja2", "{{ a.id }}", "{{ a.id }} {{ a }}", False),
    ("jinja2", "{{ xs|join }}", "{% for x in xs %}{{ loop.index }}: {{ x }}{% endfor %}", True),
    ("jinja2", "{% for x in xs %}{{ x }}{% endfor %}", "{{ xs|join(', ') }}{{ xs|length }}", True),
    ("jinja2", "{{ xs|sort(attribute='a')|first }}", "{{ xs|sort(attribute='b')|first }}", False),
    (
        "jinja2",
        "{{ name|upper }}{% for x in xs %}{{ x.a }}{% endfor %}",
        "{% for row in xs|list %}{{ row['a']|e }}{% endfor %}{{name}}",
        True,
    ),
    ("jinja2", "{% if a %}{{ b }}{% endif %}", "{{ b if a }}", True),
    (
        "jinja2",
        "{% for k, v in d.items() %}{{ v }}{% endfor %}",
        "{% for _, it in d|items %}{{ it }}{% endfor %}",
        True,
    ),
    ("jinja2", "{{ xs|map(attribute='a')|join }}", "{% for x in xs %}{{ x.a }}{% endfor %}", True),
    # Lists, by their indexes and by what they are unpacked into.
    ("jinja2", "{{ xs[0] }}{{ xs[11].a }}", "{{ xs[0] }}{{ xs[11].a }}", True),
    ("jinja2", "{{ xs[0] }}{{ xs[11] }}", "{{ xs[0] }}", False),
    ("jinja2", "{{ ms[-3].a }}{{ ms[-1].a }}", "{{ ms[-1].a }}", False),
    ("jinja2", "{{ ms[-1].a }}{{ ms[n].a }}", "{{ ms[n].a }}{{ ms[-1].a }}", True),
    ("jinja2", "{{ xs[i|int].a }}{{ xs[j - 1].a }}", "{{ xs[j - 1].a }}{{ xs[i|int].a }}", True),
    (
        "jinja2",
        "{% for x in xs %}{{ x[0] }}{{ x[1] }}{% endfor %}",
        "{% for a, b in xs %}{{ a }}{{ b }}{% endfor %}",
        True,
    ),
    (
        "jinja2",
        "{% for a, b, c in xs %}{{ a }}{{ b }}{{ c }}{% endfor %}",
        "{% for a, b, c in xs %}{{ a }}{{ c }}{% endfor %}",
        False,
    ),
    (
        "jinja2",
        "{% for a, b, c in xs %}{{ a }}{{ b }}{{ c }}{% endfor %}",
        "{% for x in xs %}{{ x|join }}{% endfor %}",
        True,
    ),
    ("jinja2", "{% set a, b, c = t.split('-') %}{{ a }}{{ b }}{{ c }}", "{{ t.split('-')|join }}", True),
    (
        "jinja2",
        "{% set a, b, c = t.split('-') %}{{ a }}{{ b }}{{ c }}",
        "{% set a, b = t.split('-') %}{{ a }}{{ b }}",
        False,
    ),
    (
        "jinja2",
        "{% if xs %}{% for x in xs %}{{ x }}{% endfor %}{% endif %}",
        "{% for x in xs %}{{ x }}{% endfor %}",
        True,
    ),
    ("jinja2", "{% if xs %}{{ xs|join }}{% endif %}", "{{ xs|default([])|join }}", True),
    # Inputs of one kind.
    (
        "jinja2",
        "{% if a >= 18 and a < b %}{{ c }}{% endif %}{{ a }}",
        "{% if a >= 18 and a < b %}{{ c }}{% endif %}",
        False,
    ),
    (
        "jinja2",
        "{% if a > b %}{{ c }}{% else %}{{ d }}{% endif %}",
        "{% if a > b %}{{ d }}{% else %}{{ c }}{% endif %}",
        False,
    ),
    ("jinja2", "{{ [a, 5]|min }}{{ [b|length, c]|max }}", "{{ [5, a]|min }}{{ [b|length, c]|max }}", True),
    ("jinja2", "{{ '%.2f'|format(a * b) }}", "{{ '%.2f'|format(b * a) }} or so", True),
    (
        "jinja2",
        "{% if a is number %}{{ a|round }}{% else %}{{ a }}{% endif %}",
        "{% if a is number %}{{ a|round }}{% endif %}",
        False,
    ),
    # What isn't shown because a list can't be made.
    (
        "jinja2",
        "{% for x in xs %}{{ x.a.b() }}{{ x.c }}{% endfor %}{{ d }}",
        "{% for x in xs %}{{ x.a.b() }}{{ x.e }}{% endfor %}{{ d }}",
        False,
    ),
    (
        "jinja2",
        "{% for x in xs %}{{ x.a.b() }}{{ x.c }}{% endfor %}{{ d }}",
        "{{ d }}{% for x in xs %}{{ x.c }}{{ x.a.b() }}{% endfor %}",
        True,
    ),
    # Many conditions.
    ("jinja2", _MANY, _MANY.replace("x {{ a7 }}", "x"), False),
    # JSONPaths that may have no value.
    ("jinja2", "{% if a %}{{$.a.b}}{% endif %}c", "{{$.a.b}}{% if a %}c{% endif %}", False),
    ("jinja2", "{% if a %}{{$.a.b}}{% endif %}c", "{% if a %}c {{$.a.b}}{% else %}c{% endif %}", True),
    ("mustache", "{{#a}}{{$.a.b}}{{/a}}c", "{{$.a.b}}{{#a}}c{{/a}}", False),
    # Loops of which nothing is known before.
    (
        "jinja2",
        "{% for i in range(1, n + 1) %}{{ i }}. {{ a.b }} {{ a.c }}{% endfor %}",
        "{% for i in range(1, n + 1) %}{{ i }}. {{ a.b }}{% endfor %}",
        False,
    ),
    (
        "jinja2",
        "{% for i in range(1, xs|length + 1) %}{{ xs[i - 1].a }}{{ xs[i - 1].b }}{% endfor %}",
        "{% for x in xs %}{{ x.a }}{{ x.c }}{% endfor %}",
        False,
    ),
    (
        "jinja2",
        "{% for x in xs|rejectattr('done')|list %}{{ x.a }}{{ x.b }}{% endfor %}",
        "{% for x in xs|rejectattr('done')|list %}{{ x.a }}{% endfor %}",
        False,
    ),
    (
        "jinja2",
        "{% for x in xs + ys %}{{ x.a }}{{ x.b }}{% endfor %}",
        "{% for x in xs + ys %}{{ x.a }}{% endfor %}",
        False,
    ),
    (
        "jinja2",
        "{% for x in xs + ys %}{{ x.a }}{% endfor %}",
        "{% for x in xs %}{{ x.a }}{% endfor %}{{ ys|length }}",
        False,
    ),
    (
        "jinja2",
        "{% for x in (xs or []) + [{'a': q}] %}{{ x.a }}{% endfor %}",
        "{% for x in [{'a': q}] %}{{ x.a }}{% endfor %}{{ xs|length }}",
        False,
    ),
    (
        "jinja2",
        "{% for k in ks %}{{ m[k].a }}{{ m[k].b }}{% endfor %}",
        "{% for k in ks %}{{ m[k].a|truncate(5) }}{{ m[k].b }}{% endfor %}",
        False,
    ),
    ("jinja2", "{{ ', '.join([u.a, u.b]) }}", "{{ u.a }}, {{ u.b }}", True),
    ("jinja2", "{{ ', '.join([u.a, u.b]) }}", "{{ u.a }}, {{ u.c }}", False),
    ("jinja2", "{{ ms[-2].a }}", "{{ ms[0].a }}", False),
    ("jinja2", "{{ ms[-1] }}", "{{ ms[1] }}", False),
    # Constants that also stand in the text.
    ("jinja2", "{{ {'de': {'a': 'oder'}}[k].a }} {{ k }}", "{{ {'de': {'a': 'oder'}}[k].a }}", False),
    ("jinja2", "{{ {'de': {'a': 'oder'}}[k].a }} {{ k }}", "{{ k|upper }}: {{ {'de': {'a': 'oder'}}[k].a }}", True),
    # A condition inside of a section, by an input outside of it.
    ("mustache", "{{#xs}}{{a}}{{/xs}}{{b}}", "{{#xs}}{{#b}}{{a}}{{/b}}{{/xs}}{{b}}", False),
    # One place of a pair.
    (
        "jinja2",
        "{% for a, b in xs %}{{ a }}{{ b }}{% endfor %}",
        "{% for a, b in xs %}{% if b %}{{ a }}{{ b }}{% endif %}{% endfor %}",
        False,
    ),
    (
        "jinja2",
        "{% for x in xs %}{{ x[0] }}{% if x[2] > 9 %}!{% endif %}{{ x[1] }}{% endfor %}",
        "{% for x in xs %}{{ x[0] }}{% if x[2] > 9 %}!{{ x[1] }}{% endif %}{% endfor %}",
        False,
    ),
    (
        "jinja2",
        "{% for d, s in xs if s > 0.5 %}{{ d.a }}: {{ s }}{% endfor %}",
        "{% for d, s in xs if s > 0.5 %}{{ d.a|truncate(5) }}: {{ s }}{% endfor %}",
        False,
    ),
    ("jinja2", "{{ x[0] }} to {{ x[1] }}", "From {{ x[0] }} to {{ x[1] }}", True),
    # An object that is only needed behind a condition.
    ("jinja2", "{% if a %}{{ b.c }}{% endif %}{{ d }}", "{{ b.c }}{% if a %}!{% endif %}{{ d }}", False),
    ("jinja2", "{% if a == 'x' %}{{ b.c }}{% endif %}{{ d }}", "{{ b.c }}{% if a == 'x' %}!{% endif %}{{ d }}", False),
    # Cuts of what a filter returns.
    ("jinja2", "{{ (xs|sort)[:5]|join }}", "{{ (xs|sort)[:3]|join }}", False),
    ("jinja2", "{{ (xs|unique|list)[-9:]|join }}", "{{ (xs|unique|list)[-9:]|join(', ') }}", True),
    (
        "jinja2",
        "{% for x in xs|selectattr('a')|list %}{{ x.b }}{% endfor %}",
        "{% for x in (xs|selectattr('a')|list)[:4] %}{{ x.b }}{% endfor %}",
        False,
    ),
    # A condition by an item of an outer section.
    ("mustache", "{{#xs}}{{a}}{{#b}}{{b.c}}{{/b}}{{/xs}}", "{{#xs}}{{a}}{{#b}}{{#a}}{{b.c}}{{/a}}{{/b}}{{/xs}}", False),
    # Elements that may not be there.
    (
        "jinja2",
        "{{ xs[0].a }}{% if xs|length > 1 %} and {{ xs[1].a }}{% endif %}",
        "{{ xs[0].a }} and {{ xs[1].a }}{% if xs|length > 1 %}!{% endif %}",
        False,
    ),
    (
        "jinja2",
        "{% if xs|length > 1 %}{{ xs[-2].a }}{% endif %}{{ xs[-1].a }}",
        "{% if xs|length > 1 %}{{ xs[-2].a }}{{ xs[-1].a }}{% endif %}",
        False,
    ),
    # Items that may not be there.
    (
        "jinja2",
        "{% for x in xs %}{% if 'a' in x %}{{ x.a }}{% endif %}{{ x.b }}{% endfor %}",
        "{% for x in xs %}{% if 'a' in x %}{{ x.a }}{{ x.b }}{% endif %}{% endfor %}",
        False,
    ),
    ("jinja2", "{{ x.get('a', x.b) }}", "{{ x.a }}", False),
    ("jinja2", "{{ x.get('a', x.b) }}", "{{ x.a|default(x.b) }}", True),
    # Items in constant objects and lists.
    (
        "jinja2",
        "{% for x in xs %}{{ {'a': x.a, 'b': x.b}|tojson }}{% endfor %}",
        "{% for x in xs %}{{ {'a': x.a}|tojson }}{% endfor %}",
        False,
    ),
    (
        "jinja2",
        "{% for x in xs %}{{ {'a': x.a, 'b': x.b}|tojson }}{% endfor %}",
        "{% for x in xs %}a: {{ x.a }}, b: {{ x.b }}{% endfor %}",
        True,
    ),
    ("jinja2", "{{ [x.a, x.b]|tojson }}{{ x.c.replace('d', x.e) }}", "{{ [x.a, x.b]|tojson }}{{ x.c }}", False),
    # Names that are assigned in all branches are no inputs.
    (
        "jinja2",
        "{% if a == 'x' %}{% set b = 'X' %}{% elif a %}{% set b = 'Y' %}{% else %}{% set b = 'Z' %}{% endif %}{{ b }}",
        "{{ 'X' if a == 'x' else 'Y' if a else 'Z' }}",
        True,
    ),
    (
        "jinja2",
        "{% for x in xs %}{% if x %}{% set b = 'A' %}{% else %}{% set b = 'B' %}{% endif %}{{ b }}{{ x }}{% endfor %}",
        "{% for x in xs %}{{ 'A' if x else 'B' }}: {{ x }}{% endfor %}",
        True,
    ),
    ("jinja2", "{% if a %}{% set b = 'X' %}{% endif %}{{ b }}", "{% if a %}X{% endif %}", False),
    (
        "jinja2",
        "{{ b }}{% if a %}{% set b = 1 %}{% else %}{% set b = 2 %}{% endif %}{{ b }}",
        "{{ 1 if a else 2 }}",
        False,
    ),
    # Cuts in branches.
    (
        "jinja2",
        "{% if a == 'x' %}{{ b|truncate(2000) }}{% else %}{{ c }}{% endif %}",
        "{% if a == 'x' %}{{ b|truncate(200) }}{% else %}{{ c }}{% endif %}",
        False,
    ),
    (
        "jinja2",
        "{% if a %}{{ a }}{% else %}{{ b }}{% endif %}",
        "{% if a %}{{ a }}{% else %}{{ b|truncate(500) }}{% endif %}",
        False,
    ),
    # What is ordered is shown in both orders.
    ("jinja2", "{% if a < b %}{{ a }}{% endif %}{{ b }}", "{% if a < b %}less{% endif %}{{ b }}", False),
    ("jinja2", "{% if b > a %}{{ b }}{% endif %}{{ a }}", "{% if b > a %}more{% endif %}{{ a }}", False),
    (
        "jinja2",
        "{% if a|int < b %}{{ a }}{% else %}{{ b }}{% endif %}",
        "{% if a|int < b %}{{ a }}{% endif %}{% if not b %}{% endif %}",
        False,
    ),
    # What comes after something that no survey can compute.
    (
        "jinja2",
        "{% for t in ts %}{% if loop.previtem.role != t.role %}-{% endif %}{{ t.text }}{% endfor %}",
        "{% for t in ts %}{% if loop.previtem.role != t.role %}-{% endif %}{% endfor %}",
        False,
    ),
    ("jinja2", "{% if a %}{{ b|nope }}{% endif %}{{ c.d }}", "{% if a %}{{ b|nope }}{% endif %}{{ c.e }}", False),
    (
        "jinja2",
        "{% if a %}{{ 1/0 }}{% endif %}{% if b %}{{ b.c }}{% endif %}",
        "{% if a and b %}{{ b.c }}{% endif %}",
        False,
    ),
    ("jinja2", "{% if a %}{% include 'b' %}{% endif %}{{ c.d }}", "{% if a %}{% endif %}{{ c.e }}", False),
    (
        "jinja2",
        "{% for a, b, c in xs %}{{ a }}{{ b }}{{ c }}{% endfor %}{{ d.e }}",
        "{% for x in xs %}{{ x|join }}{% endfor %}{{ d.f }}",
        False,
    ),
    ("jinja2", "{{ a }}", "{% if a %}{{ a }}{% else %}{{ 'x'|nope }}{% endif %}", False),
    # What chooses from a constant object.
    (
        "jinja2",
        "{% set m = {'x': a, 'y': b} %}{{ m[c] }}",
        "{% if c == 'x' %}{{ a }}{% elif c == 'y' %}{{ b }}{% endif %}",
        True,
    ),
    (
        "jinja2",
        "{% set m = {'x': a, 'y': b} %}{{ m[c] }}",
        "{% if c == 'x' %}{{ b }}{% elif c == 'y' %}{{ a }}{% endif %}",
        False,
    ),
    (
        "jinja2",
        "{{ {'x': a, 'y': b}.get(c, d) }}",
        "{% if c in ['x', 'y'] %}{{ {'x': a, 'y': b}[c] }}{% else %}{{ d }}{% endif %}",
        True,
    ),
    ("jinja2", "{{ {'x': a, 'y': b}.get(c, d) }}", "{{ {'x': a, 'y': b}.get(c, a) }}{{ d if false }}", False),
    ("jinja2", "{% if a in {'x': 1} %}{{ b }}{% endif %}", "{% if a %}{{ b }}{% endif %}", False),
    (
        "jinja2",
        "{{ {'x': {'n': 'X'}, 'y': {'n': 'Y'}}[a].n }}{{ b }}",
        "{{ b }}{{ {'x': {'n': 'X'}, 'y': {'n': 'Y'}}[a].n }}",
        True,
    ),
    (
        "jinja2",
        "{% for m in ms %}{{ {'u': {'n': 'You'}, 'a': {'n': 'AI'}}[m.role].n }}: {{ m.text }}{% endfor %}",
        "{% for m in ms %}{{ m.text }}{% endfor %}",
        False,
    ),
    ("mustache", "{{#a}}{{b}}{{/a}}{{c}}", "{{&c}} {{{c}}}\n{{# a }}\n{{ b }}{{ b }}\n{{/ a }}", True),
    ("mustache", "{{a.b.c}}", "{{#a}}{{b.c}}{{/a}}", True),
    ("mustache", "{{{x}}}", "{{x}}", True),
    ("mustache", "{{x}}", "{{{x}}}", True),
    ("jinja2", "{% if tier == 'vip' %}{{ tier }}{% endif %}", "{% if tier == 'vip' %}VIP{% endif %}", False),
    ("jinja2", "{{ text }}", "{{ text[:100] }}", False),
    ("jinja2", "{{ text }}", "{{ text.split()[0] }}", False),
    ("jinja2", "{% if xs|length > 3 %}{{ b }}{% endif %}", "{% if xs|length > 4 %}{{ b }}{% endif %}", False),
    ("jinja2", "{{ xs[:3]|join }}", "{{ xs[:2]|join }}", False),
    ("jinja2", "{{ '%.2f'|format(n) }}", "{{ n }}", True),
    ("jinja2", "{{ n }}", "{{ '%.2f'|format(n) }}", False),
    ("jinja2", "{{ a + 1 }}", "{{ 2 }}{% if a %}{% endif %}", False),
    ("jinja2", "{{ a }}", "{{ a }}{{ a.nope }}", False),
    ("jinja2", "{% for x in xs[:1] %}{{ x }}{% endfor %}", "{{ xs[:1]|join }}", True),
    ("jinja2", "{{ t[lang] }}", "{{ t[lang]|default('?') }}", True),
    ("jinja2", "{{ t[lang] }}", "{{ t['en'] }}{{ lang }}", False),
    ("jinja2", "{{ a.b }}", "{% set a = {} %}{{ a.b }}", False),
    ("jinja2", "{{ xs|join(', ') }}", "{{ xs|first }}", False),
    (
        "jinja2",
        "{% for x in xs %}{{ x }}{% endfor %}",
        "{% for x in xs %}{% if loop.first %}{{ x }}{% endif %}{% endfor %}",
        False,
    ),
    ("jinja2", "{{ a }}{{ b }}", "{{ a or b }}", False),
    ("jinja2", "{% if a %}{{ b }}{% endif %}", "{% if a and b %}{{ b }}{% endif %}", True),
    ("jinja2", "{{ name }}", "{{ name if name != 'Bob' }}", False),
    ("mustache", "{{a}} {{b}}", "{{#a}}{{a}} {{b}}{{/a}}", False),
    ("mustache", "{{#items}}{{name}}{{/items}}", "{{#items}}{{#name}}{{name}}{{/name}}{{/items}}", True),
    ("jinja2", "{{ a }}", "{{ a|e }}{{ a|tojson }}", True),
    ("jinja2", "{{ a }}", "{{ a|title }}", True),
    ("jinja2", "{{ a }}", "{{ a|wordwrap(20) }}", True),
    ("jinja2", "{{ a }}", "{{ a|truncate }}", False),
    ("jinja2", "{{ a }}", "{{ a|replace('a','b') }}", False),
    ("jinja2", "{{ a }}", "{{ a.replace('e','') }}", False),
    ("jinja2", "{{ a }}", "{{ a|trim }}{{ a|indent }}", True),
    ("jinja2", "{{ x.a }}", "{{ x.get('a') }}", True),
    (
        "jinja2",
        "{% for k, v in d.items() %}{{ k }}{{ v }}{% endfor %}",
        "{% for v in d.values() %}{{ v }}{% endfor %}",
        False,
    ),
    ("jinja2", "{{ xs[0] }}", "{{ xs|first }}", True),
    ("jinja2", "{{ xs|first }}", "{{ xs[0] }}", False),
    ("jinja2", "{% if a == 'x' %}1{% endif %}", "{% if a == 'y' %}1{% endif %}", False),
    ("jinja2", "{% if a > 5 %}{{ b }}{% endif %}", "{% if a > 6 %}{{ b }}{% endif %}", False),
    ("jinja2", "{% if a > 5 %}{{ b }}{% endif %}", "{% if a >= 5 %}{{ b }}{% endif %}", False),
    ("jinja2", "{% set x = xs|selectattr('ok')|list %}{{ x|length }}", "{{ xs|length }}", False),
    ("jinja2", "{{ xs|length }}", "{{ xs|length + 1 }}", True),
    ("jinja2", "{{ xs|length }}", "{% if xs %}some{% endif %}", False),
    ("jinja2", "{{ n|int }}", "{{ n }}", True),
    ("jinja2", "{{ a|upper }}", "{{ a.upper() }}", True),
    ("jinja2", "{% if a is defined %}{{ a }}{% endif %}", "{{ a }}", True),
    ("jinja2", "{% if a is string %}{{ a }}{% else %}{{ a|join(', ') }}{% endif %}", "{{ a }}", True),
    ("jinja2", "{% if a is string %}{{ a }}{% else %}{{ a|join(', ') }}{% endif %}", "{{ a|join(', ') }}", False),
    ("jinja2", "{% if a == b %}{{ c }}{% endif %}", "{% if a == b %}x{% endif %}{% if c %}{% endif %}", False),
    (
        "jinja2",
        "{% if role == 'admin' %}{% if area == 'eu' %}{{ secret }}{% endif %}{% endif %}",
        "{% if role == 'admin' %}{% if area == 'us' %}{{ secret }}{% endif %}{% endif %}",
        False,
    ),
    (
        "jinja2",
        "{% for m in ms %}{% if m.role == 'user' and m.kind == 'text' %}{{ m.body }}{% endif %}{% endfor %}",
        "{% for m in ms %}{% if m.role == 'user' %}{% if m.kind == 'image' %}{{ m.body }}{% endif %}{% endif %}"
        "{% endfor %}",
        False,
    ),
    ("jinja2", "{{ user.name }} {{ user.age }}", "{{ user }}", False),
    ("jinja2", "{{ user.name }}", "{{ user.name }} {{ user.values()|join }}", False),
    ("jinja2", "{{ user.name }}", "{{ user.name }}{% for key in user %}{{ key }}{% endfor %}", False),
    ("jinja2", "{% for o in orders %}{{ o.id }}{% endfor %}", "{% for o in orders %}{{ o }}{% endfor %}", False),
    ("jinja2", "{{ user.name }} {{ user }}", "{{ user }} {{ user.name }}", True),
    ("jinja2", "{{ user|tojson }} {{ user.name }}", "{{ user.name }}: {{ user }}", True),
    ("jinja2", "{{ prices[lang] }} {{ lang }}", "{{ prices }} {{ lang }}", False),
    ("jinja2", "{{ user.keys()|join }}", "{{ user }}", False),
    (
        "jinja2",
        "{% for k in user.keys() %}{{ k }}{% endfor %}",
        "{% for k in user.keys() %}{{ k }}{{ user[k] }}{% endfor %}",
        False,
    ),
    (
        "jinja2",
        "{% for k, v in user.items() %}{{ v }}{% endfor %}",
        "{% for k, v in user.items() %}{{ k }}: {{ v }}{% endfor %}",
        True,
    ),
    (
        "jinja2",
        "{% for o in user.values() %}{{ o.id }}{% endfor %}",
        "{% for o in user.values() %}{{ o.id }}.{% endfor %}",
        True,
    ),
    ("jinja2", "{{ prices[lang] }} {{ prices }} {{ lang }}", "{{ prices }} {{ prices[lang] }} {{ lang }}", True),
    ("jinja2", "{{ user.name }}", "{{ user.name }}{{ user.copy().id }}", False),
    ("jinja2", "{{ user.name }}", "{{ user.name }}{{ dict(user).id }}", False),
    ("jinja2", "{{ user.name }}", "{{ user.name }}{{ user.pop('id', '') }}", False),
    ("jinja2", "{{ user.name }}", "{{ user.name }}{{ user.setdefault('id', '') }}", False),
    ("jinja2", "{{ dict(user).name }}", "{{ user.copy().name }}", True),
    (
        "jinja2",
        "Dear {{ user.name }}",
        "{% if 'title' in user %}{{ user.title }} {% endif %}Dear {{ user.name }}",
        False,
    ),
    ("jinja2", "{{ prices[lang] }}", "{% if lang in prices %}{{ prices[lang] }}{% endif %}", True),
    ("jinja2", "{% if 'a' in user %}{{ user.a }}{% endif %}", "{% if 'a' in user %}A: {{ user.a }}{% endif %}", True),
    (
        "jinja2",
        "{% if prices[lang] == 'free' %}Free in {{ lang }}{% else %}{{ prices[lang] }} {{ lang }}{% endif %}",
        "Price in {{ lang }}: {{ prices[lang] }}{% if prices[lang] == 'free' %} (free of charge){% endif %}",
        True,
    ),
    ("mustache", "{{text}}", "{{text}} {{.}}", False),
    ("mustache", "{{.}} {{text}}", "{{text}} {{.}}", True),
    ("mustache", "{{#orders}}{{id}}{{/orders}}", "{{#orders}}{{id}} {{.}}{{/orders}}", False),
    ("jinja2", "{{ a }}", "{{ a if [1, 0]|random }}", False),
    ("jinja2", "{{ a }}", "{{ a if lipsum()|length < 100 }}", False),
    ("jinja2", "{{ xs|first }}", "{{ xs|random }}", False),
    ("jinja2", "{{ xs|random }} {{ lipsum() }}", "{{ lipsum() }} {{ xs|random }}", True),
    ("jinja2", "{{ [a, 'b']|random }}", "{% if [1, 0]|random %}{{ a }}{% endif %}", True),
    ("jinja2", "{{ a }}", "{{ a if [1, 0, 1]|random }}", False),
    ("jinja2", "{{ a }}", "{{ a if '<p>' not in lipsum() }}", False),
    ("jinja2", "{{ a|truncate(100) }}", "{{ a|truncate(80) }}", False),
    ("jinja2", "{{ a|truncate(1000) }}", "{{ a|truncate(500) }}", False),
    ("jinja2", "{{ a|truncate(2000) }}", "{{ a|truncate(1900) }}", False),
    ("jinja2", "{{ a|truncate(500) }}", "{{ a|truncate(800) }}", True),
    ("jinja2", "{{ a[-500:] }}", "{{ a[-400:] }}", False),
    ("jinja2", "{{ a[-1000:] }}", "{{ a[-1500:] }}", True),
    ("jinja2", "{{ n|round(2) }}", "{{ n|int }}", False),
    ("jinja2", "{% if n > 10 %}{{ n }}{% endif %}", "{% if n > 10 %}{{ n|int }}{% endif %}", False),
    ("jinja2", "{{ '%.2f'|format(n) }}", "{{ '%.1f'|format(n) }}", False),
    ("jinja2", "{{ '%.1f'|format(n) }}", "{{ '%.2f'|format(n) }}", True),
    ("jinja2", "{{ n|round(2) }}", "{{ '%.3f'|format(n) }}", True),
    ("jinja2", "{{ random }} or lipsum", "Take lipsum, or a random one: {{ random }}", True),
    ("jinja2", "{{ $.a }}", "{% filter replace('JP', 'x') %}{{ $.a }}{% endfilter %}", False),
    ("jinja2", "{{ $.a }}", "{% filter replace('2', 'x') %}{{ $.a }}{% endfilter %}", False),
    ("jinja2", "{{ $.a }}", "{% filter upper %}{{ $.a }}{% endfilter %}", False),
    ("jinja2", "{{ user }}", "{{ user.name }}", False),
    ("jinja2", "{{ xs }}", "{% for x in xs %}- {{ x }}\n{% endfor %}", False),
    ("mustache", "{{#a}}x{{/a}}", "{{#a}}x{{/a}}{{^a}}y{{/a}}", True),
    ("mustache", "{{#on}}A {{x}}{{/on}}{{^on}}B {{x}}{{/on}}", "{{#on}}A {{x}}{{/on}}{{^on}}B{{/on}}", False),
    ("mustache", "{{#xs}}{{.}}{{/xs}}", "{{xs}}", True),
    ("mustache", "{{xs}}", "{{#xs}}{{.}}{{/xs}}", True),
    ("mustache", "{{#xs}}{{a}}{{/xs}}", "{{#xs}}{{xs.a}}{{/xs}}", False),
    ("mustache", "{{a}}", "{{ a }}{{! {{b}} }}", True),
    ("mustache", "{{#a}}{{#b}}{{c}}{{/b}}{{/a}}", "{{#b}}{{#a}}{{c}}{{/a}}{{/b}}", False),
    ("mustache", "{{a}}{{$.b}}", "{{^a}}{{$.b}}{{/a}}{{a}}", False),
    ("jinja2", "{{$.a}}", "{{$['a']}}", True),
    ("jinja2", "{% raw %}{{$.a}}{% endraw %}x{{$.b}}", "y{{$.b}}", True),
]


@pytest.mark.parametrize(("name", "before", "after", "whole"), RENDERED, ids=_short)
def test_what_one_text_shows_the_other_shows(name: str, before: str, after: str, *, whole: bool) -> None:
    faults = comparison.compare(name, [before], [], [after])
    assert (not faults) is whole, faults


BLANK = {
    "curly": ["", " \n\t\u00a0", "\u200b\u2060\ufeff", "\x1b"],
    "fstring": ["", " \n", "\u200b"],
    "jinja2": [
        "",
        " \n\u200b",
        "{# Hi #}",
        "{% set x = 'Hi' %}{% set y %}Hi{% endset %}",
        "{{ '' }}{{ ' ' }}{% raw %} {% endraw %}",
        "{% if a %} {% else %}{# Hi #}{% endif %}",
        "{% if false %}Hi {{ a }}{% endif %}",
        "{% if true %}{% else %}Hi{% endif %}",
        "{% for x in [] %}Hi{% endfor %}{% for x in xs %} {% endfor %}",
        "{% macro m() %}Hi{% endmacro %}",
        "{% filter upper %} {% endfilter %}",
    ],
    "mustache": [
        " \n\u200b",
        "{{! Hi }}",
        "{{!\nHi\n}}\n\n{{! there }}",
        "{{#items}}{{/items}}",
        "{{#a}} {{/a}}",
        " {{#a}}\n  {{^b}}\n\t{{/b}}\n{{/a}}\n",
        "{{=<% %>=}}",
        "{{=<% %>=}}\n<%! Hi %>\n<%#a%><%/a%>",
        "{{! {{$.a}} }}",
    ],
}
NOT_BLANK = {
    "curly": ["x", " {{a}} ", "{{$.a}}", "{", "\u00e9", "\U0001f600"],
    "fstring": ["x", "{a}", "{{}}"],
    "jinja2": [
        "x",
        "{{ a }}",
        "{{ 0 }}",
        "{{$.a}}",
        "{% raw %}x{% endraw %}",
        "{% if a %}x{% endif %}",
        "{% if a %}{% else %}x{% endif %}",
        "{% for x in xs %}-{% endfor %}",
        "{% for x in [] %}{% else %}x{% endfor %}",
        "{% filter upper %}x{% endfilter %}",
        "{% block b %}x{% endblock %}",
        "{% macro m() %}x{% endmacro %}{{ m() }}",
        "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}x{% endcall %}",
    ],
    "mustache": [
        "x",
        "{{a}}",
        "{{{a}}}",
        "{{&a}}",
        "{{$.a}}",
        "{{{ $.a }}}",
        "{{#a}}{{.}}{{/a}}",
        "{{#a}}x{{/a}}",
        "{{#a}}{{$.b}}{{/a}}",
        "{{^a}}\nnone\n{{/a}}",
        "{{! Hi }}x",
        "{{=<% %>=}}<%a%>",
        "{{=<% %>=}}{{a}}",
    ],
}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [(name, text, table is BLANK) for table in (BLANK, NOT_BLANK) for name, texts in table.items() for text in texts],
)
def test_knows_a_text_that_says_nothing(name: str, text: str, *, expected: bool) -> None:
    if name in READ:
        assert is_blank(text) is expected
    else:
        faults = comparison.compare(name, [f"Hi {text}"], [], [text])
        assert ("empty" in {fault.kind for fault in faults}) is expected


def test_a_message_holds_nothing_that_breaks_a_terminal_or_utf_8() -> None:
    assert shown("name") == "name"
    assert shown("\x1b[31m\ud800\n") == "\\x1b[31m\\ud800\\n"
    assert len(shown("x" * 1000)) == len(shown("\U000e0001" * 60)) == len(shown("\U000e0001" * 7)) == 60
    assert shown("x" * 60) == "x" * 60
    assert shown("\n" * 30) == "\\n" * 30
    assert shown("\n" * 31).endswith("…")
    with pytest.raises(TemplateSyntaxError) as caught:
        READ[DEFAULT]("{{\ud800[\x1b]}}")
    assert str(caught.value).isprintable()
    assert str(caught.value).encode()


def test_the_texts_of_a_prompt_share_the_limit_of_jsonpaths() -> None:
    def paths(first: int) -> str:
        return "".join(f"{{{{$.a{number}}}}}" for number in range(first, first + 350))

    def prompt(role: str, *contents: str) -> template.Template:
        messages = [{"role": role, "content": content} for content in contents]
        return template.parse(json.dumps({"messages": [*messages, {"role": "user", "content": "{{a}}"}]}))

    assert prompt("user", *[paths(1000)] * 10).variables
    with pytest.raises(template.TemplateError, match=r"messages\[1\].content can't be .* 4,000 characters together"):
        prompt("user", paths(1000), paths(2000))
    two, names = prompt("user", "a", "b"), [paths(1000), paths(2000), "{{a}}"]
    assert "together" in next(guarantee.variable_violations(two, names)).description
    # Of the texts that stay, no more are read.
    staying = prompt("tool", paths(1000), paths(2000))
    [violation] = guarantee.variable_violations(staying, ["{{a}} {{$.a1000}} {{$.a2000}}"])
    assert violation.description == "The refinement invented the variable {{$.a2000}}."


@pytest.mark.parametrize(
    ("text", "is_long"),
    [
        ("a" * LONG_CHARACTERS, False),
        ("{{name}} and {{other}}, as {it} is. " * 30, False),
        ("{{$.a}}", True),
        (json.dumps("{{$.a}}").replace("$", "\\u0024"), True),
        ("{a:>9999}" * 300, True),
        (json.dumps("{a:>9999}" * 300).replace("{", "\\u007B"), True),
    ],
    ids=lambda value: str(value)[:20],
)
def test_knows_what_takes_long_to_read(text: str, *, is_long: bool) -> None:
    assert (work(text) > LONG_CHARACTERS) is is_long


def test_libraries_are_loaded_when_they_are_needed() -> None:
    code = (
        "import sys; from agenta_ai_server.tools.refine_prompt import tool\n"
        "from agenta_ai_server.tools.refine_prompt.formats import READ\n"
        "READ['curly']('{{a}}'); READ['fstring']('{a}')\n"
        "assert not {'jinja2', 'mystace', 'jsonpath'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
