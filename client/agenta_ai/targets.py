"""Addresses of servers: what gRPC makes of them, and which of them stay on this machine."""

from __future__ import annotations

import re

from agenta_ai.errors import InvalidInput

_HOST_AND_PORT = re.compile(r"(\[[^\]]+\]|[^:/\[\]]+):[0-9]+")
_SCHEMES = ("dns:", "unix:", "unix-abstract:", "ipv4:", "ipv6:", "vsock:", "xds:")
# gRPC cuts an address off at ? and #, and escapes what isn't ASCII: what it then calls is not what was written.
_IN_NO_TARGET = re.compile(r"[^!-~]|[?#]")

# What stays on this machine, written out: whatever else gRPC may make of an address, TLS is safe for it.
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_LOCAL_ENDPOINT = rf"(?:(?i:localhost)\.?|\[::1\]|127(?:\.{_OCTET}){{3}}):[0-9]+"
_LOCAL = re.compile(
    rf"dns:(///)?{_LOCAL_ENDPOINT}"
    rf"|ipv[46]:{_LOCAL_ENDPOINT}(,{_LOCAL_ENDPOINT})*"
    r"|unix:(///|(?!//)).+"
    r"|unix-abstract:(?!//).+"
)


def resolve(target: object) -> str:
    """Return the target as gRPC wants it: ``"host:port"`` becomes ``"dns:///host:port"``.

    Raises:
        InvalidInput: It is empty or a web address, lacks a port, or holds a character that no address does.
    """
    if not isinstance(target, str):
        raise InvalidInput(f"target: must be a string such as 127.0.0.1:50051, not a {type(target).__name__}.")
    if odd := _IN_NO_TARGET.search(target):
        raise InvalidInput(f"target {target!a}: no address holds {odd[0]!a}. Give host:port.")
    if target.lower().startswith(("http:", "https:")):
        raise InvalidInput(f"target {target!r}: is a web address. Give host:port, without http.")
    if target.startswith(_SCHEMES) or "://" in target:
        return target
    # gRPC would try port 443.
    if not _HOST_AND_PORT.fullmatch(target):
        raise InvalidInput(f"target {target!r}: has no port. Give host:port, or [host]:port for IPv6.")
    return f"dns:///{target}"


def is_local(address: str) -> bool:
    """Return whether a resolved target stays on this machine, so that it needs no TLS."""
    return _LOCAL.fullmatch(address) is not None
