"""Addresses of servers: what gRPC makes of them, and which of them stay on this machine."""

from __future__ import annotations

import re

from agenta_ai.errors import InvalidInput

# gRPC cuts an address off at ? and #, and escapes what isn't ASCII: what it then calls is not what was written.
_IN_NO_TARGET = re.compile(r"[^!-~]|[?#]")
_SCHEMES = ("dns:", "unix:", "unix-abstract:", "ipv4:", "ipv6:", "xds:")

_PORT = "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}:{_PORT}"
_IPV6 = rf"\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[0-9A-Za-z_.~-]+)?\]:{_PORT}"
_HOST_AND_PORT = rf"(?:[0-9A-Za-z_.-]+:{_PORT}|{_IPV6})"
_BARE = re.compile(_HOST_AND_PORT)
_WITH_SCHEME = re.compile(
    rf"dns:(?://[0-9A-Za-z_.:\[\]-]*/)?{_HOST_AND_PORT}"
    rf"|ipv4:{_IPV4}(?:,{_IPV4})*"
    rf"|ipv6:{_IPV6}(?:,{_IPV6})*"
    r"|unix:(?:///.|/?[^/]).*"
    r"|unix-abstract:/?[^/].*"
)

# What stays on this machine, written out: whatever else gRPC may make of an address, TLS is safe for it.
_LOCAL_ENDPOINT = rf"(?:(?i:localhost)\.?|\[::1\]|127(?:\.{_OCTET}){{3}}):{_PORT}"
_LOCAL = re.compile(
    rf"dns:(///)?{_LOCAL_ENDPOINT}"
    rf"|ipv[46]:{_LOCAL_ENDPOINT}(,{_LOCAL_ENDPOINT})*"
    r"|unix:(///|(?!//)).+"
    r"|unix-abstract:(?!//).+"
)


def resolve(target: object) -> str:
    """Return the target as gRPC wants it: ``"host:port"`` becomes ``"dns:///host:port"``.

    Raises:
        InvalidInput: It is a web address, has no port from 1 to 65535, or is of a kind that gRPC can't connect to.
    """
    if not isinstance(target, str):
        raise InvalidInput(f"target: must be a string such as 127.0.0.1:50051, not a {type(target).__name__}.")
    # What holds an @ may hold a password.
    shown = "target" if "@" in target else f"target {target!a}"
    if odd := _IN_NO_TARGET.search(target):
        raise InvalidInput(f"{shown}: an address can't contain {odd[0]!a}. Give host:port.")
    if target.lower().startswith(("http:", "https:")):
        raise InvalidInput(f"{shown}: is a web address. Give host:port, without http.")
    if target.startswith(_SCHEMES):
        if _WITH_SCHEME.fullmatch(target):
            return target
    elif _BARE.fullmatch(target):
        return f"dns:///{target}"
    raise InvalidInput(
        f"{shown}: is not an address that this client can connect to. "
        "Give host:port with a port from 1 to 65535, [address]:port for IPv6, or unix:path."
    )


def is_local(address: str) -> bool:
    """Return whether a resolved target stays on this machine, so that it needs no TLS."""
    return _LOCAL.fullmatch(address) is not None
