"""One text at a time: the variables that each format finds in it, or why it can't be rendered."""

from __future__ import annotations

import subprocess
import sys

import pytest

from agenta_ai_server.tools.refine_prompt.formats import DEFAULT, FORMATS, TemplateSyntaxError, shown

CURLY = {
    "": set(),
    "no variable": set(),
    "{{name}}": {"name"},
    "{{ name }} {{name}} {{\tname\n}}": {"name"},
    "{{ a.b }}{{a.b.0.c}}": {"a.b", "a.b.0.c"},
    "{{$.inputs.geo.region}}": {"$.inputs.geo.region"},
    "{{ $ }}{{$['a b'][0]}}": {"$", "$['a b'][0]"},
    "{{$..a}}{{$.*}}{{$[?(@.a[0] == ']')].b}}{{$.a-b}}": {"$..a", "$.*", "$[?(@.a[0] == ']')].b", "$.a-b"},
    "{{/json/pointer}}{{/a[0]}}": {"/json/pointer", "/a[0]"},
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

JINJA = {
    "": set(),
    "{{ name }}{{name}}{{- name -}}": {"name"},
    "{% if tier == 'vip' %}Prioritise.{% endif %}": {"?tier"},
    "{{ order.id }}{{ order['id'] }}{{ order.get('id') }}": {"order.id"},
    "{{ a['b c'] }}{{ a[0] }}{{ a.0.x }}{{ a[-1] }}": {"a['b c']", "a[-1]", "a[0]", "a[0].x"},
    "{{ a[i].x }}": {"?i", "a[].x"},
    "{{ a[1:n].x }}": {"?n", "a.x"},
    "{{ name|upper|default('you', true) }}": {"name"},
    "{{ a|default(b) }}": {"a", "b"},
    "{{ name is defined and not other is none }}": {"?name", "?other"},
    "{% for item in order['items'] %}{{ item.sku }}{% endfor %}": {"?order['items']", "order['items'][].sku"},
    "{% for i in order.get('items') %}{{ loop.index }}{{ i['sku'] }}{% endfor %}": {
        "?order['items']",
        "order['items'][].sku",
    },
    "{% for x in xs %}{{ x }}{% endfor %}{{ x }}": {"?xs", "x", "xs[]"},
    "{% for x in xs if x.ok %}{% else %}{{ x.no }}{% endfor %}": {"?xs", "?xs[].ok", "x.no"},
    "{% for k, v in d.items() %}{{ k }}{{ v.x }}{% endfor %}": {"?d", "d[][0]", "d[][1].x"},
    "{% for x in xs|sort(attribute='a')|list %}{{ x.b }}{% endfor %}": {"?xs", "?xs[].a", "xs[].b"},
    "{% for x in tree recursive %}{{ loop(x.kids) }}{% endfor %}": {"?tree", "?tree[].kids"},
    "{% for i in range(3) %}{{ i }}{% endfor %}": set(),
    "{% for x in a %}{% for y in x.b %}{{ y.c }}{{ x.d }}{% endfor %}{% endfor %}": {
        "?a",
        "?a[].b",
        "a[].b[].c",
        "a[].d",
    },
    "{{ items|map(attribute='sku')|join(', ') }}": {"items[].sku"},
    "{{ items|selectattr('ok')|rejectattr('old', 'equalto', now)|sum('n') }}": {
        "?items[].ok",
        "?items[].old",
        "?now",
        "items[].n",
    },
    "{% set x = order %}{{ x.id }}": {"=order", "order.id"},
    "{% set x = 'constant' %}{{ x }}": set(),
    "{% set a, b = x, y %}{{ a.p }}{{ b.q }}": {"=x", "=y", "x.p", "y.q"},
    "{% set a, b = pair %}{{ b.q }}": {"=pair", "pair[1].q"},
    "{% set a = x %}{% set a = a.y %}{{ a.z }}": {"=x", "=x.y", "x.y.z"},
    "{% if not name %}{% set name = 'you' %}{% endif %}{{ name }}": {"?name", "name"},
    "{% if a %}{% set x = a %}{% elif b %}{% set x = b %}{% else %}{% set x = c %}{% endif %}{{ x.n }}": {
        "=a",
        "=b",
        "=c",
        "?a",
        "?b",
        "a.n",
        "b.n",
        "c.n",
    },
    "{% if a %}{% set x = 1 %}{% endif %}{{ x }}": {"?a", "x"},
    "{% for i in a %}{% set x = 1 %}{% endfor %}{{ x }}": {"?a", "x"},
    "{% set ns = namespace(n=0) %}{% for x in xs %}{% set ns.n = ns.n + x.p %}{% endfor %}{{ ns.n }}": {
        "?xs",
        "=xs[].p",
        "xs[].p",
    },
    "{% set x %}{{ a }}{% endset %}{{ x }}": {"=a", "a"},
    "{% with x = o.p %}{{ x.q }}{% endwith %}{{ x }}": {"=o.p", "o.p.q", "x"},
    "{% macro m(i, j=k) %}{{ i.sku }}{{ j }}{% endmacro %}{{ m(x) }}": {"?k", "macro(1).sku", "macro(2)", "x"},
    "{% macro line(it) %}{{ it.sku }}{% endmacro %}{{ line(x) }}": {"macro(1).sku", "x"},
    "{% macro m() %}{{ caller(1) }}{% endmacro %}{% call(u) m() %}{{ u.n }}{% endcall %}": {"caller(1).n"},
    "{% filter upper %}{{ a }}{% endfilter %}": {"a"},
    "{% block b %}{{ a }}{% endblock %}{{ self.b() }}": {"a"},
    "{% for i in a %}{% block b %}{{ i.x }}{% endblock %}{% endfor %}": {"?a", "i.x"},
    "{{ a if b else c }}{{ (d or e).f }}": {"?b", "a", "c", "d.f", "e.f"},
    "{{ a ~ b + c * -d }}{{ e in [f, {'g': h}] }}": {"?e", "?f", "?h", "a", "b", "c", "d"},
    "{{ name.upper() }}{{ d.get(k) }}{{ 'x'.join(xs) }}": {"d", "k", "name", "xs"},
    "{{ namespace }}{{ range }}": {"namespace", "range"},
    "{{ cycler(a, b).next() }}{{ dict(a=b) }}": {"a", "b"},
    "{# {{ a }} #}{% raw %}{{ b }}{% endraw %}{{ '{{ c }}' }}": set(),
    "{{$.a.b}}{{ $['c'] }}{{{$.d}}}": {"$.a.b", "$.d", "$['c']"},
    "{# {{$.a}} #}{% raw %}{{$.b}}{% endraw %}{% if c %}{{$.d}}{% endif %}": {"$.d", "?c"},
    "{# {{$a}} #}": set(),
    "{{ o._id }}{{ o.__typename }}": {"o.__typename", "o._id"},
    "a }} %} #} { { b": set(),
    "\ud800{{ \xdcberschrift }}": {"Überschrift"},
    "{% autoescape true %}{{ a }}{% endautoescape %}": {"a"},
    "{{ 9**9**9**9 }}{{ 'x' * 10**12 }}{{ range(10**9) }}": set(),
    "{{ '{}'.format(a) }}{{ '%s'|format(a) }}": {"a"},
    # What is never reached, and what is only given a name.
    "{% if false %}{{ a }}{% elif b %}{{ c }}{% else %}{{ d }}{% endif %}": {"?b", "c", "d"},
    "{% if true %}{{ a }}{% elif b %}{{ c }}{% else %}{{ d }}{% endif %}": {"a"},
    "{% if not [] %}{{ a }}{% else %}{{ b }}{% endif %}{{ c if 0 else d }}": {"a", "d"},
    "{% for x in [] %}{{ a }}{% else %}{{ b }}{% endfor %}": {"b"},
    "{% for x in [1] %}{{ a }}{% else %}{{ b }}{% endfor %}": {"a"},
    "{% for x in [1] if c %}{{ a }}{% else %}{{ b }}{% endfor %}": {"a", "b", "?c"},
    "{{ false and a }}{{ true and b }}{{ 1 or c }}{{ '' or d }}": {"b", "d"},
    "{{ a and b }}{{ a or b }}": {"?a", "a", "b"},
    "{% macro m() %}{{ a }}{% endmacro %}": set(),
    "{% set x = a %}": {"=a"},
    "{% set x = a.b %}{% if x %}-{% endif %}": {"=a.b", "?a.b"},
    "{{ name[0:0] }}{{ b[:0] }}": {"?name", "?b"},
    # A path's steps, by whatever names them.
    "{{ x['items'] }}{{ x['keys'].a }}": {"x['items']", "x['keys'].a"},
    "{{ x|attr('id') }}": {"x|attr"},
    "{{ xs|map(attribute='a.b')|join }}{{ xs|map(attribute=0)|join }}{{ ys|sum('n') }}": {
        "xs[].a.b",
        "xs[][0]",
        "ys[].n",
    },
    "{{ xs|join(', ', 'a') }}{{ ys|unique(false, 'b')|first }}{{ zs|max(attribute='c') }}": {
        "xs[].a",
        "ys",
        "?ys[].b",
        "zs",
        "?zs[].c",
    },
    "{{ xs|sort(false, false, 'a,b.0')|first }}{{ xs|groupby('items')|first }}": {
        "xs",
        "?xs[].a",
        "?xs[].b[0]",
        "?xs[]['items']",
    },
    # What can be called.
    "{% set sep = joiner(', ') %}{% for x in xs %}{{ sep() }}{{ x }}{% endfor %}": {"?xs", "xs[]"},
    "{% for x in xs %}{{ loop.cycle('a', b) }}{{ loop.changed(x.c) }}{% endfor %}": {"?xs", "b", "?xs[].c"},
    "{% macro m(a) %}{{ a }}{{ m(a.next) }}{% endmacro %}{{ m(x) }}": {"macro(1)", "?macro(1).next", "x"},
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, b=2) }}": set(),
    "{{ [1].index(1) }}{{ {'a': 1}.items() }}{{ 'x'.upper() }}{{ 1.5.is_integer() }}": set(),
    # A chain of operators is no nesting.
    "{{ a" + " + a" * 120 + " }}": {"a"},
    "{{ a" + " ~ a" * 1000 + " }}": {"a"},
}
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
    "{% if a %}\n{% import 'a' as b %}{% endif %}": 2,
    "{% from 'a' import b %}": 1,
    "{% extends 'a' %}": 1,
    "{{ a|nope }}": 1,
    "{% if false %}{{ a|nope }}{% endif %}": 1,
    "{% filter nope %}{% endfilter %}": 1,
    "{{ a is nope }}": 1,
    "{{ a|map('nope') }}": 1,
    "{{ a|select('nope') }}": 1,
    "{{ a|replace('b') }}": 1,
    "{{ a|upper(1) }}": 1,
    "{{ a|round(digits=1) }}": 1,
    "{{ a is divisibleby }}": 1,
    "{{ nope() }}": 1,
    "{{ caller() }}": 1,
    "{{ super() }}": 1,
    "{{ order.send() }}": 1,
    "{{ a.__class__ }}": 1,
    "{{ a['__class__'] }}": 1,
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
    "a\0b": 1,
    "{{ " + "9" * 5000 + " }}": 1,
    "{{ " + "(" * 1000: 1,
    "{% if x %}" * 5000: 1,
    "{% if x %}" * 60 + "{% endif %}" * 60: 1,
    "{% for x in y %}" * 21 + "{% endfor %}" * 21: 1,
    "{{ a" + "+a" * 1000 + " }}": 1,
    "{{ a" + ".b" * 1000 + " }}": 1,
    "{% set x = x.a + x.b %}" * 100: 1,
    "{{ x.items }}": 1,
    "{% for k, v in x.y.values %}{% endfor %}": 1,
    "{% if x.keys %}{% endif %}": 1,
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
    "{{ lipsum(nope=1) }}": 1,
    "{% set x.y = 1 %}": 1,
    "{% set ns = namespace() %}{{ ns() }}": 1,
    "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}": 1,
    "{% macro m(a) %}{% endmacro %}{{ m(b=1) }}": 1,
    "{% macro m(a) %}{% endmacro %}{{ m(1, a=1) }}": 1,
    "{% macro m() %}{% endmacro %}{% call m() %}{% endcall %}": 1,
    "{% set a, b = 1, 2, 3 %}": 1,
    "{% set a, b = [1] %}": 1,
    "{% set a, b = 5 %}": 1,
    "{{ '{{$.a}}' }}": 1,
    "{{ x.get('{{$.a}}') }}": 1,
    "{% filter upper %}{{$.a}}{% endfilter %}": 1,
    "{% set x %}{{$.a}}{% endset %}": 1,
    "{% macro m() %}{{$.a}}{% endmacro %}": 1,
    "{% call m() %}{{$.a}}{% endcall %}": 1,
    "{{$.a[}}": 1,
    # Made to take long.
    "{% set x = x ~ a %}" + "".join(f"{{% set x = x ~ a{i} %}}" for i in range(300)): 1,
    "{% set x = x.abcdefghijklmnopqrstuvwxyz %}" * 1000: 1,
    "{% macro m() %}" + "".join(f"{{{{ a{i} }}}}" for i in range(5000)) + "{% endmacro %}" + "{{ m() }}" * 9000: 1,
    "{% if a %}" + "".join(f"{{% elif a %}}{{% set x{i} = 1 %}}" for i in range(3000)) + "{% endif %}": 1,
    "{% set " + ", ".join(f"a{i}" for i in range(9000)) + " = " + " ~ ".join(f"b{i}" for i in range(190)) + " %}": 1,
}

