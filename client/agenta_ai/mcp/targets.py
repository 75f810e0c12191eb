"""What a request names: its host, its path and the page that it comes from, in forms that can be compared."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

# A Host doesn't say whether a proxy in front uses TLS.
_DEFAULT_PORTS = {"": ("80", "443"), "http": ("80",), "https": ("443",)}
_HOST_OR_ORIGIN = re.compile(
    r"(?:(?P<scheme>[a-z][a-z0-9+.-]*)://)?(?P<name>\[[0-9a-f:.]+\]|[^\s\[\]/\\?#@:,]*?)\.?(?::(?P<port>[0-9]*|\*))?"
)
_ABSOLUTE = re.compile(rb"https?://(?P<host>[^/]*)(?P<path>.*)", re.IGNORECASE)


class CanonicalTargets:
    """Rewrites requests before they are checked: their Host, their Origin, and targets in absolute form.

    A target in absolute form is one for proxies; its host takes precedence over Host (RFC 9112, 3.2.2).
    """

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if absolute := _ABSOLUTE.fullmatch(scope["raw_path"]):
                path = absolute["path"] or b"/"
                others = [header for header in scope["headers"] if header[0] != b"host"]
                scope["headers"] = [(b"host", absolute["host"]), *others]
                scope["raw_path"], scope["path"] = path, unquote(path.decode("ascii"))
            scope["headers"] = [(name, _canonical_value(name, value)) for name, value in scope["headers"]]
        await self._application(scope, receive, send)


def canonical(text: str) -> str:
    """Return a host or an origin in lower case, without a dot at the end of its name and without a default port.

    In this form, equal ones are the same text (RFC 9110, 4.2.3; RFC 3986, 6.2).

    Args:
        text: ``name``, ``name:port`` or ``scheme://name:port``; the port may be ``*``.

    Returns:
        The canonical form; empty if ``text`` is none of these.
    """
    found = _HOST_OR_ORIGIN.fullmatch(text.lower())
    if not found:
        return ""
    scheme, port = found["scheme"] or "", found["port"] or ""
    beginning = f"{scheme}://" if scheme else ""
    is_default = not port or port in _DEFAULT_PORTS.get(scheme, ())
    return beginning + found["name"] + ("" if is_default else f":{port}")


def with_any_port(allowed: str) -> list[str]:
    """Return the canonical forms that a host or an origin allows: with the port ``*``, also the one without a port."""
    form = canonical(allowed)
    return [form, form.removesuffix(":*")] if form.endswith(":*") else [form]


def _canonical_value(name: bytes, value: bytes) -> bytes:
    if name == b"host":
        return canonical(value.decode("latin-1")).encode("latin-1")
    if name == b"origin":
        # An invalid origin becomes ``null``, which isn't allowed by default. An empty one would count as none.
        return canonical(value.decode("latin-1")).encode("latin-1") or b"null"
    return value
