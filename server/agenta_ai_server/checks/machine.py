"""Checks of this machine: its addresses, and the limit of open files."""

from __future__ import annotations

import errno
import os
import resource
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenta_ai_server.agenta.http import TransportError
from agenta_ai_server.checks.shared import Found, failed, get, ok, warning
from agenta_ai_server.files.contents import read_file
from agenta_ai_server.rpc.addresses import NO_PROTOCOL, check_socket_path, served_addresses
from agenta_ai_server.rpc.probe import is_served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from agenta_ai_server.settings import Settings

NO_WAY = NO_PROTOCOL | {errno.ENETUNREACH, errno.EHOSTUNREACH}
CONNECT_SECONDS = 2.0


async def address(settings: Settings) -> AsyncIterator[Found]:
    """Check that the server can listen on the address, or that a running server already does."""

    async def is_ours() -> bool:
        if settings.tls_cert_file is None:
            return await is_served(settings.listen)
        # Another check reports an unreadable file, and a running server keeps using the previous one.
        with suppress(OSError, ValueError):
            return await is_served(settings.listen, read_file(settings.tls_cert_file).decode())
        return False

    yield await _address(settings.listen, "AGENTA_AI_GRPC_LISTEN", settings.reuse_port, is_ours)


async def metrics(settings: Settings) -> AsyncIterator[Found]:
    """As the other address."""
    listen = settings.metrics_listen
    if not listen:
        return

    async def is_ours() -> bool:
        try:
            return b"agenta_ai_build_info" in ((await get(f"http://{listen}/metrics")).body or b"")
        except TransportError:
            return False

    yield await _address(listen, "AGENTA_AI_GRPC_METRICS_LISTEN", False, is_ours)


async def _address(listen: str, name: str, is_shared: bool, is_ours: Callable[[], Any]) -> Found:
    try:
        _bind(listen, is_shared)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and await is_ours():
            return ok(f"{listen} is served by a running agenta-ai-server.")
        if error.errno == errno.EADDRINUSE and (why := _unreachable(listen)):
            return warning(
                f"{listen} is in use, but can't be reached to find out by which program: {why}.",
                "Find out what is listening there (ss -ltnp). If lo is down: ip link set lo up; ip addr add "
                "127.0.0.1/8 dev lo.",
            )
        return failed(f"{listen} can't be listened on: {error.strerror}.", _way_out(error.errno, name))
    return ok(f"{listen} is free.")


def _bind(listen: str, is_shared: bool) -> None:
    """See whether the address can be had, and leave it."""
    if listen.startswith("unix:"):
        _bind_path(Path(listen.removeprefix("unix:")))
        return
    served_addresses(listen, reuse_port=is_shared)


def _bind_path(path: Path) -> None:
    check_socket_path(path)
    with socket.socket(socket.AF_UNIX) as probe:
        if path.exists() and probe.connect_ex(str(path)) == 0:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _unreachable(listen: str) -> str:
    """Return why this machine has no way to the address, which may be one for all of its addresses; empty if it has."""
    host, _, port = listen.rpartition(":")
    if listen.startswith("unix:"):
        return ""
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        if error.errno in NO_WAY:
            return os.strerror(error.errno)
    return ""


def _way_out(number: int | None, name: str) -> str:
    match number:
        case errno.EADDRINUSE:
            stop = "Stop it"
            if name == "AGENTA_AI_GRPC_LISTEN":
                # One of ours is known by its certificate, which may have been renewed.
                stop = "If it is an agenta-ai-server with an older certificate, leave it; otherwise stop it"
            return f"Find out what is listening there (ss -ltnp). {stop}, or set another port in {name}."
        case errno.EADDRNOTAVAIL:
            return f"Set {name} to an address of this machine, or to 0.0.0.0 for all of them."
        case errno.EEXIST:
            return f"Remove the file, or set {name} to another path."
        case errno.ENOENT:
            return f"Create the folder, or set {name} to a path in an existing folder."
        case errno.EACCES:
            return f"Set {name} to a port of at least 1024, or a path in a folder that this user can write to."
    return f"Set {name} to another address."


async def open_files(settings: Settings) -> AsyncIterator[Found]:
    """Check that the process may open as many files as the full load needs."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < settings.open_files:
        yield warning(
            f"The limit is {hard:,}, and up to {settings.open_files:,} may be needed.",
            "Raise the limit (ulimit -Hn, LimitNOFILE), or lower AGENTA_AI_GRPC_MAX_IN_FLIGHT.",
        )
    else:
        yield ok(f"Up to {settings.open_files:,} may be needed, and that many are allowed.")