MUSTACHE = {
    "": set(),
    "{{name}}{{ name }}{{{name}}}{{{ name }}}{{&name}}{{& name }}": {"name"},
    "{{customer.name}}": {"customer.name"},
    "{{#items}}- {{sku}} x{{qty}}\n{{/items}}{{^items}}no items{{/items}}": {
        "#items",
        "#items/sku",
        "#items/qty",
        "^items",
    },
    "{{# items }}{{ sku }}{{/ items }}": {"#items", "#items/sku"},
    "{{#items}}{{/items}}{{sku}}": {"#items", "sku"},
    "{{^a}}{{b}}{{/a}}": {"^a", "b"},
    "{{#a}}{{^b}}{{c}}{{/b}}{{/a}}": {"#a", "#a/^b", "#a/c"},
    "{{#a}}{{#b}}{{c}}{{/b}}{{d}}{{/a}}{{e}}": {"#a", "#a/#b", "#a/#b/c", "#a/d", "e"},
    "{{#a}}{{.}}{{/a}}": {"#a", "#a/."},
    "{{.}}": {"."},
    "{{#a.b}}{{c.d}}{{/a.b}}": {"#a.b", "#a.b/c.d"},
    "{{#a}}{{#a}}{{b}}{{/a}}{{/a}}": {"#a", "#a/#a", "#a/#a/b"},
    "{{! a comment }}{{!}}": set(),
    "{{!\n over {{ lines\n}}{{a}}": {"a"},
    "{{=<% %>=}}<%a%>{{b}}<%=| |=%>|c|": {"a", "c"},
    "{{=| |=}}|#a||b||/a|": {"#a", "#a/b"},
    "{{$.a.b}}{{{ $['c'] }}}{{$}}": {"$.a.b", "$['c']", "$"},
    "{{#a}}{{$.b}}{{/a}}": {"#a", "$.b"},
    "{{=<% %>=}}{{$.a}}<%b%>": {"$.a", "b"},
    "{{! {{$.a}} }}{{b}}": {"b"},
    "{{\nname\n}}": {"name"},
    "{{a b}}{{a\nb}}{{a|upper}}{{a-b}}": {"a b", "a\nb", "a|upper", "a-b"},
    "{name} { {name}} }}": set(),
    "{{a}}}": {"a"},
    "{{名前}}\ud800": {"名前"},
    "{{a/b}}": {"a/b"},
    "{{#if x}}{{y}}{{/if x}}": {"#if x", "#if x/y"},
    "{{a.0.b}}": {"a.0.b"},
}
MUSTACHE_ERRORS = {
    "{{>partial}}": (1, 1),
    "a\n{{ > partial }}": (2, 1),
    "{{=<% %>=}}<%>p%>": (1, 15),
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
    "{{#a}}": (1, 4),
    "\n{{!\n\n}}\n {{^a}}": (5, 5),
    "{{#a}}{{#b}}{{/a}}{{/b}}": (1, 16),
    "{{/a}}": (1, 4),
    "{{#a}}{{/b}}": (1, 10),
    "{{#a}}{{/a.}}": (1, 10),
    "ok\nname: {{name": (2, 7),
    "{{{name}}": (1, 1),
    "{{a}} {{#b": (1, 7),
    "{{=<%=}}": None,
    "{{=<% %> !=}}": None,
    "{{= =}}": None,
    "{{$name}}": (1, 1),
    "{{#a{{$.b}}}}": None,
    "{{#a {{$.b}} }} }}": None,
    "a\0b": (1, 2),
    "{{#a}}" * 100 + "{{/a}}" * 100: None,
    "{{=<% %>=}}<%a}}": None,
}

