"""The listener: serves the contract, health and reflection on one port, and drains on shutdown."""

from __future__ import annotations

import asyncio
import errno
import logging
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from agenta_ai_server.rpc.addresses import check_socket_path, served_addresses
from agenta_ai_server.rpc.parsing import MAX_REQUEST_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenta_ai_server.rpc.boundary import Boundary
    from agenta_ai_server.rpc.health import Health
    from agenta_ai_server.rpc.tls import Certificates

# Enough for five hundred requests of 10 KB a second on one connection with a round trip of 50 ms.
MAX_UNREAD_BYTES = 1 << 18

OPTIONS: Sequence[tuple[str, int]] = (
    # Above our own limit, because grpc's refusal has no details; but not far above, because a message that is only half
    # received is kept until the connection ends.
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES * 5 // 4),
    ("grpc.max_concurrent_streams", 1000),
    # No compressed requests: a bit for each encoding, of which only the first, none, is set. Otherwise a stranger's
    # kilobyte becomes a megabyte that gRPC decompresses before anyone has been authenticated.
    ("grpc.compression_enabled_algorithms_bitset", 1),
    # What a caller may send on a stream before it is read, apart from the rest of a message that is being read. grpc
    # would measure the network and raise it to several megabytes, even for streams that nobody reads any further.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", MAX_UNREAD_BYTES),
    # Long calls die behind balancers unless callers may ping. Without these, grpc answers pings by closing.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 8_000),
    # Detects that a caller's machine is gone, so that its calls end.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
# How long a connection may take to begin TLS and HTTP/2. Then it is closed, so that others get its place.
HANDSHAKE_SECONDS = 10.0
# How long before the end of the drain health watchers see NOT_SERVING: long enough to go to another server, and short
# enough for the retries of a client that has no other.
NOTICE_SECONDS = 0.2
# How long requests may still arrive of calls that came before the stop. Only slow or hostile clients take longer.
ARRIVAL_SECONDS = 1.0
PENDING_OPTIONS = ("grpc.server.max_pending_requests", "grpc.server.max_pending_requests_hard_limit")

log = logging.getLogger(__name__)


class ListenError(OSError):
    """The address can't be listened on.

    Args:
        message: The address and the reason.
        setting: Name of the setting that has it.
    """

    def __init__(self, message: str, setting: str = "AGENTA_AI_GRPC_LISTEN") -> None:
        super().__init__(message)
        self.setting = setting


class ListenerFailed(Exception):
    """The listener has ended by itself."""


class Server:
    """An async grpc server.

    Args:
        boundary: The first interceptor.
        interceptors: What each call passes behind it, in this order.
        services: The contract's methods, those of the tools, and reflection.
        health: Reports whether the server is serving.
        tls: Makes the listener's credentials; ``None`` for plaintext.
        max_call_seconds: How long a call may take at most.
        max_connection_age_seconds: How old a connection may become, plus or minus a tenth, before its client must
            reconnect; 0: without limit.
        max_pending_calls: How many calls may have arrived without having been dispatched yet.
        max_connections: How many connections callers may hold at a time. Others are closed at once.
        reuse_port: Whether to share the port with other processes that do so, too.
    """

    def __init__(
        self,
        boundary: Boundary,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        services: Sequence[grpc.GenericRpcHandler],
        health: Health,
        *,
        tls: Certificates | None = None,
        max_call_seconds: float,
        max_connection_age_seconds: float,
        max_pending_calls: int,
        max_connections: int,
        reuse_port: bool = False,
    ) -> None:
        self._open_calls = boundary.open_calls
        self._arrivals = boundary.arrivals
        # A second server on the same port must fail instead of sharing it silently.
        options = [*OPTIONS, ("grpc.so_reuseport", int(reuse_port))]
        # Beyond this number, by default a thousand, grpc ends calls as CANCELLED, without a reason.
        options += [(name, max_pending_calls) for name in PENDING_OPTIONS]
        options.append(("grpc.server_handshake_timeout_ms", round(HANDSHAKE_SECONDS * 1000)))
        # Callers must not use up all file descriptors, or the files with keys could no longer be read.
        options.append(("grpc.max_allowed_incoming_connections", max_connections))
        if max_connection_age_seconds:
            options.append(("grpc.max_connection_age_ms", round(max_connection_age_seconds * 1000)))
            options.append(("grpc.max_connection_age_grace_ms", round(max_call_seconds * 1000)))
        self._server = grpc.aio.server(interceptors=[boundary, *interceptors], options=options)
        self._health = health
        self._server.add_generic_rpc_handlers((health.handlers(), *services))
        self._tls = tls
        self._reuse_port = reuse_port

    async def start(self, address: str) -> str:
        """Listen on ``address``, which is ``host:port`` or ``unix:path``, and accept calls.

        Everything is ready before the port opens, so that every client that can connect gets a response. The address
        is bound for both IPv4 and IPv6 or not at all.

        Returns:
            The address with the real port, if the port was 0.

        Raises:
            ListenError: It can't be listened on.
        """
        path = address.removeprefix("unix:") if address.startswith("unix:") else ""
        if path:
            await _check_path(address, Path(path))
        served = (address,) if path else _resolve(address, reuse_port=self._reuse_port)
        try:
            port = self._add_port(address)
        except RuntimeError as error:
            raise ListenError(
                f"can't listen on {address}: it is in use, or isn't an address of this machine."
            ) from error
        await self._server.start()
        log.info("listening on %s", ", ".join(served) if path else _with_port(served, port))
        return address if path else f"{address.rpartition(':')[0]}:{port}"

    def _add_port(self, address: str) -> int:
        if self._tls:
            return self._server.add_secure_port(address, self._tls.credentials())
        return self._server.add_insecure_port(address)

    async def ended(self) -> None:
        """Wait until grpc has stopped listening: because of :meth:`stop`, or because it has failed and logged why."""
        with suppress(Exception):
            # Cancelled, it would cancel what grpc itself waits for.
            await asyncio.shield(self._server.wait_for_termination())

    async def stop(self, drain: float, grace: float) -> None:
        """Report NOT_SERVING, after a while accept no new calls, and return when running calls have ended.

        Args:
            drain: Seconds for which calls are still accepted. Load balancers send calls here until they notice.
            grace: Seconds after that until running calls are cancelled. Those whose request hasn't arrived are refused
                earlier.
        """
        self._health.draining = True
        await asyncio.sleep(max(drain - NOTICE_SECONDS, 0))
        self._health.stopping.set()
        await asyncio.sleep(min(drain, NOTICE_SECONDS))
        # With None, grpc cancels the calls at once. With 0, it first waits for a turn of the event loop, and crashes
        # the process if the other of these two calls has freed the server meanwhile.
        stopping = asyncio.create_task(self._server.stop(grace or None))
        asyncio.get_running_loop().call_later(ARRIVAL_SECONDS, self._arrivals.refuse)
        # grpc would wait the whole grace period for health watches, which never end by themselves.
        done = asyncio.create_task(self._open_calls.idle())
        await asyncio.wait([stopping, done], return_when=asyncio.FIRST_COMPLETED)
        done.cancel()
        await self._server.stop(None)
        await stopping


def _resolve(address: str, *, reuse_port: bool) -> tuple[str, ...]:
    try:
        return served_addresses(address, reuse_port=reuse_port)
    except OSError as error:
        why = "it is in use" if error.errno == errno.EADDRINUSE else (error.strerror or "unknown error").lower()
        raise ListenError(f"can't listen on {address}: {why}.") from error


def _with_port(addresses: Sequence[str], port: int) -> str:
    """Return the addresses with the real port, if it was 0."""
    return ", ".join(f"{address.rpartition(':')[0]}:{port}" for address in addresses)


async def _check_path(address: str, path: Path) -> None:
    try:
        check_socket_path(path)
    except OSError as error:
        raise ListenError(f"can't listen on {address}: {error.strerror}.") from error
    # grpc would silently take the socket away from the other server.
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return
    writer.close()
    await writer.wait_closed()
    raise ListenError(f"can't listen on {address}: another server already does.")
