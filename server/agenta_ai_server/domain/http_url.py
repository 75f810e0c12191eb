"""The form of http and https URLs, checked without an HTTP client."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote, urlsplit

# Host names and addresses as they are sent: letters, digits, dots, hyphens, and the colons of IPv6.
HOST = re.compile(r"(?=.{1,253}$)([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}\.?|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*")


def check_http_url(url: str) -> SplitResult:
    """Return the parts of the URL.

    Raises:
        ValueError: It isn't an http or https URL. The sentence doesn't repeat it, because it may hold a password.
    """
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna" if not url.isascii() else "ascii").decode()
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not HOST.fullmatch(host):
        raise ValueError("must have the scheme http or https, and a host")
    if not url.isprintable() or len(url.split()) != 1 or port == 0:
        raise ValueError("must have no spaces; if it has a port, this must be from 1 to 65535")
    return parts


def has_credentials(parts: SplitResult) -> bool:
    """Whether the URL names a user or a password."""
    return "@" in parts.netloc


def check_no_credentials(url: str) -> None:
    """Check that a URL, whatever else is wrong with it, has no credentials.

    Raises:
        ValueError: It has. The sentence doesn't repeat them.
    """
    if "@" in re.split("[/?#]", url.partition("//")[2], maxsplit=1)[0]:
        raise ValueError("must not have credentials: leave them out")


def check_proxy_url(proxy: str) -> None:
    """Check the URL of an HTTP proxy, which may have a user and a password.

    Raises:
        ValueError: It isn't one. The sentence doesn't repeat it.
    """
    try:
        parts = check_http_url(proxy)
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if not (user + password).isascii():
            raise ValueError("must have ASCII credentials")
        if ":" in user:
            raise ValueError("must have a user without a colon")
    except ValueError as error:
        raise ValueError(f"the proxy's URL {error}. Give one such as http://proxy.example:3128") from None