ACCEPTED = [
    (name, text, expected)
    for name, table in (("curly", CURLY), ("fstring", FSTRING), ("jinja2", JINJA), ("mustache", MUSTACHE))
    for text, expected in table.items()
]


def _short(value: object) -> str | None:
    """An id for a test with a long text."""
    return f"{value[:60]}…" if isinstance(value, str) and len(value) > 60 else None


REFUSED: list[tuple[str, str, tuple[int, int] | int | None]] = [
    *(("curly", text, where) for text, where in CURLY_ERRORS.items()),
    *(("fstring", text, where) for text, where in FSTRING_ERRORS.items()),
    *(("jinja2", text, where) for text, where in JINJA_ERRORS.items()),
    *(("mustache", text, where) for text, where in MUSTACHE_ERRORS.items()),
]


@pytest.mark.parametrize(("name", "text", "expected"), ACCEPTED, ids=_short)
def test_finds_the_variables(name: str, text: str, expected: set[str]) -> None:
    assert FORMATS[name].variables(text) == expected


@pytest.mark.parametrize(("name", "text", "where"), REFUSED, ids=_short)
def test_says_what_is_wrong_and_where(name: str, text: str, where: tuple[int, int] | int | None) -> None:
    with pytest.raises(TemplateSyntaxError) as caught:
        FORMATS[name].variables(text)
    error = caught.value
    assert error.message.endswith(".")
    assert len(str(error)) < 400
    if isinstance(where, int):
        assert error.line == where
    elif where:
        assert (error.line, error.column) == where


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("curly", "Hi {{name}}, {{ a.b }}", "{{a.b}} and {{a.b}}: {{  name\t}}"),
        ("fstring", "{price:.2f} {who!r}", "{who:>9} pays {price:,.0f}, {price}"),
        ("jinja2", "{{ name|upper }}{% for x in xs %}{{ x.a }}{% endfor %}",
         "{% for row in xs|list %}{{ row['a']|e }}{% endfor %}{{name}}"),
        ("jinja2", "{% if a %}{{ b }}{% endif %}", "{{ b if a }}"),
        ("jinja2", "{% for k, v in d.items() %}{{ v }}{% endfor %}", "{% for _, it in d|items %}{{ it }}{% endfor %}"),
        ("mustache", "{{#a}}{{b}}{{/a}}{{c}}", "{{&c}} {{{c}}}\n{{# a }}\n{{ b }}{{ b }}\n{{/ a }}"),
    ],
)  # fmt: skip
def test_the_same_variables_written_otherwise(name: str, before: str, after: str) -> None:
    assert FORMATS[name].variables(before) == FORMATS[name].variables(after)


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("curly", "{{a.b}}", "{{a.c}}"),
        ("curly", "{{name}}", "{name}"),
        ("curly", "{{name}}", "{{Name}}"),
        ("fstring", "{order.id}", "{order[id]}"),
        ("fstring", "{name}", "{{name}}"),
        ("fstring", "{name} {n}", "{name:{n}}"),
        ("fstring", "{name}", "{name:.2f}"),
        ("jinja2", "{{ order.id }}", "{{ order.nope }}"),
        ("jinja2", "{% for x in xs %}{{ x.sku }}{% endfor %}", "{% for x in xs %}{{ x.sku_id }}{% endfor %}"),
        ("jinja2", "{% for x in xs %}{{ x.sku }}{% endfor %}", "{% for x in ys %}{{ x.sku }}{% endfor %}"),
        ("jinja2", "{% for k, v in d.items() %}{{ k }}{% endfor %}", "{% for k, v in d.items() %}{{ v }}{% endfor %}"),
        ("jinja2", "{% if tier %}{{ a }}{% endif %}", "{{ a }}"),
        ("jinja2", "{{ xs|map(attribute='a')|join }}", "{{ xs|map(attribute='b')|join }}"),
        ("jinja2", "{{ name }}", "{% raw %}{{ name }}{% endraw %}"),
        ("mustache", "{{#a}}{{b}}{{/a}}", "{{#a}}{{/a}}{{b}}"),
        ("mustache", "{{#a}}x{{/a}}", "{{a}}x"),
        ("mustache", "{{#a}}x{{/a}}", "{{^a}}x{{/a}}"),
        ("mustache", "{{#a}}x{{/a}}{{^a}}y{{/a}}", "{{#a}}x{{/a}}"),
        ("mustache", "{{a}}", "{{! a }}"),
    ],
)
def test_other_variables(name: str, before: str, after: str) -> None:
    assert FORMATS[name].variables(before) != FORMATS[name].variables(after)


