"""Conditions, orders and limits: what a text depends on without showing it, and how a refinement may change it."""

from __future__ import annotations

import pytest

from agenta_ai_server.tools.refine_prompt.rendering import comparison

TICKETS = "{% for t in tickets if @ %}- {{ t.title }}\n{% endfor %}{{ q }}"
LAST_USER = "Answer: {{ (messages|selectattr('role', 'equalto', 'user')|list|last).content }}"
USERS = (
    "{% set users = messages|selectattr('role', 'equalto', 'user')|list %}"
    "{% if users %}Q: {{ users[-1].content }}{% endif %}"
)
FIRST = "{% for d in docs %}{% if @ %}{{ d.title }}\n{% endif %}{% endfor %}"
FEW_BODIES = (
    "{% for d in docs %}{% if loop.index <= 3 %}{{ d.title }}: {{ d.body }}{% else %}{{ d.title }}{% endif %}"
    "{% endfor %}"
)


def _changed(text: str, old: str, new: str) -> tuple[str, str]:
    return text.replace("@", old), text.replace("@", new)


# The old text, a new one, and whether that may take its place.
CONDITIONS = [
    (*_changed(TICKETS, "t.status == 'open' and t.priority == 'high'", "t.priority == 'high'"), False),
    (*_changed(TICKETS, "t.status == 'open' and t.priority == 'high'", "t.status == 'open'"), False),
    (*_changed(TICKETS, "t.lang == 'en' and t.score > 0.5", "t.lang == 'en'"), False),
    (*_changed(TICKETS, "t.lang == 'en' and t.score > 0.5", "t.score > 0.5"), False),
    (*_changed(TICKETS, "t.role == 'user' and not t.hidden", "t.role == 'user'"), False),
    (*_changed(TICKETS, "t.open and t.team == 'ops' and t.severity > 2", "t.team == 'ops' and t.severity > 2"), False),
    (*_changed(TICKETS, "t.a == 'x' and t.b == 'y' and t.c == 'z'", "t.a == 'x' and t.c == 'z'"), False),
    # The item is still used, but no longer in this condition.
    (
        TICKETS.replace("@", "t.a == 'x' and t.b == 'y' and t.c == 'z'")
        + "{% for t in tickets if t.a == 'w' %}W{% endfor %}",
        TICKETS.replace("@", "t.b == 'y' and t.c == 'z'") + "{% for t in tickets if t.a == 'w' %}W{% endfor %}",
        False,
    ),
    (
        TICKETS.replace("@", "t.a or t.b or t.c") + "{% for t in tickets if t.a == 'w' %}W{% endfor %}",
        TICKETS.replace("@", "t.b or t.c") + "{% for t in tickets if t.a == 'w' %}W{% endfor %}",
        False,
    ),
    (*_changed(TICKETS, "t.a == 'x' and t.b == 'y'", "not t.a != 'x' and t['b'] == 'y'"), True),
    (
        *_changed(
            TICKETS, "t.status == 'open' and t.priority == 'high'", "t.priority == 'high' and t.status == 'open'"
        ),
        True,
    ),
    (
        "{% if user.premium and region == 'eu' %}Mention the GDPR.{% endif %}Hi {{ user.name }}",
        "{% if region == 'eu' %}Mention the GDPR.{% endif %}Hi {{ user.name }}",
        False,
    ),
    (
        "{% if order.refunded or order.cancelled %}Apologise.{% endif %}{{ order.id }}",
        "{% if order.cancelled %}Apologise.{% endif %}{{ order.id }}",
        False,
    ),
    (
        "{% if not user.premium and not user.trial %}Advertise.{% endif %}{{ user.name }}",
        "{% if not user.premium %}Advertise.{% endif %}{{ user.name }}",
        False,
    ),
    (
        "{% if not user.premium and not user.trial %}Advertise.{% endif %}{{ user.name }}",
        "{% if not (user.premium or user.trial) %}Advertise Premium.{% endif %}{{ user.name }}",
        True,
    ),
    (
        "{% if task.kind == 'bug' %}{% if task.severity == 'high' %}Escalate.{% endif %}{% endif %}{{ task.id }}",
        "{% if task.severity == 'high' %}Escalate.{% endif %}{{ task.id }}",
        False,
    ),
    (
        "{% if task.kind == 'bug' %}{% if task.severity == 'high' %}Escalate.{% endif %}{% endif %}{{ task.id }}",
        "{% if task.kind == 'bug' and task.severity == 'high' %}Escalate it.{% endif %}{{ task.id }}",
        True,
    ),
]
ORDER = [
    (LAST_USER, "Answer: {{ messages[-1].content }}", False),
    (LAST_USER, LAST_USER.replace("last", "first"), False),
    (LAST_USER.replace("last", "first"), "Answer: {{ messages[0].content }}", False),
    (
        LAST_USER,
        "Answer: {{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|list|last }}",
        True,
    ),
    (USERS, "{% if messages and messages[-1].role == 'user' %}Q: {{ messages[-1].content }}{% endif %}", False),
    (
        "{% for m in messages if m.role == 'user' %}{% if loop.last %}{{ m.content }}{% endif %}{% endfor %}",
        "{% for m in messages %}{% if loop.last and m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
        False,
    ),
    ("{{ (docs|selectattr('ok')|first).text }}", "{{ docs[0].text }}", False),
    ("{{ (docs|rejectattr('hidden')|first).text }}", "{{ docs[0].text }}", False),
    ("{{ (results|sort(attribute='score')|last).text }}", "{{ (results|last).text }}", False),
    ("{{ (results|sort(attribute='score')|last).text }}", "{{ (results|sort(attribute='score'))[-1].text }}", True),
    ("{{ (bids|max(attribute='amount')).who }}", "{{ (bids|last).who }}", False),
    ("{{ (bids|max(attribute='amount')).who }}", "{{ (bids|sort(attribute='amount')|last).who }}", True),
    ("{{ (offers|min(attribute='price')).name }}", "{{ offers[0].name }}", False),
    ("{{ (offers|sort(attribute='price'))[0].name }}", "{{ offers[0].name }}", False),
    (
        "{% set best = offers|sort(attribute='price')|first %}{{ best.name }}: {{ best.price }}",
        "{% set best = offers|first %}{{ best.name }}: {{ best.price }}",
        False,
    ),
]
LIMITS = [
    (*_changed(FIRST, "loop.index0 < 3", "loop.index < 3"), False),
    (*_changed(FIRST, "loop.index0 < 3", "loop.index <= 3"), True),
    (*_changed(FIRST, "loop.index <= 5", "loop.index <= 3"), False),
    (*_changed(FIRST, "5 >= loop.index", "loop.index <= 3"), False),
    (*_changed(FIRST, "loop.revindex0 < 3", "loop.revindex < 3"), False),
    (*_changed(FIRST, "loop.revindex <= 5", "loop.index <= 5"), False),
    (*_changed(FIRST, "loop.length > 3", "loop.length > 4"), False),
    (*_changed(FIRST, "loop.index <= 3", "loop.index < 4"), True),
    (
        "{% if docs %}" + FIRST.replace("@", "loop.index <= 3") + "{% endif %}",
        "{% if docs %}{% for d in docs[:3] %}{{ d.title }}\n{% endfor %}{% endif %}",
        True,
    ),
    (
        "{% if docs %}" + FIRST.replace("@", "loop.index <= 3") + "{% endif %}",
        "{% if docs %}{% for d in docs[:2] %}{{ d.title }}\n{% endfor %}{% endif %}",
        False,
    ),
    (
        "{% set most = 3 %}" + FIRST.replace("@", "loop.index <= most"),
        "{% for d in docs[:2] %}{{ d.title }}\n{% endfor %}",
        False,
    ),
    (
        "{% for d in docs if d.ok %}{% if loop.index <= 3 %}{{ d.title }}\n{% endif %}{% endfor %}",
        "{% for d in docs if d.ok %}{% if loop.index <= 2 %}{{ d.title }}\n{% endif %}{% endfor %}",
        False,
    ),
    (FEW_BODIES, FEW_BODIES.replace("{% else %}{{ d.title }}", ""), False),
    (FEW_BODIES, FEW_BODIES.replace("<= 3", "< 4").replace(": ", " — "), True),
]
TONE = "{{ @ if tone == 'formal' else 'Keep it light.' }}\n{{ text }}"
STYLES = "{% set styles = {'formal': '@', 'casual': 'Keep a casual tone.'} %}{{ styles[tone] }} {{ text }}"
MACRO = "{% macro style() %}{% if tone == 'formal' %}@{% endif %}{% endmacro %}{{ style() }} {{ text }}"
BLOCK = "{% set intro %}{% if tone == 'formal' %}@{% endif %}{% endset %}{{ intro|trim }} {{ text }}"
FILTERED = "{% filter upper %}{% if tone == 'formal' %}@{% endif %}{% endfilter %} {{ text }}"
ROLE = "{% for m in messages %}{{ '@' if m.role == 'user' else 'Assistant' }}: {{ m.content }}\n{% endfor %}"
WORDING = [
    (*_changed(TONE, "'Use a formal tone.'", "'Write full, polite sentences.'"), True),
    (
        TONE.replace("@", "'Use a formal tone.'"),
        "{% if tone == 'formal' %}Use a formal tone.{% else %}Keep it light.{% endif %}\n{{ text }}",
        True,
    ),
    *((*_changed(text, "Be formal.", "Be polite."), True) for text in (STYLES, MACRO, BLOCK, FILTERED)),
    (*_changed(ROLE, "User", "Customer"), True),
    (*_changed(ROLE.replace("}}:", "~ ': ' ~ m.content }}"), "User", "Customer"), True),
    # What is printed is more than a word.
    (*_changed("{% if tone == 'formal' %}@{% endif %}{{ text }}", "Be {{ tone|upper }}.", "Be polite."), False),
    (*_changed("{% if lang == 'french' %}@{% endif %}{{ lang }}", "Be {{ lang }}.", "Be French."), True),
    (TONE.replace("@", "'Use a formal tone.'"), "{{ 'Use a formal tone.' }}\n{{ text }}", False),
    (STYLES.replace("@", "Be formal."), "Be formal. {{ text }}", False),
]
# Lists in lists in lists …
THREAD = "{% for c in comments recursive %}- {{ c.author }}: {{ c.text }}@{% endfor %}"
REPLIES = "{% if c.replies %}\n{{ loop(c.replies) }}{% endif %}"
TREE = (
    "{% macro show(nodes) %}{% for n in nodes %}- {{ n.title }}{% if n.children %}{{ show(n.children) }}{% endif %}"
    "{% endfor %}{% endmacro %}{{ show(tree) }}"
)
NESTED = (
    "{% macro show(o) %}{% for k, v in o.items() %}{{ k }}: {% if v is mapping %}{{ show(v) }}{% else %}{{ v }}"
    "{% endif %}{% endfor %}{% endmacro %}{{ show(data) }}"
)
RECURSION = [
    (NESTED, NESTED.replace("{{ k }}:", "- {{ k }}:"), True),
    (NESTED, NESTED.replace("{{ k }}: ", ""), False),
    (*_changed(THREAD, REPLIES, REPLIES.replace("\\n", "\\n> ")), True),
    (*_changed(THREAD, REPLIES, ""), False),
    (*_changed(THREAD, REPLIES, "{% for r in c.replies %}> {{ r.author }}: {{ r.text }}{% endfor %}"), False),
    (TREE, TREE.replace("- {{", "* {{"), True),
    (TREE, "{% for n in tree recursive %}* {{ n.title }}{{ loop(n.children) if n.children }}{% endfor %}", True),
    (TREE, "{% for n in tree %}- {{ n.title }}{% endfor %}", False),
]
SCHEMA = (
    "{% macro props(s) %}{% for k, p in s.properties.items() %}- {{ k }}: {{ p.description }}"
    "{% if p.properties %}{{ props(p) }}{% endif %}{% endfor %}{% endmacro %}{{ props(schema) }}"
)
RECURSION += [
    (SCHEMA, SCHEMA.replace("- {{", "* {{"), True),
    (SCHEMA, SCHEMA.replace(": {{ p.description }}", ""), False),
]
# Numbers that are shown, and numbers that aren't inputs.
ASK = "Ask @ questions about {{ topic }}: {% for i in range(n) %}{{ i + 1 }}. {% endfor %}"
LINES = "{% for line in notes.splitlines() %}@ {{ line }}\n{% endfor %}{{ q }}"
CODES = "{% for code in [101, 102, 103, 201, 202, 203, 204, 301, 302, 404, 500] %}{{ code }} {% endfor %}"
NUMBERS = [
    (*_changed(ASK, "{{ n }}", "exactly {{ n }}"), True),
    (*_changed(ASK, "{{ n }}", "{{ '%d'|format(n) }}"), True),
    (*_changed(ASK, "{{ n }}", "{{ '%d of %s' % (n, topic) }}"), True),
    (*_changed(ASK, "{{ n }}", "{{ n ~ ' good' }}"), True),
    (*_changed(ASK, "{{ n }}", ""), False),
    (*_changed(ASK, "{{ n }}", "three"), False),
    (*_changed(LINES, "-", "{{ loop.index }}."), True),
    (*_changed(LINES.replace("{{ q }}", "{{ q|round }}"), "-", "{{ loop.index }}."), True),
    (*_changed(LINES.replace("splitlines()", "split('\\n')"), "-", "{{ loop.index }}."), True),
    (*_changed(LINES.replace("splitlines()", "split(',')"), "-", "{{ loop.index }}."), True),
    ("{{ q }}", CODES + "{{ q }}", True),
    ("{{ q|round }}", CODES + "{{ q|round }}", False),
    ("{{ q|round }}", "{% for i in range(100, 1000) %}{{ i }} {% endfor %}", False),
]
# What is said for a value may be what is said by default.
LINE = "{% set lines = {'fr': 'Répondez.', 'en': 'Answer.'} %}{{ @ }}\n{{ q }}"
TIER = "{% if tier == 'gold' %}Be quick.{% elif tier == 'vip' %}Be gentle.@ {{ q }}"
TWO_TIERS = TIER.replace("@", "{% endif %}")
TIER_OR_ELSE = "{% if tier == 'gold' %}Be quick.{% else %}Be gentle.{% endif %} {{ q }}"
PROSE = "You are a careful assistant who follows the house style to the letter. " * 80
THREE = "{{ context }} {{ history }} {{ question }}"
DEFAULTS = [
    (*_changed(LINE, "lines[lang]", "lines.get(lang, 'Answer.')"), True),
    (*_changed(LINE, "lines[lang]", "lines[lang]|default('Answer.')"), True),
    (LINE.replace("@", "lines[lang]"), "{% if lang == 'fr' %}Répondez.{% else %}Answer.{% endif %}\n{{ q }}", True),
    (LINE.replace("@", "lines[lang]"), "{% if lang == 'fr' %}Répondez.{% endif %}\n{{ q }}", False),
    (LINE.replace("@", "lines[lang]"), "Answer.\n{{ q }}", False),
    (LINE.replace("@", "lines[lang]"), "Répondez. Answer.\n{{ q }}", False),
    (TWO_TIERS, TIER_OR_ELSE, True),
    (TWO_TIERS, "{% if tier == 'gold' %}Be quick.{% endif %} {{ q }}", False),
    (TWO_TIERS, "Be gentle. {{ q }}", False),
    # Long texts, and other punctuation.
    (TWO_TIERS + PROSE, TIER_OR_ELSE + PROSE, True),
    (TWO_TIERS + PROSE, "{% if tier == 'gold' %}Be quick.{% endif %} {{ q }}" + PROSE, False),
    (TWO_TIERS + THREE, TIER_OR_ELSE.replace(".", "!") + THREE, True),
    (LINE.replace("@", "lines[lang]") + THREE, LINE.replace("@", "lines.get(lang, 'Answer.')") + THREE, True),
    (
        "Write{% if formal %} formally{% endif %}: {{ q }}",
        "Write{% if formal == 1 %} formally{% endif %}: {{ q }}",
        False,
    ),
]

