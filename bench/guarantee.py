"""What checking a refinement costs: the worst templates by format, and an ordinary one.

For each: the seconds until the verdict, the processor's time in the service and in its workers, the memory of the
largest worker, how long the service's event loop stood still at the worst, and how much of that was its own work: on a
busy machine the rest is what other programs took. Nothing of it is asserted. Run with ``python -m bench.guarantee``.
"""

from __future__ import annotations

import asyncio
import json
import resource
import time
from pathlib import Path
from typing import Any

import uvloop

from agenta_ai_server.tools.computing import Computing
from agenta_ai_server.tools.refine_prompt import answer, template
from agenta_ai_server.tools.refine_prompt.guarantee import Guarantee
from agenta_ai_server.tools.workers.pool import Workers

SIZE = 99_000
ANSWER = 199_000
ORDINARY = {
    "curly": "Hello {{user.name}}, answer {{question}} in {{language}}. {{$.geo.region}}\n",
    "fstring": "Hello {user[name]}, answer {question} in {language!r}: {total:.2f}\n",
    "jinja2": "{% if tier == 'vip' %}Be quick, {{ user.name }}.{% else %}Be kind.{% endif %}\n"
    "{% for item in order['items'] %}- {{ item.sku|upper }} x{{ item.qty }}\n{% else %}No items.{% endfor %}"
    "{% if history|length > 3 %}{% for m in history[-3:] %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% endif %}",
    "mustache": "Hello {{user.name}}.\n{{#items}}- {{sku}} x{{qty}}\n{{/items}}{{^items}}none{{/items}}\n"
    "{{#note}}{{.}}{{/note}}",
}
LOOP = "{% for i in range(9999) %}"
PROSE = "Read the question twice, think about what is really asked, and answer in plain words. "