# An old text, a new one, and what that lost and invented.
COMPARED = [
    ("curly", "{{a}} {{b.c}}", "{{b.c}} {{d}}", "a", "d"),
    ("fstring", "{total:.2f}", "{total}", "", ""),
    ("fstring", "{total:.2f}", "{total:,.1f} {total!r:>9}", "", ""),
    ("fstring", "{total}", "{total:.2f}", "", "total:no text"),
    ("fstring", "{total:.2f}", "{total:d}", "", "total:no fraction"),
    ("fstring", "{total:{w}}", "{total} {w}", ":w", "w"),
    ("mustache", "{{#xs}}{{a}}{{/xs}}", "{{#xs}}{{a}}{{/xs}}{{^xs}}none{{/xs}}", "", ""),
    ("mustache", "{{name}}", "{{name}}{{^name}}nobody{{/name}}", "", ""),
    ("mustache", "{{#a}}{{#b}}x{{/b}}{{/a}}", "{{#a}}{{#b}}x{{/b}}{{^b}}y{{/b}}{{/a}}", "", ""),
    ("mustache", "{{#a}}{{#b}}x{{/b}}{{/a}}", "{{#a}}{{#b}}x{{/b}}{{/a}}{{^b}}y{{/b}}", "", "^b"),
    ("mustache", "{{^xs}}none{{/xs}}", "{{#xs}}some{{/xs}}", "^xs", "#xs"),
    ("mustache", "{{name}}", "{{#name}}{{name}}{{/name}}", "name", "#name #name/name"),
    # Shown: must be shown.
    ("jinja2", "{{ a }}", "{% if a %}yes{% endif %}", "a", ""),
    ("jinja2", "{{ a }}", "{{ a is defined }}{{ a == 1 }}{{ a and 'x' }}", "a", ""),
    ("jinja2", "{{ a }}", "{{ 'x'|replace('y', a) }}", "a", ""),
    ("jinja2", "{{ a }}", "{{ a|length }}{{ [a]|count }}{{ a.startswith('x') }}{{ a.count('x') }}", "a", ""),
    ("jinja2", "{{ o.get('a', b) }}", "{{ o.a }}", "b", ""),
    ("jinja2", "{{ a }}", "{% set x = a %}", "a", ""),
    ("jinja2", "{{ a }}", "{% if false %}{{ a }}{% endif %}", "a", ""),
    ("jinja2", "{{ a }}", "{% for x in [] %}{{ a }}{% endfor %}", "a", ""),
    ("jinja2", "{{ a }}", "{% macro m() %}{{ a }}{% endmacro %}", "a", ""),
    ("jinja2", "{{ a }}", "{{ a[0:0] }}", "a", ""),
    ("jinja2", "{{ a }}", "{{ false and a }}", "a", ""),
    ("jinja2", "{{ a }}", "{% set x = a %}{{ x }}", "", ""),
    ("jinja2", "{{ a }}", "{% macro m() %}{{ a }}{% endmacro %}{{ m() }}", "", ""),
    ("jinja2", "{{ a.id }}", "{{ a|attr('id') }}", "a.id", "a|attr"),
    ("jinja2", "{{ a['items'] }}", "{% for x in a['items'] %}{{ x }}{% endfor %}", "", ""),
    # Read: must be read or shown, also on the way to what is shown.
    ("jinja2", "{% if a %}x{% endif %}", "x", "a", ""),
    ("jinja2", "{% if a %}x{% endif %}", "{% set y = a %}x", "a", ""),
    ("jinja2", "{% if a %}x{% endif %}", "{{ a }}", "", ""),
    ("jinja2", "{% if a %}{{ a.id }}{% endif %}", "{{ a.id }}", "", ""),
    ("jinja2", "{% if a.ok %}{{ a.id }}{% endif %}", "{{ a.id }}", "a.ok", ""),
    ("jinja2", "{% for x in xs %}-{% endfor %}", "-", "xs", ""),
    ("jinja2", "{% for x in xs %}{{ x.a }}{% endfor %}", "{{ xs|map(attribute='a')|join(', ') }}", "", ""),
    ("jinja2", "{% set x = a %}{{ b }}", "{{ b }}", "", ""),
    # New: may read what was there, and what that went through.
    ("jinja2", "{{ a }}", "{{ a if a else 'nobody' }}", "", ""),
    ("jinja2", "{{ a.id }}", "{% if a is defined and a.id %}{{ a.id }}{% endif %}", "", ""),
    ("jinja2", "{{ a.id }}", "{% if a.ok %}{{ a.id }}{% endif %}", "", "a.ok"),
    ("jinja2", "{{ a }}", "{% if a.id %}{{ a }}{% endif %}", "", "a.id"),
    ("jinja2", "{{ a }}", "{% if b %}{{ a }}{% endif %}", "", "b"),
    ("jinja2", "{{ a }}", "{% set x = b.c.d %}{{ a }}", "", "b.c.d"),
    ("jinja2", "{{ a.id }}", "{{ a.id }} {{ a }}", "", "a"),
    ("jinja2", "{{ xs|join }}", "{% for x in xs %}{{ loop.index }}: {{ x }}{% endfor %}", "", ""),
    ("jinja2", "{% for x in xs %}{{ x }}{% endfor %}", "{{ xs|join(', ') }}{{ xs|length }}", "", ""),
    ("jinja2", "{{ xs|sort(attribute='a')|first }}", "{{ xs|sort(attribute='b')|first }}", "xs[].a", "xs[].b"),
]