# What the text says where nothing of a shown input is shown: a default, a header, a bullet or a separator.
DOCS = "{% for d in docs %}@\n{% endfor %}{{ q }}"
NAME = "{% if user %}@{% endif %} {{ q }}"
PLACES = [
    (*_changed(DOCS, "- {% if d.title %}{{ d.title }}{% endif %}", "{% if d.title %}- {{ d.title }}{% endif %}"), True),
    (*_changed(DOCS, "{{ d.title or 'Untitled' }}", "{{ d.title }}"), True),
    (*_changed(DOCS, "{{ d.title|default('Untitled') }}", "{{ d.title|default('(no title)') }}"), True),
    (*_changed(DOCS, "{% if d.text %}{{ d.text }}{% else %}(empty){% endif %}", "{{ d.text }}"), True),
    (*_changed(NAME, "User:{% if user.name %} {{ user.name }}{% endif %}", "{{ user.name }}"), True),
    (
        "{% if vip %}{% if name %}Dear {{ name }}{% else %}Dear customer{% endif %}{% endif %} {{ q }}",
        "{% if vip and name %}Dear {{ name }}{% endif %} {{ q }}",
        True,
    ),
    (
        "{% for t in tools %}{% if t.on %}{{ t.name }}{% endif %}{% if not loop.last %}, {% endif %}{% endfor %}",
        "{{ tools|selectattr('on')|map(attribute='name')|join(', ') }}",
        True,
    ),
    (
        "{% if not name and vip %}Ask for the name.{% endif %} {{ name }} {{ q }}",
        "{% if not name %}Ask for the name.{% endif %} {{ name }} {{ q }}",
        False,
    ),
    (
        "{% if name or vip %}Be nice.{% endif %} {{ name }} {{ q }}",
        "{% if name %}Be nice.{% endif %} {{ name }} {{ q }}",
        False,
    ),
]

