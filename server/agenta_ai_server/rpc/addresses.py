"""The addresses that a listener can serve. grpc accepts a part of them, without saying which or why."""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# Errors of a machine without the protocol, as opposed to those of an address that is taken.
NO_PROTOCOL = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})


def served_addresses(address: str, *, reuse_port: bool) -> tuple[str, ...]:
    """Return what a listener on ``address`` serves, by trying to bind each part of it.

    Args:
        address: ``host:port`` with an IP address. ``[::]`` stands for all addresses, of IPv6 and IPv4 alike.
        reuse_port: Whether the port may be shared with other processes that share it too.

    Returns:
        The parts of it that this machine has: ``("[::]:443", "0.0.0.0:443")``, or less without one of the protocols.

    Raises:
        OSError: One part is taken, or can't be bound; or the machine has none of them.
    """
    host, _, port = address.rpartition(":")
    hosts = ("::", "0.0.0.0") if host == "[::]" else (host.strip("[]"),)  # noqa: S104  # as the operator has set it
    served, missing = [], OSError(errno.EADDRNOTAVAIL, "no address of this machine")
    for each in hosts:
        try:
            _try_to_bind(each, int(port), reuse_port=reuse_port)
        except OSError as error:
            if error.errno not in NO_PROTOCOL:
                raise
            missing = error
        else:
            served.append(f"[{each}]:{port}" if ":" in each else f"{each}:{port}")
    if not served:
        raise missing
    return tuple(served)


def check_socket_path(path: Path) -> None:
    """See that a socket can be made at ``path``, or is there already.

    Raises:
        OSError: It can't be. ``strerror`` says why.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, f"there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"the folder {path.parent} is not writable")
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if path.exists() and not path.is_socket():
        raise FileExistsError(errno.EEXIST, "there is a file of this name that is not a socket")


def _try_to_bind(host: str, port: int, *, reuse_port: bool) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(reuse_port))
        if family == socket.AF_INET6:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        probe.bind((host, port))