@pytest.mark.parametrize(("name", "before", "after", "lost", "invented"), COMPARED)
def test_what_was_lost_and_what_was_invented(name: str, before: str, after: str, lost: str, invented: str) -> None:
    template_format = FORMATS[name]
    found = template_format.compare(template_format.variables(before), template_format.variables(after))
    assert found == (set(lost.split()), {invented} - {""} if ":" in invented else set(invented.split()))


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
    FORMATS[name].variables(text)
    assert FORMATS[name].is_blank(text) is expected


def test_a_message_holds_nothing_that_breaks_a_terminal_or_utf_8() -> None:
    assert shown("name") == "name"
    assert shown("\x1b[31m\ud800\n") == "\\x1b[31m\\ud800\\n"
    assert len(shown("x" * 1000)) == len(shown("\U000e0001" * 60)) == len(shown("\U000e0001" * 7)) == 60
    assert shown("x" * 60) == "x" * 60
    assert shown("\n" * 30) == "\\n" * 30
    assert shown("\n" * 31).endswith("…")
    with pytest.raises(TemplateSyntaxError) as caught:
        FORMATS[DEFAULT].variables("{{\ud800[\x1b]}}")
    assert str(caught.value).isprintable()
    assert str(caught.value).encode()


def test_libraries_are_loaded_when_they_are_needed() -> None:
    code = (
        "import sys; from agenta_ai_server.tools.refine_prompt.formats import FORMATS\n"
        "FORMATS['curly'].variables('{{a}}'); FORMATS['fstring'].variables('{a}')\n"
        "assert not {'jinja2', 'mystace'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