# Two inputs of one condition, each of which has another effect as well.
GDPR = "{% if @region == 'eu' %}Mention the GDPR.{% endif %} {% if user.premium %}Thank them.{% endif %}{{ user.name }}"
FORMAL = "{% if formal %}Be formal.@{% endif %}"
VOUVOYEZ = "{% if lang == 'fr' %} Vouvoyez.{% endif %}"
BUG = (
    "{% if kind == 'bug' %}Describe the steps.{% endif %}"
    "{% if @severity == 'high' %} Call the team.{% endif %} {{ text }}"
)
URGENT = "{% if urgent %}Hurry.{% endif %}{% if vip %} Be kind.{% endif %}@ {{ text }}"
CALL = "{% if urgent and vip %} Call back.{% endif %}"
RULES = "@{% if strict %} Be strict.{% endif %}{% if brief %} Be brief.{% endif %} {{ text }}"
# Inputs that may be absent, so many that only some of their combinations are rendered.
NAMES = (
    "name company city hobby plan notes goal audience format deadline budget style language country industry role "
    "topic product persona rules examples region"
)
MANY = "".join(f"{{% if {name} %}}{name.title()}: {{{{ {name} }}}}\n{{% endif %}}" for name in NAMES.split())
JOINT = [
    (*_changed(GDPR, "user.premium and ", ""), False),
    (*_changed(GDPR, "user.premium or ", ""), False),
    (
        GDPR.replace("@", "user.premium and "),
        "{% if user.premium %}Thanks.{% if region == 'eu' %} The GDPR applies.{% endif %}{% endif %}{{ user.name }}",
        True,
    ),
    (FORMAL.replace("@", VOUVOYEZ) + "{{ text }}", FORMAL.replace("@", "") + VOUVOYEZ + "{{ text }}", False),
    (
        FORMAL.replace("@", VOUVOYEZ) + "{{ text }}",
        FORMAL.replace("@", "") + VOUVOYEZ.replace("if lang", "if formal and lang") + "{{ text }}",
        True,
    ),
    (*_changed(BUG, "kind == 'bug' and ", ""), False),
    (*_changed(BUG, "kind == 'bug' or ", ""), False),
    (*_changed(MANY + BUG, "kind == 'bug' and ", ""), False),
    (*_changed(URGENT, CALL, CALL.replace("urgent and ", "")), False),
    (*_changed(URGENT, CALL, CALL.replace(" and vip", "")), False),
    (*_changed(URGENT, CALL, ""), False),
    (*_changed(URGENT, CALL, "{% if vip %}{% if urgent %} Call them back.{% endif %}{% endif %}"), True),
    (
        "{% if urgent %}Hurry.{% elif vip %}Be kind.{% endif %} {{ text }}",
        "{% if urgent %}Hurry.{% endif %} {% if vip %}Be kind.{% endif %} {{ text }}",
        False,
    ),
    # What is said in exchange for something else, headers and separators are wording.
    (
        "{% if brief and strict %}Be brief and strict.{% elif brief %}Be brief.{% elif strict %}Be strict.{% endif %}"
        " {{ text }}",
        RULES.replace("@", ""),
        True,
    ),
    (*_changed(RULES, "{% if strict or brief %}Rules:{% endif %}", ""), True),
    (
        "{% if brief %}brief{% endif %}{% if brief and formal %} and {% endif %}{% if formal %}formal{% endif %}"
        " {{ q }}",
        "{% if brief %}Be brief. {% endif %}{% if formal %}Be formal. {% endif %}{{ q }}",
        True,
    ),
    (
        "Write{% if short %}, short{% endif %}{% if plain %}, plainly{% endif %}. {{ text }}",
        "Write{% if short %} short{% endif %}{% if plain %} plain{% endif %} sentences. {{ text }}",
        True,
    ),
    # A dash says nothing, wherever it splits a word.
    (
        "{% if short %}yes{% endif %}{% for each in files %}-{% endfor %}0 {{ text }}",
        "{% if short %}yes{% endif %} {% for each in files %}-{% endfor %} 0 {{ text }}",
        True,
    ),
    (
        "{% if short %}non{% endif %}{% if plain %}-{% endif %}fiction {{ text }}",
        "Fiction: {% if short %}non{% endif %} {% if plain %}-{% endif %}. {{ text }}",
        True,
    ),
]
# Limits of what was sorted or filtered.
PICKED = "{% if docs %}{% for d in @ %}{{ d.title }}\n{% endfor %}{% endif %}{{ q }}"
OK = "{% for d in docs if d.ok %}{% if loop.index <= 3 %}{{ d.title }}\n{% endif %}{% endfor %}"
PICKS = [
    (*_changed(PICKED, "(docs|sort(attribute='price'))[:3]", "docs[:3]|sort(attribute='price')"), False),
    (*_changed(PICKED, "(docs|sort(attribute='price'))[:3]", "docs[:3]"), False),
    (*_changed(PICKED, "(docs|sort(attribute='price'))[-3:]", "docs[-3:]|sort(attribute='price')"), False),
    (
        *_changed(
            PICKED.replace("{{ d", "{{ d.price }} {{ d"), "(docs|sort(attribute='price'))[:3]", "(docs|sort)[:3]"
        ),
        False,
    ),
    (
        *_changed(
            PICKED.replace("{{ d", "{{ d.day }} {{ d"),
            "(docs|sort(attribute='day'))[-3:]",
            "docs[-3:]|sort(attribute='day')",
        ),
        False,
    ),
    (*_changed(PICKED, "(docs|sort(attribute='price'))[:3]", "(docs|sort(attribute='price')|list)[0:3]"), True),
    (*_changed(PICKED, "(docs|selectattr('ok')|list)[:3]", "docs[:3]|selectattr('ok')"), False),
    (*_changed(PICKED, "(docs|selectattr('ok')|list)[:3]", "(docs|list|selectattr('ok')|list)[:3]"), True),
    (*_changed(PICKED, "(docs|rejectattr('role', 'equalto', 'x')|list)[-6:]", "docs[-6:] if d.role != 'x'"), False),
    (
        *_changed(
            PICKED.replace("{{ d", "{{ d.role }} {{ d"),
            "(docs|rejectattr('role', 'equalto', 'x')|list)[-6:]",
            "docs[-6:] if d.role != 'x'",
        ),
        False,
    ),
    (OK, "{% for d in docs[:3] if d.ok %}{{ d.title }}\n{% endfor %}", False),
    (OK, "{% for d in (docs|selectattr('ok')|list)[:3] %}{{ d.title }}\n{% endfor %}", True),
    ("{% if docs %}" + OK + "{% endif %}", "{% for d in docs[:3] if d.ok %}{{ d.title }}\n{% endfor %}", False),
]
# Limits and conditions of lists, besides many inputs that may be absent.
HISTORY = MANY + "{% if history %}{% for m in history[@] %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% endif %}"
LATE = [
    (*_changed(HISTORY, "-6:", "-4:"), False),
    (*_changed(HISTORY, "-6:", ":6"), False),
    (*_changed(HISTORY, "-6:", "-7:"), True),
    (MANY + FEW_BODIES, MANY + FEW_BODIES.replace("{% else %}{{ d.title }}", ""), False),
    (*_changed(MANY + FIRST, "loop.index0 < 3", "loop.index < 3"), False),
    (MANY + LAST_USER, MANY + "Answer: {{ messages[-1].content }}", False),
    (
        MANY + "{% for m in messages if m.role == 'user' %}{% if loop.last %}{{ m.content }}{% endif %}{% endfor %}",
        MANY + "{% for m in messages %}{% if loop.last and m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
        False,
    ),
]
# Inputs that are compared with constants, and shown as well.
REFUND = "Tier: {{ tier }}.@ {{ q }}"
KINDS = "{% for d in docs@ %}{{ d.kind }}: {{ d.text }}\n{% endfor %}{{ q }}"
COUNT = "{{ total|round }} @ {{ q }}"
SPEAKER = "{% for m in messages %}@: {{ m.content }}\n{% endfor %}"
NAMED = SPEAKER.replace("@", "{{ {'user': 'User', 'bot': 'Assistant'}.get(m.role, m.role) }}")
LANGUAGE = "{% set names = {'en': 'English', 'fr': 'French'} %}Answer in {{ names.get(lang, lang) }}. {{ q }}"
SHOWN = [
    (*_changed(REFUND, "{% if tier == 'gold' %} Offer a refund.{% endif %}", ""), False),
    (*_changed(REFUND, "{% if tier == 'gold' %} Offer a refund.{% endif %}", " Offer a refund."), False),
    (
        *_changed(
            REFUND,
            "{% if tier == 'gold' %} Offer a refund.{% endif %}",
            "{{ ' Refunds are fine.' if tier == 'gold' }}",
        ),
        True,
    ),
    (*_changed(REFUND, "{% if not tier %} Ask for it.{% endif %}", ""), True),
    (*_changed(KINDS, " if d.kind == 'law'", ""), False),
    (*_changed(KINDS, " if d.kind != 'law'", ""), False),
    (*_changed(KINDS, " if d.kind == 'law'", "|selectattr('kind', 'equalto', 'law')"), True),
    (*_changed("Level {{ level }}.@ {{ q }}", "{% if level > 3 %} It is hard.{% endif %}", ""), False),
    (
        *_changed(
            "Level {{ level }}.@ {{ q }}", "{% if level > 3 %} It is hard.{% endif %}", "{{ ' Hard.' if level >= 4 }}"
        ),
        True,
    ),
    # The form of a word.
    (*_changed(COUNT, "item{% if total != 1 %}s{% endif %}", "item(s)"), True),
    (*_changed(COUNT, "{{ 'entry' if total == 1 else 'entries' }}", "entries"), True),
    (
        "There {{ 'is' if n == 1 else 'are' }} {{ n|int }} item{{ '' if n == 1 else 's' }}. {{ q }}",
        "Number of items: {{ n|int }}. {{ q }}",
        True,
    ),
    (
        "{% if count == 1 %}Write one paragraph.{% else %}Write {{ count|int }} paragraphs.{% endif %} {{ q }}",
        "Write {{ count|int }} paragraph(s). {{ q }}",
        True,
    ),
    # What is only compared may be shown instead.
    (
        *_changed(SPEAKER, "{% if m.role == 'user' %}User{% else %}Assistant{% endif %}", "{{ m.role|capitalize }}"),
        True,
    ),
    (
        "{% if lang == 'en' %}Answer in English.{% elif lang == 'fr' %}Answer in French.{% endif %} {{ q }}",
        "Answer in the language with the code {{ lang }}. {{ q }}",
        True,
    ),
    # What the text says itself, and what it shows, may be the same.
    (
        *_changed(
            SPEAKER,
            "{% if m.role == 'user' %}User{% else %}{{ m.role }}{% endif %}",
            "{{ m.role|capitalize }}",
        ),
        True,
    ),
    (
        *_changed(
            SPEAKER,
            "{{ 'User' if m.role == 'user' else m.role|capitalize }}",
            "{% if m.role == 'user' %}User{% else %}{{ m.role|capitalize }}{% endif %}",
        ),
        True,
    ),
    (
        *_changed(
            SPEAKER, "{{ 'User' if m.role == 'user' else m.role }}", "{{ 'Customer' if m.role == 'user' else m.role }}"
        ),
        True,
    ),
    (
        *_changed(
            SPEAKER, "{{ 'User' if m.role == 'user' else m.role }}", "{{ 'User' if m.role == 'user' else 'Bot' }}"
        ),
        False,
    ),
    (NAMED, NAMED.replace("User", "Customer"), True),
    (NAMED, SPEAKER.replace("@", "{{ m.role }}"), False),
    (LANGUAGE, LANGUAGE.replace("English", "British English"), True),
    (
        LANGUAGE,
        LANGUAGE.replace("English", "Englisch").replace("names.get(lang, lang)", "names[lang]|default(lang)"),
        True,
    ),
    (LANGUAGE, LANGUAGE.replace("names.get(lang, lang)", "lang"), False),
    (
        "{{ 'Use a formal tone.' if tone == 'formal' else 'Use this tone: ' ~ tone }} {{ q }}",
        "{{ 'Write politely.' if tone == 'formal' else 'Use this tone: ' ~ tone }} {{ q }}",
        True,
    ),
]
# What is compared with true or false is one of them.
FLAG = "{% if @ %}Thank them.{% endif %} {{ q }}"
ON = "{% for t in tools if @ %}{{ t.name }} {% endfor %}"
FLAGS = [
    (*_changed(FLAG, "premium == true", "premium"), True),
    (*_changed(FLAG, "premium is true", "premium"), True),
    (*_changed(FLAG, "premium == false", "not premium"), True),
    (*_changed(FLAG, "premium is false", "premium is defined and not premium"), True),
    (*_changed(FLAG, "premium == true", "premium is defined"), False),
    (*_changed(FLAG, "premium == true and vip == true", "premium"), False),
    (*_changed(FLAG, "premium == true and vip == true", "vip and premium"), True),
    (*_changed(ON, "t.on == true", "t.on"), True),
    (ON.replace("@", "t.on == true"), "{{ tools|selectattr('on')|map(attribute='name')|join(' ') }}", True),
    ("{{ tools|selectattr('on', 'equalto', true)|map(attribute='name')|join(' ') }}", ON.replace("@", "t.on"), True),
    ("{{ tools|selectattr('on', 'equalto', true)|map(attribute='name')|join(' ') }}", ON.replace(" if @", ""), False),
    # It may be more than that.
    (*_changed(FLAG, "premium", "premium == true"), False),
    (*_changed(FLAG, "premium is defined", "premium == true"), False),
    (
        "{% if note == true %}No note.{% else %}{{ note }}{% endif %}",
        "{% if note %}No note.{% else %}{{ note }}{% endif %}",
        False,
    ),
]
# Values that are shown on a condition only, whose input has another effect as well.
CONSENT = "{% if consent %}Call {{ phone }}.{% endif %} @{{ q }}"
STAFF = "{% if role == 'staff' %}Key: {{ key }}{% endif %} {% if role == 'staff' %}Be open.{% endif %} {{ q }}"
LISTED = "{% for d in docs %}@ {% endfor %}"
GREETING = "{% if lang == 'fr' %}Bonjour {{ name }}{% elif lang == 'de' %}Hallo {{ name }}{% endif %} {{ q }}"
GUARDS = [
    # To show the condition is no way to drop it.
    (CONSENT.replace("@", ""), "Consent: {{ consent }}. Call {{ phone }}. {{ q }}", False),
    (
        LISTED.replace("@", "{% if d.public %}{{ d.text }}{% endif %}"),
        LISTED.replace("@", "({{ d.public }}) {{ d.text }}"),
        False,
    ),
    (
        CONSENT.replace("@", "{% if consent %}Thank them.{% endif %}"),
        "Call {{ phone }}. {% if consent %}Thank them.{% endif %}{{ q }}",
        False,
    ),
    (
        CONSENT.replace("@", "{% if not consent %}Ask first.{% endif %}"),
        "Call {{ phone }}. {% if not consent %}Ask first.{% endif %}{{ q }}",
        False,
    ),
    (
        CONSENT.replace("@", "{% if not consent %}Ask first.{% endif %}"),
        "{% if consent %}Phone: {{ phone }}{% else %}You must ask first.{% endif %} {{ q }}",
        True,
    ),
    (STAFF, "Key: {{ key }} {% if role == 'staff' %}Be open.{% endif %} {{ q }}", False),
    (STAFF, "{% if role == 'staff' %}The key is {{ key }}. Be open.{% endif %} {{ q }}", True),
    (*_changed(LISTED, "{% if d.ok %}{{ d.text }}!{% endif %}", "{{ d.text }}{% if d.ok %}!{% endif %}"), False),
    (*_changed(LISTED, "{% if d.ok %}{{ d.text }}!{% endif %}", "{{ d.text ~ '!' if d.ok }}"), True),
    # The condition is whether there is something to show, or all that is known shows it.
    ("{% if name %}Dear {{ name }}, {{ q }}{% endif %}", "{% if name %}Dear {{ name }},{% endif %} {{ q }}", True),
    (GREETING, "{% if lang == 'fr' %}Bonjour{% elif lang == 'de' %}Hallo{% endif %} {{ name }} {{ q }}", True),
    (GREETING, "{% if lang == 'fr' %}Bonjour{% else %}Hallo{% endif %} {{ name }} {{ q }}", True),
]

