"""Three hundred templates, put together from pieces whose shapes were found in public repositories of prompts.

A piece has a schema of its inputs: ``text``, ``number``, ``flag``, a tuple of the texts that one may be, a list of
something, or an object.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

OPENINGS = (
    "You are a support agent.",
    "You translate product descriptions.",
    "You review pull requests.",
    "You extract facts from contracts.",
    "You write short summaries for busy people.",
    "You are a patient teacher.",
    "You answer questions about invoices.",
    "You plan journeys by train.",
)
CLOSINGS = (
    "Answer in one paragraph.",
    "Return JSON only.",
    "Say so if you don't know.",
    "Be brief and polite.",
    "Quote your sources.",
    'Answer like this: {"answer": "..."}',
)

DOC = {"title": "text", "content": "text", "score": "number"}
MESSAGE = {"role": ("user", "assistant", "system"), "content": "text"}
ITEM = {"sku": "text", "qty": "number", "price": "number"}
TOOL = {"name": "text", "description": "text"}
JINJA: dict[str, dict[str, Any]] = {
    "Question: {{ question }}": {"question": "text"},
    "Hello {{ user.name }}, you live in {{ user.city }}.": {"user": {"name": "text", "city": "text"}},
    "{% for doc in documents %}\n{{ doc.content }}\n{% endfor %}": {"documents": [DOC]},
    "Context:\n{% for doc in documents %}[{{ loop.index }}] {{ doc.title }}: {{ doc.content }}\n{% endfor %}": {
        "documents": [DOC]
    },
    "{% if documents %}{% for d in documents %}{{ d.content }} (score {{ d.score }})\n{% endfor %}{% endif %}": {
        "documents": [DOC]
    },
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}": {"messages": [MESSAGE]},
    "{% for m in messages %}{% if m.role == 'user' %}Q: {{ m.content }}{% elif m.role == 'assistant' %}A: "
    "{{ m.content }}{% endif %}\n{% endfor %}": {"messages": [MESSAGE]},
    "{% for message in history[-3:] %}<{{ message['role'] }}>{{ message['content'] }}</{{ message['role'] }}>"
    "{% endfor %}": {"history": [MESSAGE]},
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% endif %}": {"messages": [MESSAGE]},
    "{%- for tool in tools %}\n- {{ tool.name }}: {{ tool.description }}\n{%- endfor %}": {"tools": [TOOL]},
    "{% if tools %}You may call:\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}{% else %}None.{% endif %}": {
        "tools": [TOOL]
    },
    "{% if tier == 'vip' %}Prioritise {{ client }}.{% else %}Serve {{ client }}.{% endif %}": {
        "tier": ("vip", "basic"),
        "client": "text",
    },
    "{% if level == 'a' %}Easy: {{ goal }}{% elif level == 'b' %}Fair: {{ goal }}{% else %}{{ goal }}{% endif %}": {
        "level": ("a", "b", "c"),
        "goal": "text",
    },
    "{{ 'Formal' if formal else 'Casual' }} tone for {{ audience }}.": {"formal": "flag", "audience": "text"},
    "Speak {{ language|default('English') }}.": {"language": "text"},
    "Signed, {{ agent or 'the team' }}.": {"agent": "text"},
    "{% if notes %}Notes: {{ notes }}{% endif %}": {"notes": "text"},
    "{% if note is defined %}Note: {{ note }}{% endif %}": {"note": "text"},
    "{% if summary is not none %}Summary: {{ summary }}{% endif %}": {"summary": "text"},
    "{% if order %}Order {{ order.id }} of {{ order.date }}.{% endif %}": {"order": {"id": "text", "date": "text"}},
    "{% for item in cart['items'] %}{{ item.sku|upper }} x{{ item.qty }}\n{% endfor %}": {"cart": {"items": [ITEM]}},
    "Total: {{ '%.2f'|format(total) }}": {"total": "number"},
    "{% for item in basket %}{{ item.sku }}: {{ item.qty * item.price }}\n{% endfor %}": {"basket": [ITEM]},
    "Options: {{ options|join(', ') }}": {"options": ["text"]},
    "Skus: {{ cart2|map(attribute='sku')|join(', ') }}": {"cart2": [ITEM]},
    "{{ steps|length }} steps: {% for step in steps %}{{ loop.index }}. {{ step }}{% if not loop.last %}; {% endif %}"
    "{% endfor %}": {"steps": ["text"]},
    "{% if examples|length > 1 %}Examples:\n{% endif %}{% for e in examples %}In: {{ e.input }} Out: {{ e.output }}\n"
    "{% endfor %}": {"examples": [{"input": "text", "output": "text"}]},
    "{% for k, v in settings.items() %}{{ k }}={{ v }}\n{% endfor %}": {"settings": {"a1": "text", "b2": "text"}},
    "{% for key in facts %}{{ key }}: {{ facts[key] }}\n{% endfor %}": {"facts": {"c3": "text", "d4": "text"}},
    "{% set full = first ~ ' ' ~ last %}Dear {{ full }},": {"first": "text", "last": "text"},
    "{% set city = place.city %}Weather in {{ city }}": {"place": {"city": "text"}},
    "{% macro row(k, v) %}{{ k }} -> {{ v }}{% endmacro %}{{ row('name', product.name) }}{{ row(1, product.id) }}": {
        "product": {"name": "text", "id": "text"}
    },
    "{% set ns = namespace(found=false) %}{% for r in rules %}{% if r.active %}{% set ns.found = true %}{{ r.text }} "
    "{% endif %}{% endfor %}{% if not ns.found %}No rules.{% endif %}": {"rules": [{"active": "flag", "text": "text"}]},
    "{% with topic = lesson.topic %}Teach {{ topic }}.{% endwith %}": {"lesson": {"topic": "text"}},
    "{% for team in teams %}{{ team.name }}: {% for p in team.people %}{{ p }} {% endfor %}\n{% endfor %}": {
        "teams": [{"name": "text", "people": ["text"]}]
    },
    "First: {{ results[0].title }}": {"results": [{"title": "text"}]},
    "Best: {{ hits|first }}": {"hits": ["text"]},
    "{% if budget > 100 %}Premium{% else %}Standard{% endif %} for {{ buyer }}.": {"budget": "number", "buyer": "text"},
    "{% if vip and city %}VIP in {{ city }}{% endif %}": {"vip": "flag", "city": "text"},
    "{% if plan in ['pro', 'team'] %}Includes {{ feature }}.{% endif %}": {
        "plan": ("pro", "team", "free"),
        "feature": "text",
    },
    "{% if 'refund' in complaint %}Check the refund.{% endif %} Complaint: {{ complaint }}": {"complaint": "text"},
    "{% filter upper %}Attention, {{ operator }}{% endfilter %}": {"operator": "text"},
    "{% raw %}Use {{ placeholders }} like this.{% endraw %} Brand: {{ brand }}": {"brand": "text"},
    "{% set intro %}Case {{ case_id }}{% endset %}{{ intro }}": {"case_id": "text"},
    "{% if config.verbose %}Explain {{ config.depth }} steps.{% endif %}": {
        "config": {"verbose": "flag", "depth": "text"}
    },
    "{{ name.strip() }} wrote {{ book.title|trim|title }}.": {"name": "text", "book": {"title": "text"}},
    "{% for a in attachments if a.visible %}{{ a.file }} {% else %}No files.{% endfor %}": {
        "attachments": [{"visible": "flag", "file": "text"}]
    },
    "{{ region.name }} {{$.region.code}}": {"region": {"name": "text", "code": "text"}},
    "Tags: {% for t in tags %}#{{ t }}{{ ', ' if not loop.last }}{% endfor %}": {"tags": ["text"]},
    "{{ metrics|selectattr('ok')|map(attribute='label')|join(' / ') }}": {"metrics": [{"ok": "flag", "label": "text"}]},
    "Deadline: {{ task.due }}{% if task.owner %} by {{ task.owner }}{% endif %}": {
        "task": {"due": "text", "owner": "text"}
    },
}
MUSTACHE: dict[str, dict[str, Any]] = {
    "Question: {{question}}": {"question": "text"},
    "Hello {{user.name}} from {{user.city}}.": {"user": {"name": "text", "city": "text"}},
    "{{#items}}- {{sku}} x{{qty}}\n{{/items}}{{^items}}no items{{/items}}": {"items": [ITEM]},
    "{{#docs}}{{title}}: {{content}}\n{{/docs}}": {"docs": [DOC]},
    "{{#tags}}#{{.}} {{/tags}}": {"tags": ["text"]},
    "{{#note}}Note: {{note}}{{/note}}": {"note": "text"},
    "{{#formal}}Be formal.{{/formal}}{{^formal}}Be casual.{{/formal}}": {"formal": "flag"},
    "{{{html}}}": {"html": "text"},
    "{{&snippet}} in {{language}}": {"snippet": "text", "language": "text"},
    "{{#order}}Order {{id}} of {{date}}{{/order}}": {"order": {"id": "text", "date": "text"}},
    "{{#history}}{{role}}: {{content}}\n{{/history}}": {"history": [MESSAGE]},
    "{{^context}}No context.{{/context}}{{#context}}Context: {{text}}{{/context}}": {"context": {"text": "text"}},
    "{{#teams}}{{name}}: {{#people}}{{first}} {{/people}}{{/teams}}": {
        "teams": [{"name": "text", "people": [{"first": "text"}]}]
    },
    "{{product.maker.name}} makes {{product.name}}.": {"product": {"name": "text", "maker": {"name": "text"}}},
    "{{! keep it short }}Goal: {{goal}}": {"goal": "text"},
    "{{#examples}}In: {{input}}\nOut: {{output}}\n{{/examples}}": {"examples": [{"input": "text", "output": "text"}]},
    "{{$.region.code}} {{region.name}}": {"region": {"code": "text", "name": "text"}},
    "{{#rules}}{{#active}}{{text}} {{/active}}{{/rules}}": {"rules": [{"active": "flag", "text": "text"}]},
    "Dear {{title}} {{last}},": {"title": "text", "last": "text"},
    "{{#summary}}Summary: {{.}}{{/summary}}": {"summary": "text"},
    "{{#a.list}}{{value}}, {{/a.list}}": {"a": {"list": [{"value": "text"}]}},
    "{{=<% %>=}}<%brand%> uses {{braces}}": {"brand": "text"},
}
CURLY: dict[str, dict[str, Any]] = {
    "Question: {{question}}": {"question": "text"},
    "Hello {{ user.name }} from {{user.city}}.": {"user": {"name": "text", "city": "text"}},
    "Region {{$.geo.region}}": {"geo": {"region": "text"}},
    "Code {{/order/code}} for {{client}}": {"order": {"code": "text"}, "client": "text"},
    'Answer like {"x": {"y": 1}} about {{topic}}': {"topic": "text"},
    "First of {{tags.0}}": {"tags": ["text"]},
    "{{ first }} {{ last }} ({{team-name}})": {"first": "text", "last": "text", "team-name": "text"},
    "All of {{$['facts']['list'][0]}}": {"facts": {"list": ["text"]}},
    "{{language}} and {{ language }}": {"language": "text"},
    "{{#not_a_section}} is a name": {"#not_a_section": "text"},
}
FSTRING: dict[str, dict[str, Any]] = {
    "Question: {question}": {"question": "text"},
    "Order {order[id]} of {names[0]}": {"order": {"id": "text"}, "names": ["text"]},
    "Total {total:.2f}": {"total": "number"},
    'As {{"x": 1}} in {language!s:>12}': {"language": "text"},
    "{first} {last!r}": {"first": "text", "last": "text"},
    "{count:d} of {limit:,}": {"count": "number", "limit": "number"},
    "{city:<20}|": {"city": "text"},
    "{price:{width}}": {"price": "text", "width": "number"},
    "{{literal}} {topic}": {"topic": "text"},
    "{a[b c]} {note}": {"a": {"b c": "text"}, "note": "text"},
}
PIECES = {"jinja2": JINJA, "mustache": MUSTACHE, "curly": CURLY, "fstring": FSTRING}
COUNTS = {"jinja2": 130, "mustache": 80, "curly": 50, "fstring": 50}


@dataclass(frozen=True)
class Sample:
    """A template and the schema of its inputs."""

    name: str
    template_format: str
    text: str
    schema: dict[str, Any]
    pieces: tuple[str, ...]


def samples() -> list[Sample]:
    """All templates, the same ones each time."""
    return [sample for template_format in PIECES for sample in _of(template_format)]


def _of(template_format: str) -> list[Sample]:
    chosen = random.Random(template_format)
    found: list[Sample] = []
    pieces = list(PIECES[template_format])
    while len(found) < COUNTS[template_format]:
        number = len(found)
        first = [pieces[number % len(pieces)]]
        some = first + chosen.sample(pieces, chosen.randint(0, 2) if number < len(pieces) else chosen.randint(1, 3))
        schema: dict[str, Any] = {}
        used = []
        for piece in some:
            own = PIECES[template_format][piece]
            if all(schema.get(name, kind) == kind for name, kind in own.items()) and piece not in used:
                schema |= own
                used.append(piece)
        closing = chosen.choice(CLOSINGS)
        if template_format == "fstring":
            closing = closing.replace("{", "{{").replace("}", "}}")
        text = "\n".join([chosen.choice(OPENINGS), *used, closing])
        found.append(Sample(f"{template_format}-{number}", template_format, text, schema, tuple(used)))
    return found