def filled(piece: str, size: int) -> str:
    return piece * (size // len(piece))


def numbered(piece: str, size: int) -> str:
    return "".join(piece.replace("@", str(number)) for number in range(size // (len(piece) + 4)))


def cases(size: int) -> dict[str, dict[str, str]]:
    return {
        "curly": {
            "prose and variables": filled(ORDINARY["curly"] + PROSE * 4, size),
            "as many names as fit": numbered("{{n@}}", size),
            "as many JSONPaths as fit": numbered("{{$.n@}}", size),
            "open braces": "{{" * (size // 2),
            "lines": "{{\n" * (size // 3),
        },
        "fstring": {
            "prose and variables": filled(ORDINARY["fstring"] + PROSE * 4, size),
            "as many names as fit": numbered("{n@}", size),
            "as many specifications as fit": numbered("{n:@}", size),
            "nested fields": filled("{a:{b}{c}}", size),
        },
        "jinja2": {
            "prose and variables": ORDINARY["jinja2"] + filled(PROSE, size - 2_000),
            "as many tags as allowed": filled("{{ a }} and {{ b.c }}. ", 11_500),
            "one sum": "{{" + "a+" * (size // 2) + "a}}",
            "as many tokens as allowed": "{{ [" + "a," * 2_990 + "a] }}",
            "comments": filled("{##}", size),
            "brackets": "{{" + "(" * 20_000 + "a" + ")" * 18_000 + "}}",
            "blocks in blocks": "{% if a %}" * 900 + "{% endif %}" * 900,
            "loops in loops": LOOP * 4 + "x" + "{% endfor %}" * 4,
            "a text that doubles": "{% set x = 'x' %}" + "{% set x = x ~ x %}" * 60 + "{{ x }}",
            "a list that grows": "{% set l = [0] %}" + LOOP * 2 + "{% set _ = l.append(l) %}" + "{% endfor %}" * 2,
            "powers": "{{ 9**9**9**9 }}{{ 'x'|center(10**9) }}{{ '%999999999d'|format(1) }}{{ [0] * 10**10 }}",
            "endless recursion": "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
            "only slow if repeated": "{% if a %}{% endif %}{% if b %}{% endif %}{% if c %}{% endif %}"
            "{% for i in range(1000) %}{% for j in range(20) %}{% set x = i * j %}{% endfor %}{% endfor %}",
            "many conditions": "".join(f"{{% if c{n} == 'v{n}' %}}{{{{ v{n} }}}}{{% endif %}}\n" for n in range(330)),
        },
        "mustache": {
            "prose and variables": ORDINARY["mustache"] + filled(PROSE, size - 2_000),
            "as many tags as allowed": filled("{{a}} and {{b.c}}. ", 9_400),
            "sections in sections": "".join(f"{{{{#s{n}}}}}" for n in range(60))
            + "x"
            + "".join(f"{{{{/s{n}}}}}" for n in range(59, -1, -1)),
            "lines": "\n" * size,
            "other delimiters": "{{=| |=}}" + filled("|a| ", size),
        },
    }


class Lag:
    """The longest time for which the event loop stood still: as it was, and without what other programs took."""

    def __init__(self) -> None:
        self.worst = self.own = 0.0

    async def watch(self) -> None:
        while True:
            began, own = time.perf_counter(), time.thread_time()
            await asyncio.sleep(0.001)
            self.worst = max(self.worst, time.perf_counter() - began - 0.001)
            self.own = max(self.own, time.thread_time() - own)


def workers() -> list[tuple[float, float]]:
    """Seconds of the processor and peak memory, in MB, of the running workers."""
    found = []
    me = str(Path("/proc/self").resolve().name)
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            if stat[1] == me:
                peak = next(line for line in (folder / "status").read_text().splitlines() if line.startswith("VmHWM"))
                found.append(((int(stat[11]) + int(stat[12])) / 100, int(peak.split()[1]) / 1024))
        except (OSError, StopIteration):
            continue
    return found


async def check(guarantee: Guarantee, computing: Computing, template_format: str, text: str, new: str) -> str:
    """What the tool does with a template and an answer, without the model."""
    source = json.dumps({"messages": [{"role": "user", "content": text}], "template_format": template_format})
    written = json.dumps({"messages": [{"role": "user", "content": new}], "summary": "s"})
    try:
        prompt = await computing.run("bench", template.parse, len(source), source)
        await guarantee.check(prompt, "bench")
    except template.TemplateError as error:
        return str(error)[:60]
    refined = await computing.run("bench", answer.parse, len(written), written)
    broken = await guarantee.violations(prompt, refined.messages, "bench")
    return broken[0].description[:60] if broken else "accepted"


async def measure(name: str, template_format: str, text: str, new: str, times: int = 1) -> None:
    computing, lag, pool = Computing(), Lag(), Workers()
    guarantee = Guarantee(computing, pool)
    await check(guarantee, computing, "jinja2", "Hi {{ a }}", "Hi {{ a }}")  # the worker is there
    watching = asyncio.ensure_future(lag.watch())
    await asyncio.sleep(0.01)
    before, own, ended = workers(), time.process_time(), resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    for _ in range(times):
        verdict = await check(guarantee, computing, template_format, text, new)
    seconds = (time.perf_counter() - began) / times
    service = (time.process_time() - own) / times
    after, gone = workers(), resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = sum(cpu for cpu, _ in after) - sum(cpu for cpu, _ in before)
    spent += gone.ru_utime + gone.ru_stime - ended.ru_utime - ended.ru_stime
    memory = max(
        [memory for _, memory in after] + ([gone.ru_maxrss / 1024] if gone.ru_maxrss > ended.ru_maxrss else [0.0])
    )
    watching.cancel()
    await pool.aclose()
    row = (
        f"{template_format:<9} {name:<30} {seconds:>7.3f} {service * 1000:>11.1f} {max(spent, 0) / times * 1000:>10.0f}"
    )
    print(f"{row} {memory:>10.0f} {lag.worst * 1000:>8.1f} {lag.own * 1000:>8.1f}  {verdict}", flush=True)


async def main() -> None:
    print(
        f"{'format':<9} {'template':<30} {'seconds':>7} {'service, ms':>11} {'worker, ms':>10} {'worker, MB':>10} "
        f"{'lag, ms':>8} {'loop, ms':>8}"
    )
    for template_format, piece in ORDINARY.items():
        text = piece + PROSE * ((2_000 - len(piece)) // len(PROSE))
        await measure("an ordinary one of 2 KB", template_format, text, text + " Thanks.", times=20)
    long: dict[str, dict[str, Any]] = cases(ANSWER)
    for template_format, named in cases(SIZE).items():
        for name, text in named.items():
            await measure(name, template_format, text, long[template_format][name])
            simple = "Hi {a}" if template_format == "fstring" else "Hi {{a}}"
            await measure("… as the answer", template_format, simple, long[template_format][name])


if __name__ == "__main__":
    uvloop.run(main())
