"""Writes the tables of README.md and of two pages in docs/, and the plots, from results/. Measures nothing.

With ``--check`` it writes nothing, and exits with 1 if the tables aren't those of the results.

A figure is the median of the rounds, and what stands in brackets is their least and most.
"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from bench.rig import plot
from bench.servers import RESULTS

FOLDER = Path(__file__).parent
README = FOLDER / "README.md"
PAGES = (README, *(FOLDER.parent / "docs" / name for name in ("comparison.md", "scale.md")))
PLOTS = FOLDER / "plots"
SERVICE, BEFORE, MCP, FLOOR, CEILING = "service", "before", "MCP SDK", "floor", "ceiling"
# What people would use in place of another.
CHOICES = (SERVICE, "REST on uvicorn", "REST on granian", MCP, "FastMCP")
# What the whole is judged by: enough calls in flight for the core to be busy.
USUAL = (0.0, 32)
PRINTED = (
    "load",
    "overload",
    "soak",
    "limits",
    "idempotency",
    "telemetry",
    "typed",
    "concurrency",
    "streams",
    "mcp",
    "tools",
    "guarantee",
    "cases",
)
# What scale.md derives: so many calls a second, of which the model takes so long, on cores that are at most so busy.
RATES = (10, 1_000, 100_000)
MODEL_SECONDS = 2
BUSY = 0.6
# One alone couldn't be replaced without a gap.
LEAST_PROCESSES = 2
PERCENTILES = ("p50_ms", "p99_ms", "p999_ms")
NONE = "–"
JSON = ("compare", "parts", "scale", "replicas")


class Target(NamedTuple):
    """What a figure should be.

    Attributes:
        figure: What it is.
        measured: It.
        bound: At most this, or, where ``at_least``, at least.
        unit: Of both.
    """

    figure: str
    measured: float
    bound: float
    unit: str
    at_least: bool = False

    @property
    def row(self) -> tuple[str, ...]:
        met = self.measured >= self.bound if self.at_least else self.measured <= self.bound
        bound = f"{'≥' if self.at_least else '≤'} {self.bound:g}{self.unit}"
        return self.figure, f"{self.measured:.3g}{self.unit}", bound, "met" if met else "**not met**"


class Comparison:
    """What compare.py has measured.

    Args:
        results: The content of its file.
    """

    def __init__(self, results: dict[str, Any]) -> None:
        self.closed = {(row["delay"], row["in_flight"], row["peer"]): row["rounds"] for row in results["closed"]}
        self.opened = {(row["delay"], row["peer"]): row["rounds"] for row in results["open"]}
        self.many: dict[str, dict[str, float]] = results["many"]["peers"]
        self.many_in_flight: int = results["many"]["in_flight"]
        self.rate: int = results["rate"]
        self.loads = list(dict.fromkeys((delay, count) for delay, count, _ in self.closed))
        self.peers = list(dict.fromkeys(peer for _, _, peer in self.closed))

    @property
    def idle_kib(self) -> float:
        """What a process of the service holds without calls."""
        return self.many[SERVICE]["idle_mib"] * 1024

    def cpu(self, peer: str, load: tuple[float, int] = USUAL) -> float:
        """CPU time of a call in ms; nan if that wasn't measured."""
        return middle([each["cpu_ms"] for each in self.closed.get((*load, peer), [])])

    def cpu_times(self) -> list[tuple[str, ...]]:
        rows = []
        for peer in self.peers:
            usual = [each["cpu_ms"] for each in self.closed[(*USUAL, peer)]]
            each = [number(self.cpu(peer, load)) for load in self.loads]
            ratio = f"{self.cpu(peer) / self.cpu(SERVICE):.2g}"
            rows.append((peer, *each, self._at_many(peer), f"{min(usual):.2f} to {max(usual):.2f}", ratio))
        heads = [f"{count}, {delay * 1000:g} ms" for delay, count in self.loads]
        return [("", *heads, f"{self.many_in_flight}, 2 s", "32, 0 ms: range", "relative to the service"), *rows]

    def _at_many(self, peer: str) -> str:
        """CPU time of a call with many in flight, and how many, if there were fewer than of the service."""
        if peer not in self.many:
            return NONE
        cost, in_flight = number(self.many[peer]["cpu_ms"]), self.many[peer].get("in_flight", self.many_in_flight)
        return cost if in_flight == self.many_in_flight else f"{cost} with {in_flight:g}"

    def rates(self) -> list[tuple[str, ...]]:
        loads = [load for load in self.loads if load[0] == 0]
        rows = []
        for peer in self.peers:
            rates = [middle([each["per_second"] for each in self.closed.get((*load, peer), [])]) for load in loads]
            rows.append((peer, *(whole(rate) for rate in rates), whole(1000 / self.cpu(peer))))
        return [("", *(f"{count} in flight" for _, count in loads), "one core, calculated"), *rows]

    def latency(self, peer: str, delay: float, percentile: str) -> float:
        return middle([each[percentile] for each in self.opened.get((delay, peer), [])])

    def latencies(self) -> list[tuple[str, ...]]:
        delays = sorted({delay for delay, _ in self.opened})
        heads = [f"{delay * 1000:g} ms: {name}" for delay in delays for name in ("50 %", "99 %", "99.9 %")]
        rows = [
            (peer, *(number(self.latency(peer, delay, which)) for delay in delays for which in PERCENTILES))
            for peer in self.peers
        ]
        return [("", *heads), *rows]

    def summary(self) -> list[tuple[str, ...]]:
        """The service and what people would use in its place."""
        rows = []
        for peer in CHOICES:
            held = self.many.get(peer, {"idle_mib": float("nan"), "in_flight_kib": float("nan")})
            median_ms, slow_ms = (number(self.latency(peer, 0.05, which)) for which in ("p50_ms", "p99_ms"))
            cpu = self.cpu(peer)
            rows.append(
                (
                    peer,
                    number(cpu),
                    whole(1000 / cpu),
                    median_ms,
                    slow_ms,
                    *(whole(held[which]) for which in ("idle_mib", "in_flight_kib")),
                )
            )
        heads = (
            "CPU per call, ms",
            "calls per core and second",
            "overhead, ms: 50 %",
            "99 %",
            "idle, MiB",
            "KiB per call",
        )
        return [("", *heads), *rows]

    def memory(self) -> list[tuple[str, ...]]:
        rows = [(peer, f"{each['idle_mib']:.0f}", f"{each['in_flight_kib']:.0f}") for peer, each in self.many.items()]
        return [("", "idle, MiB", "per call in flight, KiB"), *rows]


