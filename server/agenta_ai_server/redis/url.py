"""The URL of Redis, checked without its library."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

FORM = "must be redis://host:port/number of the database, rediss://… for TLS, or unix:///path"
DATABASE = re.compile(r"/?[0-9]*/?")
PARAMETERS = {
    "redis": ("client_name",),
    "rediss": (
        "client_name",
        *("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_cert_reqs"),
        *("ssl_check_hostname", "ssl_ciphers"),
    ),
    "unix": ("client_name", "db"),
}
"""The parameters of each scheme. The client library knows more, but the service relies on its own values of these."""

CHOICES = {
    "db": re.compile(r"[0-9]+"),
    "ssl_cert_reqs": re.compile("required|optional|none"),
    "ssl_check_hostname": re.compile("true|false", re.IGNORECASE),
}
# A longer or different name may be a part of a password that holds an unescaped question mark.
NAME = re.compile("[a-z_]{1,40}")


def check_redis_url(url: str) -> None:
    """Check the scheme, the port, the number of the database, and the names and values of the parameters.

    Raises:
        ValueError: One of them is wrong. The sentence doesn't repeat the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises ValueError only now
    except ValueError:
        raise ValueError(FORM) from None
    # The library takes a name of a database for the number 0.
    is_known = DATABASE.fullmatch(parts.path) if parts.scheme in ("redis", "rediss") else parts.scheme == "unix"
    if not is_known or parts.fragment or "@" in parts.query:
        raise ValueError(FORM)
    _check_parameters(parts.query, PARAMETERS[parts.scheme])


def _check_parameters(query: str, allowed: tuple[str, ...]) -> None:
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in allowed:
            shown = f"the parameter {name}" if NAME.fullmatch(name) else "a parameter"
            raise ValueError(f"has {shown}, which isn't supported. Supported here: {', '.join(allowed)}")
        if not value:
            raise ValueError(f"has no value for the parameter {name}")
        if name in CHOICES and not CHOICES[name].fullmatch(value):
            raise ValueError(f"has a wrong value for the parameter {name}: it must match {CHOICES[name].pattern}")
