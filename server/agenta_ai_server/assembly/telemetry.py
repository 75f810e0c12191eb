"""Metrics, traces and logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agenta_ai import __version__
from agenta_ai_server.agenta.addresses import AgentaAddress
from agenta_ai_server.agenta.api import AgentaApi
from agenta_ai_server.agenta.credential import ServerKey
from agenta_ai_server.agenta.http import HttpClient
from agenta_ai_server.agenta.usage import UsageReader
from agenta_ai_server.assembly.resources import secret
from agenta_ai_server.domain.listener import CallListener, CallListeners
from agenta_ai_server.rpc.server import ListenError
from agenta_ai_server.telemetry.call_log import AuditLog, CallLog, ExpiredLog
from agenta_ai_server.telemetry.trace_context import TraceContextForwarder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenta_ai_server.assembly.resources import Resources
    from agenta_ai_server.settings import Settings
    from agenta_ai_server.telemetry.metrics import Metrics
    from agenta_ai_server.telemetry.metrics_server import MetricsServer

# How long spans that haven't been sent yet are flushed at shutdown.
MAX_FLUSH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Telemetry:
    """The listeners to calls.

    Attributes:
        listener: Is notified of each call.
        metrics: Also takes gauges; ``None`` if they are off.
    """

    listener: CallListener
    metrics: Metrics | None


def build_telemetry(settings: Settings, resources: Resources) -> Telemetry:
    """Build the listeners to calls. Must be built first, so that they are closed last."""
    metrics = _metrics(settings, resources)
    audit, expired = AuditLog(), ExpiredLog()
    resources.on_close(audit.aclose)
    resources.on_close(expired.aclose)
    # The one that knows the trace comes before those that write it down.
    listeners = [_tracing(settings, resources), CallLog(), audit, expired, *([metrics] if metrics else [])]
    return Telemetry(CallListeners([*listeners, *_usage(settings, resources, metrics)]), metrics)


def _metrics(settings: Settings, resources: Resources) -> Metrics | None:
    address = settings.metrics_listen
    if not address:
        return None
    from agenta_ai_server.telemetry.metrics import Metrics
    from agenta_ai_server.telemetry.metrics_server import MetricsServer

    metrics = Metrics(__version__)
    server = MetricsServer(metrics, address)
    resources.on_start(lambda: _open(server, address))
    resources.on_close(server.aclose)
    return metrics


def _usage(settings: Settings, resources: Resources, metrics: Metrics | None) -> Iterator[CallListener]:
    if metrics is None or settings.usage_metrics == "off" or not (settings.api_url and settings.api_key):
        return
    from agenta_ai_server.telemetry.usage import UsageMetrics

    with resources.faults_of("AGENTA_AI_SERVICES_API_KEY_FILE"):
        address = AgentaAddress.parse(settings.api_url)
        http = HttpClient(address.root, ca_file=settings.upstream_ca_file, proxy=secret(settings.upstream_proxy))
        resources.on_close(http.aclose)
        key = ServerKey(settings.api_key.get_secret_value(), settings.api_key_file)
        usage = UsageMetrics(UsageReader(AgentaApi(http, address, key)), metrics.registry)
        resources.on_close(usage.aclose)
        yield usage


async def _open(server: MetricsServer, address: str) -> None:
    try:
        await server.start()
    except OSError as error:
        raise ListenError(
            f"can't serve metrics on {address}: it is in use, or isn't an address of this machine.",
            "AGENTA_AI_GRPC_METRICS_LISTEN",
        ) from error


def _tracing(settings: Settings, resources: Resources) -> CallListener:
    if settings.traces_url:
        with resources.faults_of("OTEL_EXPORTER_OTLP_ENDPOINT"):
            from agenta_ai_server.telemetry.tracing import Tracing

            tracing = Tracing(
                settings.traces_url,
                version=__version__,
                flush_seconds=min(settings.shutdown_grace_seconds, MAX_FLUSH_SECONDS),
            )
            resources.on_close(tracing.aclose)
            return tracing
    return TraceContextForwarder()