class Parts:
    """What parts.py has measured.

    Args:
        results: The content of its file.
    """

    def __init__(self, results: dict[str, Any]) -> None:
        self.costs: dict[str, list[float]] = results["costs"]
        self.whole, *self._others = self.costs
        self.memory: dict[str, float] = results["memory"]
        self.starts: dict[str, list[float]] = results["starts"]

    def beside(self, name: str) -> list[float]:
        """Of each round, the share by which a call costs more than with all on."""
        return [other / whole - 1 for other, whole in zip(self.costs[name], self.costs[self.whole], strict=True)]

    def table(self) -> list[tuple[str, ...]]:
        rows = [(self.whole, f"{median(self.costs[self.whole]):.3f}", "", "")]
        for name in self._others:
            shares = self.beside(name)
            extent = f"{min(shares):+.0%} to {max(shares):+.0%}"
            rows.append((name, f"{median(self.costs[name]):.3f}", f"{median(shares):+.0%}", extent))
        return [("", "CPU time, ms", "difference from all on", "range"), *rows]

    def started(self) -> list[tuple[str, ...]]:
        rows = [
            (name, f"{median(each):.2f}", f"{min(each):.2f} to {max(each):.2f}") for name, each in self.starts.items()
        ]
        return [("", "s", "range"), *rows]


