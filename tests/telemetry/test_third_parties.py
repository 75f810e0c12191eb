"""What other libraries log: never what they were given, and never without a bound."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import pytest
from addresses import free_address
from replicas.replica import Replica

from agenta_ai_server.telemetry.logs import BoundedHandler, JsonFormatter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

SECRET = "hunter2hunter2"
# Latin-1, which isn't UTF-8.
RAW = b"ApiKey \xa0" + SECRET.encode()
KEYS = [
    *("authorization", "x-agenta-project-id", "traceparent", "tracestate", "x-request-id", "anything", "cookie"),
    *("user-agent", "grpc-encoding", "grpc-accept-encoding", "grpc-timeout", "grpc-message", "te", "content-type"),
    *("baggage-bin", "grpc-trace-bin", "grpc-previous-rpc-attempts", ":authority"),
]
METHODS = [
    "/agenta.ai.v1.ToolService/CallTool",
    "/agenta.ai.v1.ToolService/Status",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/no.such.Service/Method",
]
BATCH = 50


@asynccontextmanager
async def server(level: str) -> AsyncIterator[Replica]:
    address = free_address()
    replica = Replica(
        AGENTA_AI_GRPC_AUTH="jwt",
        AGENTA_AI_GRPC_JWT_ISSUER="https://issuer.example",
        AGENTA_AI_GRPC_JWT_AUDIENCE="agenta-ai",
        AGENTA_AI_GRPC_JWT_JWKS_URL="http://127.0.0.1:1/jwks",
        AGENTA_AI_GRPC_LISTEN=address,
        AGENTA_AI_GRPC_LOG_LEVEL=level,
        AGENTA_AI_GRPC_LOG_FORMAT="json",
        AGENTA_AI_SERVICES_API_URL="",
    )
    try:
        await replica.spawn()
        replica.address = address
        # It may not say so at its level.
        await answers(address)
        yield replica
    finally:
        await replica.aclose()


async def answers(address: str) -> None:
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(30):
        while True:
            with suppress(OSError):
                _, writer = await asyncio.open_connection(host, int(port))
                writer.close()
                return
            await asyncio.sleep(0.05)


async def send(address: str, requests: Iterable[list[tuple[Any, Any]]]) -> None:
    """Send calls with these headers over one connection each fifty, in raw bytes, and wait for their ends."""
    config = h2.config.H2Configuration(
        client_side=True, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
    )
    host, _, port = address.rpartition(":")
    waiting = list(requests)
    while waiting:
        batch, waiting = waiting[:BATCH], waiting[BATCH:]
        reader, writer = await asyncio.open_connection(host, int(port))
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        for headers in batch:
            stream = connection.get_next_available_stream_id()
            connection.send_headers(stream, headers)
            connection.send_data(stream, b"\0\0\0\0\0", end_stream=True)
        writer.write(connection.data_to_send())
        open_streams = len(batch)
        while open_streams and (data := await asyncio.wait_for(reader.read(65536), 20)):
            for event in connection.receive_data(data):
                open_streams -= isinstance(event, h2.events.StreamEnded | h2.events.StreamReset)
                if isinstance(event, h2.events.ConnectionTerminated):
                    open_streams = 0
            writer.write(connection.data_to_send())
        writer.close()


def headers(method: str, key: str, value: bytes) -> list[tuple[bytes, bytes]]:
    usual = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": method.encode(),
        b":authority": b"localhost",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }
    return list((usual | {key.encode(): value}).items())


@pytest.mark.parametrize("level", ["debug", "error"])
async def test_raw_bytes_in_any_metadata_reach_no_log(level: str) -> None:
    async with server(level) as replica:
        # A connection for each: some of these end it.
        for key in KEYS:
            await send(replica.address, [headers(method, key, RAW) for method in METHODS])
    log = "\n".join(replica.log)
    assert SECRET not in log
    assert SECRET.encode().hex() not in log


async def test_a_flood_of_them_does_not_fill_the_log() -> None:
    async with server("warning") as replica:
        before = sum(map(len, replica.log))
        large = RAW + b"x" * 3000
        await send(replica.address, [headers(METHODS[1], "authorization", large)] * 1000)
    lines = [json.loads(line) for line in replica.log]
    assert SECRET not in "\n".join(replica.log)
    assert sum(line["logger"].startswith("grpc") for line in lines) <= 10
    # As many as denials may have lines for a minute.
    assert sum(map(len, replica.log)) - before < 40_000


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def written(clock: Clock) -> io.StringIO:
    text = io.StringIO()
    handler = BoundedHandler(text, lines=3, seconds=60, clock=clock)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("somebody.elses")
    logger.handlers, logger.propagate = [handler], False
    return text


@pytest.mark.parametrize(
    ("template", "arguments", "message"),
    [
        ("bad header %s", (SECRET,), "bad header …"),
        ("bad header %r after %d of %.1f", (RAW, 3, 2.5), "bad header … after 3 of 2.5"),
        ("%(name)s isn't %(other)-10s", ({"name": SECRET, "other": SECRET},), "… isn't …"),
        (f"never retrieved\nfuture: {SECRET}", (), "never retrieved"),
        ("100%", (), "100%"),
    ],
)
def test_only_the_template_and_numbers(
    template: str, arguments: tuple[Any, ...], message: str, written: io.StringIO
) -> None:
    try:
        raise ValueError(SECRET)
    except ValueError:
        logging.getLogger("somebody.elses").exception(template, *arguments)
    line = json.loads(written.getvalue())
    assert line["message"] == message
    assert line["exception"].endswith("ValueError")
    assert SECRET not in written.getvalue().replace("raise ValueError(SECRET)", "")


def test_so_many_lines_of_each_logger_and_the_last_says_so(written: io.StringIO, clock: Clock) -> None:
    logger = logging.getLogger("somebody.elses")
    for _ in range(5):
        logger.warning("again")
    clock.now += 61
    logger.warning("later")
    said = [json.loads(line)["message"] for line in written.getvalue().splitlines()]
    assert said == ["again", "again", "again (further lines of this logger are omitted for a while)", "later"]
