"""Serves the metrics over HTTP."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import threading
import time
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agenta_ai_server.telemetry.metrics import Metrics

# How many may be connected at a time; others are disconnected at once. Each has a thread and a file descriptor.
MAX_SCRAPERS: Final = 20
# How long one may be connected. Scrapes take milliseconds, and Prometheus waits for 10 seconds.
SCRAPER_SECONDS: Final = 10.0

log = logging.getLogger(__name__)


class MetricsServer:
    """Serves metrics from a thread, so that a busy event loop can be seen from outside.

    Args:
        metrics: What to serve.
        address: ``host:port``, an IP address; port 0 takes a free one.
    """

    def __init__(self, metrics: Metrics, address: str) -> None:
        self._metrics = metrics
        host, _, port = address.rpartition(":")
        self._host = host.strip("[]")
        self._port = int(port)
        self._server: WSGIServer | None = None

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: The address can't be listened on.
        """
        # In a thread, because it asks the DNS for the host's name.
        self._server = server = await asyncio.to_thread(_Server, self._host, self._port)
        server.set_app(_one_at_a_time(make_wsgi_app(self._metrics.registry)))
        threading.Thread(target=server.serve_forever, name="serve-metrics", daemon=True).start()
        host = f"[{self._host}]" if ":" in self._host else self._host
        log.info("metrics on http://%s:%d/metrics", host, server.server_port)

    async def aclose(self) -> None:
        """Stop listening, if it does."""
        if self._server:
            await asyncio.to_thread(self._server.shutdown)
            self._server.server_close()
            self._server = None


def _one_at_a_time(app: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """Return the application for one request at a time: many threads would leave the event loop little of the CPU."""
    turn = threading.Lock()

    def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            with turn:
                return app(environ, start_response)
        except Exception as error:
            # The library fails for some values of Accept, and wsgiref would print that to standard error.
            log.error("a scrape failed: %s", type(error).__name__)
            start_response("500 Internal Server Error", [("content-type", "text/plain")])
            return [b"The scrape failed. The server's log names the error.\n"]

    return serve


class _Server(ThreadingMixIn, WSGIServer):
    """Takes a bounded number of connections, each for a bounded time."""

    daemon_threads = True

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._connected: dict[Any, float] = {}
        super().__init__((host, port), _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Return whether there is room for the connection."""
        return len(self._connected) < MAX_SCRAPERS

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread."""
        self._connected[request] = time.monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Disconnect those that have had their time, several times a second."""
        last = time.monotonic() - SCRAPER_SECONDS
        for request, since in list(self._connected.items()):
            if since < last:
                # Its thread then reads the end of the request, or can't write, and closes it.
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log that a scrape has failed, where the library would print to standard error."""
        log.error("a scrape failed: %s", type(sys.exception()).__name__)

    def close_request(self, request: Any) -> None:
        """Close the connection."""
        self._connected.pop(request, None)
        super().close_request(request)


class _Handler(WSGIRequestHandler):
    def handle(self) -> None:
        """Answer, unless the scraper goes away or is disconnected."""
        with suppress(OSError):
            super().handle()

    def log_message(self, *_: object) -> None:
        """Log nothing: a scrape is not an event."""
