"""Finds out whether an address is served by this service."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any, cast

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agenta_ai_server.rpc.status import SERVICE

# How long a listener may take to show whether it is this service. A busy machine takes more than a second.
PROBE_SECONDS = 5


async def is_served(address: str, certificate: str | None = None) -> bool:
    """Return whether the listener on ``address`` is this service.

    Args:
        address: ``host:port`` or ``unix:path``.
        certificate: PEM of the certificate that a listener with TLS shows. Its health may require one of the caller.
    """
    if certificate is not None:
        host, _, port = address.rpartition(":")
        try:
            shown = await asyncio.to_thread(
                ssl.get_server_certificate, (host.strip("[]"), int(port)), timeout=PROBE_SECONDS
            )
        except (OSError, ValueError):
            return False
        return shown.strip() in certificate
    # No proxy stands between us and our own listener, even if the environment names one.
    async with grpc.aio.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        health: Any = health_pb2_grpc.HealthStub(cast("Any", channel))
        try:
            await health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=PROBE_SECONDS)
        except grpc.aio.AioRpcError:
            return False
    return True
