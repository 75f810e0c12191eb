"""The rules for Prometheus and the dashboard for Grafana, against what a real server exports."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import grpc.aio
import promql_parser
import pytest
import trustme
import yaml
from addresses import free_address
from calls import refine, request
from conftest import settings_for
from prometheus_client.parser import text_string_to_metric_families
from promql_parser import AggregateExpr, BinaryExpr, Expr, MatchOp, VectorSelector
from telemetry.conftest import text_of

from agenta_ai.v1 import tool_service_pb2
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub
from agenta_ai_server.commands import serve
from agenta_ai_server.domain.errors import Reason
from agenta_ai_server.rpc.status import CODES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from promql_parser import Matcher

    from agenta_ai_server.standin.app import StandIn

# The labels of metrics.
Labels: TypeAlias = dict[str, set[str]]

MONITORING = Path(__file__).parents[2] / "deploy/monitoring"
RULES = [
    rule for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"] for rule in group["rules"]
]
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())

RUNBOOK = "https://github.com/Agenta-AI/agenta-ai-grpc/blob/main/docs/alerts.md"

RECORDED: dict[str, str] = {rule["record"]: rule["expr"] for rule in RULES if "record" in rule}
ALERTS = {rule["alert"] for rule in RULES if "alert" in rule}

# The labels that a scrape adds, and what Prometheus has of its own.
OF_SCRAPES = {"job", "instance"}
OF_PROMETHEUS = {"up": OF_SCRAPES, "ALERTS": {"alertname", "alertstate", "severity"}}

VALUES = {
    "alertname": ALERTS,
    "alertstate": {"pending", "firing"},
    "code": {code.name for code in grpc.StatusCode},
    "method": set(tool_service_pb2.DESCRIPTOR.services_by_name["ToolService"].methods_by_name),
    "outcome": {"OK", "CANCELLED", "INTERNAL", "repaired", "failed", *Reason},
    "reason": {"", *Reason},
}

# How calls can end: code and reason.
ENDINGS = {(CODES[reason].name if reason in CODES else "OK", str(reason)) for reason in Reason} | {
    (code, "") for code in ("OK", "INTERNAL", "CANCELLED", "DEADLINE_EXCEEDED")
}


class Query(NamedTuple):
    """A PromQL expression, and a text that names labels of its result."""

    expression: str
    text: str = ""


def queries() -> Iterator[Query]:
    for rule in RULES:
        yield Query(rule["expr"], " ".join(re.findall(r"\$labels\.\w+", str(rule.get("annotations")))))
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            expression = re.sub(r"\$(job|instance)", ".+", target["expr"]).replace("$__rate_interval", "5m")
            yield Query(expression, target["legendFormat"])
    for variable in DASHBOARD["templating"]["list"]:
        if found := re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]):
            yield Query(found[1], f"{{{{{found[2]}}}}}")


def nodes(expression: Expr) -> list[Expr]:
    """All parts of an expression."""
    found: list[Expr] = []
    promql_parser.walk(expression, found.append)
    return found


def selectors(expression: Expr) -> list[VectorSelector]:
    return [node for node in nodes(expression) if isinstance(node, VectorSelector)]


def children(node: Expr) -> list[Expr]:
    named = [getattr(node, name, None) for name in ("expr", "lhs", "rhs", "vector_selector")]
    return [each for each in [*named, *getattr(node, "args", ())] if each]


def grouping(node: Expr) -> set[str]:
    """The labels by which a node groups or matches."""
    if isinstance(node, AggregateExpr):
        return set(node.modifier.labels) if node.modifier else set()
    if isinstance(node, BinaryExpr) and node.modifier:
        matching = node.modifier.matching
        return {*(matching.labels if matching else ()), *(node.modifier.group_labels or ())}
    return set()


def has_value(matcher: Matcher) -> bool:
    """Whether each alternative of a matcher can be met."""
    return all(any(re.fullmatch(each, value) for value in VALUES[matcher.name]) for each in matcher.value.split("|"))


def labels(node: Expr, known: Labels) -> set[str]:
    """Those that the result of a node may have."""
    if isinstance(node, VectorSelector):
        return known.get(str(node.name), set())
    return grouping(node) if isinstance(node, AggregateExpr) else labels_below(node, known)


def labels_below(node: Expr, known: Labels) -> set[str]:
    return set().union(*(labels(child, known) for child in children(node)))


def faults_of_selector(selector: VectorSelector, known: Labels) -> Iterator[str]:
    if selector.name not in known:
        yield f"metric {selector.name}"
        return
    for matcher in selector.matchers.matchers:
        if matcher.name not in known[selector.name]:
            yield f"label {matcher.name} of {selector.name}"
        elif matcher.name in VALUES and not has_value(matcher):
            yield f"value {matcher}"


def faults(query: Query, exported: Labels) -> list[str]:
    """What the query asks for and nobody exports."""
    known = exported | OF_PROMETHEUS | {name: {"job"} for name in RECORDED}
    parsed = promql_parser.parse(query.expression)
    found = [fault for selector in selectors(parsed) for fault in faults_of_selector(selector, known)]
    for node in nodes(parsed):
        found += [f"label {label} in {node.prettify()}" for label in grouping(node) - labels_below(node, known)]
    shown = set(re.findall(r"(?:\$labels\.|{{)(\w+)", query.text))
    return found + [f"label {label} in {query.text}" for label in shown - labels(parsed, known)]


@pytest.fixture
async def exported(standin: StandIn, tmp_path: Path) -> Labels:
    """The metrics of a server that has every part, with the names of their labels."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    (tmp_path / "key.pem").write_bytes(issued.private_key_pem.bytes())
    (tmp_path / "cert.pem").write_bytes(issued.cert_chain_pems[0].bytes())
    metrics = free_address()
    settings = settings_for(
        standin,
        AGENTA_AI_GRPC_METRICS_LISTEN=metrics,
        AGENTA_AI_GRPC_LIMITS="on",
        AGENTA_AI_GRPC_BREAKER="on",
        AGENTA_AI_GRPC_TLS_CERT_FILE=str(tmp_path / "cert.pem"),
        AGENTA_AI_GRPC_TLS_KEY_FILE=str(tmp_path / "key.pem"),
    )
    trusted = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    async with serve.running(settings) as address, grpc.aio.secure_channel(address, trusted) as channel:
        stub: Any = ToolServiceStub(channel)
        await stub.CallTool(refine())
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.CallTool(request({}))
        text = await text_of(metrics)
    found: Labels = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set(OF_SCRAPES)).update(sample.labels)
    return found