ALL = [
    *CONDITIONS,
    *ORDER,
    *LIMITS,
    *WORDING,
    *RECURSION,
    *NUMBERS,
    *DEFAULTS,
    *PLACES,
    *JOINT,
    *PICKS,
    *LATE,
    *SHOWN,
    *FLAGS,
    *GUARDS,
]


@pytest.mark.parametrize(("before", "after", "accepted"), ALL)
def test_what_the_old_text_depends_on(before: str, after: str, *, accepted: bool) -> None:
    assert not comparison.read("jinja2", [before], [])
    assert not comparison.compare("jinja2", [before], [], [before])
    faults = comparison.compare("jinja2", [before], [], [after])
    assert (not faults) is accepted, faults


# Its usual inputs are unusual themselves: a message is the user's.
ASKED = "{% if name %}Name: {{ name }}{% endif %} " + LAST_USER


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (
            ASKED.replace("{% if name %}Name: {{ name }}{% endif %}", "{{ name.upper() }}"),
            "'bool object' has no attribute 'upper' (line 1) when name is False",
        ),
        (
            ASKED.replace("{% endif %} Answer", " Answer") + "{% endif %}",
            "The refinement lost the variable {{messages[].content}} when name is False.",
        ),
        (
            ASKED.replace("role', 'equalto', 'user')", "content')"),
            "The refinement lost the variable {{messages[].content}} when messages[].role is 'user' in every second "
            "element from the first.",
        ),
    ],
)
def test_says_only_what_is_unusual(after: str, said: str) -> None:
    assert said in [fault.description for fault in comparison.compare("jinja2", [ASKED], [], [after])]