def targets(compared: Comparison, parts: Parts) -> list[tuple[str, ...]]:
    cpu, floor = compared.cpu(SERVICE), compared.cpu(FLOOR)
    slowest = {which: max(compared.latency(SERVICE, delay, which) for delay in (0.0, 0.05)) for which in PERCENTILES}
    least = {which: compared.latency(FLOOR, 0.0, which) for which in PERCENTILES}
    many, rate = f"{compared.many_in_flight} in flight", f"at {compared.rate} calls per second"
    helps = max(median(each) for name, each in parts.starts.items() if name.endswith("--help"))
    rows = [
        Target("CPU time: MCP SDK / service", compared.cpu(MCP) / cpu, 4, " times", at_least=True),
        Target(f"CPU time: {many} / 32 in flight", compared.many[SERVICE]["cpu_ms"] / cpu, 1.2, " times"),
        Target(f"median latency {rate}: service / floor", slowest["p50_ms"] / least["p50_ms"], 2, " times"),
        Target(f"99th percentile {rate}: service / floor", slowest["p99_ms"] / least["p99_ms"], 2.2, " times"),
        Target("memory when idle, without metrics", parts.memory["idle_mib"], 70, " MiB"),
        Target(f"memory per call, {many}", parts.memory["in_flight_kib"], 45, " KiB"),
        Target("start until SERVING, with 500 tools", median(parts.starts["serving 500 tools"]), 0.4, " s"),
        Target("`--help`, the slower of the two commands", helps, 0.2, " s"),
        Target("CPU time: with traces / without", 1 + median(parts.beside("with traces")), 1.2, " times"),
    ]
    known = [("CPU time: service / floor", cpu / floor), ("CPU time: service / ceiling", cpu / compared.cpu(CEILING))]
    if BEFORE in compared.peers:
        old = compared.cpu(BEFORE)
        rows.insert(0, Target("CPU time: service / before the refactoring", cpu / old, 0.85, " times"))
        known.insert(0, ("CPU time: before the refactoring / floor", old / floor))
    plain = [(figure, f"{measured:.3g} times", "", "") for figure, measured in known]
    return [("", "measured", "target", ""), *(each.row for each in rows), *plain]