async def test_every_expression_asks_for_what_is_exported(exported: Labels) -> None:
    assert {query.expression: found for query in queries() if (found := faults(query, exported))} == {}


async def test_every_metric_is_asked_for(exported: Labels) -> None:
    asked = {each.name for query in queries() for each in selectors(promql_parser.parse(query.expression))}
    ours = {name for name in exported if name.startswith("agenta_ai_") and not name.endswith(("_sum", "_count"))}
    assert ours - asked == set()


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        (Query("rate(agenta_ai_call_total[5m])"), "metric agenta_ai_call_total"),
        (Query('agenta_ai_calls_total{status="OK"}'), "label status of agenta_ai_calls_total"),
        (
            Query('agenta_ai_calls_total{reason=~"OVERLOADED|UPSTREAM_DOWN"}'),
            'value reason=~"OVERLOADED|UPSTREAM_DOWN"',
        ),
        (Query("sum by (tool) (agenta_ai_waiting)"), "label tool in sum by (tool) (agenta_ai_waiting)"),
        (Query("up == on (code) up"), "label code in up == on (code) up"),
        (Query("up", "{{code}}"), "label code in {{code}}"),
        (Query("1 - sum by (job) (up)", "at $labels.instance"), "label instance in at $labels.instance"),
    ],
)
def test_a_planted_fault_is_found(query: Query, fault: str) -> None:
    exported = {"agenta_ai_calls_total": OF_SCRAPES | {"code", "reason"}, "agenta_ai_waiting": OF_SCRAPES}
    assert faults(query, exported) == [fault]


def is_met(matcher: Matcher, value: str) -> bool:
    return bool(re.fullmatch(matcher.value, value)) is (matcher.op in (MatchOp.Equal, MatchOp.Re))


def counted_by(rule: str, method: str = "CallTool") -> set[tuple[str, str]]:
    """The endings of calls of tools that a recorded rule counts, by whichever method."""
    parsed = promql_parser.parse(RECORDED[rule])
    matchers = [each.matchers.matchers for each in selectors(parsed) if each.name == "agenta_ai_calls_total"]
    return {
        (code, reason)
        for code, reason in ENDINGS
        if any(
            all(is_met(matcher, {"method": method, "code": code, "reason": reason}[matcher.name]) for matcher in each)
            for each in matchers
        )
    }


def test_whose_failure_each_reason_is() -> None:
    ours = counted_by("job:agenta_ai_own_failures:rate5m")
    assert ours == {
        ("INTERNAL", ""),
        ("UNAVAILABLE", "OVERLOADED"),
        ("UNAVAILABLE", "RATE_LIMITER_UNAVAILABLE"),
        ("UNAVAILABLE", "REPLAY_STORE_UNAVAILABLE"),
        ("OK", "OUTCOME_UNKNOWN"),
    }
    # A new reason is found here, unless it is Agenta's.
    assert counted_by("job:agenta_ai_calls:rate5m") == ours | {("OK", ""), ("UNAVAILABLE", "AUTHORITY_UNAVAILABLE")} | {
        ending for ending in ENDINGS if ending[1].startswith("UPSTREAM_")
    }
    for rule in ("job:agenta_ai_own_failures:rate5m", "job:agenta_ai_calls:rate5m"):
        assert counted_by(rule) == counted_by(rule, "CallToolStream")


def test_every_alert_says_what_to_do() -> None:
    for rule in RULES:
        if "alert" in rule:
            assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
            assert rule["labels"]["severity"] in {"critical", "warning"}
            assert rule["annotations"]["runbook_url"] == f"{RUNBOOK}#{rule['alert'].lower()}"


def test_every_alert_has_its_section() -> None:
    page = (MONITORING.parents[1] / "docs/alerts.md").read_text()
    sections = re.findall(r"^## (\w+)\n(.+?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in sections] == list(dict.fromkeys(rule["alert"] for rule in RULES if "alert" in rule))
    severities: dict[str, set[str]] = {}
    for rule in RULES:
        if "alert" in rule:
            severities.setdefault(rule["alert"], set()).add(rule["labels"]["severity"])
    for name, text in sections:
        named = re.findall(r"\*\*(critical|warning)\b", text.lower())
        assert set(named) == severities[name]
        assert all(f"- **{part}**" in text for part in ("Meaning", "Callers", "Do"))


@pytest.mark.needs("promtool")
def test_every_alert_fires_when_it_should_and_only_then() -> None:
    cases = (MONITORING / "alerts.test.yaml").read_text()
    assert set(re.findall(r'alertname="(\w+)"', cases)) == ALERTS
    for command in ["check", "rules", "alerts.yaml"], ["test", "rules", "alerts.test.yaml"]:
        done = subprocess.run(["promtool", *command], cwd=MONITORING, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
