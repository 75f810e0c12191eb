"""The address of Redis, as far as it can be checked without its library."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

FORM = "must be redis://host:port/number of the database, rediss://… for TLS, or unix:///path"
DATABASE = re.compile(r"/?[0-9]*/?")


def check_redis_url(url: str) -> None:
    """See that the scheme is known, and that port and database are numbers.

    Raises:
        ValueError: They aren't. The sentence doesn't repeat the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # whether it is a number is seen only now
    except ValueError:
        raise ValueError(FORM) from None
    # The library takes a name of a database for the number 0, without a word.
    is_known = DATABASE.fullmatch(parts.path) if parts.scheme in ("redis", "rediss") else parts.scheme == "unix"
    if not is_known:
        raise ValueError(FORM)
