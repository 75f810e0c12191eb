"""When there are traces and metrics, and what is said when there can't be."""

from __future__ import annotations

import re
import sys

import pytest
from opentelemetry.sdk import environment_variables

from agenta_ai_server.assembly.resources import Resources
from agenta_ai_server.assembly.telemetry import build_telemetry
from agenta_ai_server.settings import SettingsError, load, read
from agenta_ai_server.telemetry.otel_environment import CHECKS, EXPORTER

BASE = {"AGENTA_AI_GRPC_AUTH": "none"}
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}
URL = "http://collector:4318/v1/traces"


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": "mine", "OTEL_TRACES_SAMPLER": "always_on"}, None),
        (ENDPOINT, URL),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://t.example/x"}, "https://t.example/x"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "http://localhost:4318/v1/traces"),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, None),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, None),
        # Of other services, and without effect here.
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, None),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "no number"}, None),
        # For other signals.
        (
            {**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"},
            URL,
        ),
    ],
)
def test_where_traces_go(environment: dict[str, str], url: str | None) -> None:
    settings, warnings = load(BASE | environment)
    assert settings.traces_url == url
    assert warnings == []


@pytest.mark.parametrize(
    ("environment", "fault"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4318"}, "must have the scheme http or https, and a host."),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:secret@collector:4318"},
            "must not have credentials: put them into OTEL_EXPORTER_OTLP_HEADERS.",
        ),
        ({"OTEL_TRACES_EXPORTER": "console"}, "must be otlp or none."),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", **ENDPOINT},
            "must be http/protobuf, which collectors accept on port 4318.",
        ),
        (
            {"AGENTA_AI_GRPC_METRICS_LISTEN": "unix:/tmp/metrics"},
            "must be an IP address and a port, 127.0.0.1:9464 or [::1]:9464.",
        ),
        (
            {"AGENTA_AI_GRPC_METRICS_LISTEN": "9464"},
            "must be an IP address and a port, 127.0.0.1:9464 or [::1]:9464.",
        ),
        ({"AGENTA_AI_GRPC_LOG_FORMAT": "xml"}, "must be 'auto', 'json' or 'text'."),
        (
            {"OTEL_BSP_MAX_QUEUE_SIZE": "100", **ENDPOINT},
            "must be at least OTEL_BSP_MAX_EXPORT_BATCH_SIZE, which is 512 by default. Raise it, or lower the other.",
        ),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "0", **ENDPOINT}, "must be a whole number, 1 or more."),
        ({"OTEL_BSP_SCHEDULE_DELAY": "soon", **ENDPOINT}, "must be a whole number, 1 or more."),
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "x", **ENDPOINT}, "must be a whole number, 0 or more."),
        (
            {"OTEL_TRACES_SAMPLER_ARG": "2", "OTEL_TRACES_SAMPLER": "traceidratio", **ENDPOINT},
            "must be a number from 0 to 1.",
        ),
        ({"OTEL_EXPORTER_OTLP_COMPRESSION": "zip", **ENDPOINT}, "must be none or gzip or deflate."),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "-1", **ENDPOINT}, "must be a number of seconds, more than 0."),
        (
            {"OTEL_EXPORTER_OTLP_CERTIFICATE": "/none/ca.pem", **ENDPOINT},
            "can't read /none/ca.pem: No such file or directory.",
        ),
    ],
)
def test_what_is_wrong_is_said(environment: dict[str, str], fault: str) -> None:
    with pytest.raises(SettingsError) as error:
        load(BASE | environment)
    assert error.value.faults == [f"{next(iter(environment))}: {fault}"]


def test_every_variable_of_the_sdk_is_either_checked_or_known_to_be_harmless() -> None:
    known = {
        *CHECKS,
        *("OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_TRACES_SAMPLER_ARG"),
        # Any text will do, or they have no effect on traces that are sent over HTTP by a provider of our own.
        *("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"),
        *("OTEL_EXPORTER_OTLP_INSECURE", "OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_CONFIG_FILE", "OTEL_LOG_LEVEL"),
    }
    others = re.compile(
        "OTEL_(PYTHON|EXPERIMENTAL|BLRP|LOGRECORD|METRIC|EXPORTER_(OTLP_(LOGS|METRICS)|PROMETHEUS|ZIPKIN|JAEGER))"
    )
    theirs = {name for name in vars(environment_variables) if name.startswith("OTEL_") and not others.match(name)}
    assert theirs - known == set()


@pytest.mark.parametrize("name", [name for name in CHECKS if name != EXPORTER])
@pytest.mark.parametrize("value", ["x", "-1", "0.5", "100", "0"])
async def test_what_is_not_a_fault_starts(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = BASE | ENDPOINT | {name: value}
    reading = read(environment)
    if reading.faults:
        return
    for each, given in environment.items():
        monkeypatch.setenv(each, given)
    async with Resources() as resources:
        build_telemetry(reading.settings, resources)
        assert not resources.faults


async def test_what_must_be_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "agenta_ai_server.telemetry.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    settings, _ = load(BASE | ENDPOINT)
    async with Resources() as resources:
        build_telemetry(settings, resources)
        with pytest.raises(SettingsError) as error:
            await resources.start()
    needed = "needs opentelemetry. Install the extra 'tracing': in a clone, pip install '.[tracing]'."
    assert error.value.faults == [f"OTEL_EXPORTER_OTLP_ENDPOINT: {needed}"]
