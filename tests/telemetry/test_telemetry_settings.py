"""When there are traces and metrics, and what is said when there can't be."""

from __future__ import annotations

import sys

import pytest

from agenta_ai_server.assembly.resources import Resources
from agenta_ai_server.assembly.telemetry import build_telemetry
from agenta_ai_server.settings import SettingsError, load

BASE = {"AGENTA_AI_GRPC_AUTH": "none"}
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": "mine", "OTEL_TRACES_SAMPLER": "always_on"}, None),
        (ENDPOINT, "http://collector:4318/v1/traces"),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://t.example/x"}, "https://t.example/x"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "http://localhost:4318/v1/traces"),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, None),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "true"}, None),
        # Of other services, and without effect here.
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, None),
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
        ({"OTEL_TRACES_EXPORTER": "console"}, "must be 'otlp' or 'none'."),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", **ENDPOINT},
            "must be http/protobuf, for which collectors listen on port 4318 as a rule.",
        ),
        (
            {"AGENTA_AI_GRPC_METRICS_LISTEN": "unix:/tmp/metrics"},
            "must be an IP address and a port, 127.0.0.1:9464 or [::1]:9464.",
        ),
        (
            {"AGENTA_AI_GRPC_METRICS_LISTEN": "9464"},
            "must be an IP address and a port, 127.0.0.1:9464 or [::1]:9464.",
        ),
        ({"AGENTA_AI_GRPC_LOG_SAMPLE": "2"}, "must be less than or equal to 1."),
        ({"AGENTA_AI_GRPC_LOG_FORMAT": "xml"}, "must be 'auto', 'json' or 'text'."),
    ],
)
def test_what_is_wrong_is_said(environment: dict[str, str], fault: str) -> None:
    with pytest.raises(SettingsError) as error:
        load(BASE | environment)
    assert error.value.faults == [f"{next(iter(environment))}: {fault}"]


async def test_what_must_be_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "agenta_ai_server.telemetry.tracing", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    settings, _ = load(BASE | ENDPOINT)
    async with Resources() as resources:
        build_telemetry(settings, resources)
        with pytest.raises(SettingsError) as error:
            await resources.start()
    needed = "needs opentelemetry. Install it: pip install 'agenta-ai[tracing]'."
    assert error.value.faults == [f"OTEL_EXPORTER_OTLP_ENDPOINT: {needed}"]