def connections(scale: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for row in scale["rows"]:
        rounds = row["rounds"]
        rate, idle, busiest = (median([each[what] for each in rounds]) for what in ("per_second", "idle", "busiest"))
        rows.append((str(row["processes"]), str(row["connections"]), whole(rate), f"{idle:.0f}", f"{busiest:.0%}"))
    return [("processes", "connections", "calls per second", "idle processes", "share of the busiest process"), *rows]


def replicas(results: dict[str, Any]) -> list[tuple[str, ...]]:
    limited, ids, lone = (results[name] for name in ("limits", "ids", "lone"))
    rows = [
        ("checks of one caller's limit", limited, f"{limited['allowed']:,} of {limited['burst']:,} allowed"),
        (f"{ids['ids']:,} request_ids, each sent to 3 replicas at once", ids, f"{ids['runs']:,} runs"),
        ("calls with a rate limit check and a new request_id", lone, ""),
    ]
    table = [
        (name, f"{each['calls']:,}", f"{each['operations']:.1f}", f"{each['redis_us']:.0f}", outcome)
        for name, each, outcome in rows
    ]
    return [("", "calls", "operations per call", "Redis CPU time per operation, µs", ""), *table]


def needs(compared: Comparison, simulated: dict[str, Any]) -> list[tuple[str, ...]]:
    """What so many calls a second need, of what a call costs here."""
    rows = []
    for rate in RATES:
        processes = max(math.ceil(rate * compared.cpu(SERVICE) / 1000 / BUSY), LEAST_PROCESSES)
        operations = rate * simulated["lone"]["operations"]
        servers = math.ceil(operations * simulated["lone"]["redis_us"] / 1e6 / BUSY)
        in_flight = rate * MODEL_SECONDS
        gib = (in_flight * compared.many[SERVICE]["in_flight_kib"] + processes * compared.idle_kib) / 1024**2
        figures = (f"{processes:,}", whole(operations), str(servers), f"{in_flight:,}", f"{gib:,.1f} GiB")
        rows.append((f"{rate:,}", *figures))
    heads = ("processes", "Redis operations per second", "Redis servers", "connections to Agenta", "total memory")
    return [("calls per second", *heads), *rows]


def middle(values: list[float]) -> float:
    return median(values) if values else float("nan")


def number(value: float) -> str:
    return NONE if value != value else f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def whole(value: float) -> str:
    return NONE if value != value else f"{value:,.0f}"


def table(rows: list[tuple[str, ...]]) -> str:
    head, *others = rows
    lines = [head, ("---", *("---:" for _ in head[1:])), *others]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def machine(results: dict[str, Any]) -> str:
    known = dict(results["machine"])
    return (
        f"{known.pop('processor')}, {known.pop('cores')} cores; Python {known.pop('python')}; "
        f"{', '.join(f'{name} {version}' for name, version in known.items())}."
    )


def draw(compared: Comparison) -> None:
    with plot(PLOTS / "cpu.png", "CPU time of a call by calls in flight, upstream at once", "in flight", "ms") as axes:
        counts = [count for delay, count in compared.loads if not delay]
        for peer in compared.peers:
            axes.plot(counts, [compared.cpu(peer, (0.0, count)) for count in counts], marker="o", label=peer)
        axes.set(xscale="log", yscale="log", xticks=counts, xticklabels=counts)
    title = f"Latency in addition to the upstream's 50 ms, at {compared.rate} calls per second"
    with plot(PLOTS / "latency.png", title, "percent of the calls", "ms") as axes:
        for peer in dict.fromkeys(peer for _, peer in compared.opened):
            delay = 0.0 if peer == FLOOR else 0.05
            axes.plot(
                ["50", "99", "99.9"], [compared.latency(peer, delay, which) for which in PERCENTILES],
                marker="o", label=peer,
            )  # fmt: skip
        axes.set(yscale="log")


def filled(text: str, name: str, content: str) -> str:
    """The text with what stands between two markers replaced."""
    pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
    return re.sub(pattern, lambda found: f"{found[1]}\n{content}\n\n{found[2]}", text, count=1, flags=re.DOTALL)


def main() -> str | None:
    """Return what is wrong."""
    results = {name: json.loads((RESULTS / f"{name}.json").read_text()) for name in JSON}
    compared, parts = Comparison(results["compare"]), Parts(results["parts"])
    tables = {
        "targets": targets(compared, parts), "cpu": compared.cpu_times(), "rates": compared.rates(),
        "latency": compared.latencies(), "memory": compared.memory(), "parts": parts.table(),
        "starts": parts.started(), "connections": connections(results["scale"]),
        "replicas": replicas(results["replicas"]), "derived": needs(compared, results["replicas"]),
        "summary": compared.summary(),
    }  # fmt: skip
    contents = {name: table(rows) for name, rows in tables.items()} | {"machine": machine(results["compare"])}
    for name in PRINTED:
        contents[name] = f"```\n{(RESULTS / f'{name}.txt').read_text().rstrip()}\n```"
    for page in PAGES:
        written = text = page.read_text()
        for name, content in contents.items():
            text = filled(text, name, content)
        if sys.argv[1:] != ["--check"]:
            page.write_text(text)
        elif text != written:
            return f"{page.name} doesn't match bench/results: run bench.report."
    if sys.argv[1:] == ["--check"]:
        return None
    PLOTS.mkdir(exist_ok=True)
    draw(compared)
    print(contents["targets"])
    return None


if __name__ == "__main__":
    sys.exit(main())
