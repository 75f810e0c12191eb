"""The address of Agenta and the form of its keys, in the spellings that people use."""

from __future__ import annotations

import re

from agenta_ai_server.domain.http_url import check_http_url, has_credentials


def root_path(path: str) -> str:
    """Return the path under which all of Agenta is: without ``/api``, ``/services`` and slashes at its end.

    Args:
        path: Of the URL that was given, ``"/"`` or ``"/agenta/api/"``.

    Returns:
        ``""`` or, say, ``"/agenta"``.
    """
    segments = [segment for segment in path.split("/") if segment]
    while segments and segments[-1] in ("api", "services"):
        segments.pop()
    return "/".join(["", *segments])


def check_agenta_url(url: str) -> None:
    """Check the address of Agenta: an http or https URL, with or without ``/api``, ``/services`` or a final slash.

    Raises:
        ValueError: It is not such a URL, or has credentials, a query or a fragment. The sentence doesn't repeat it.
    """
    try:
        parts = check_http_url(url)
    except ValueError as error:
        raise ValueError(f"Agenta's API URL {error}. Give one such as https://cloud.agenta.ai") from None
    if has_credentials(parts) or parts.query or parts.fragment:
        raise ValueError("Agenta's API URL must not have credentials, a query or a fragment. Leave them out")


def check_key(key: str) -> None:
    """Check that an API key can be sent in a header.

    Raises:
        ValueError: It can't. The sentence doesn't repeat it.
    """
    if not re.fullmatch(r"[!-~]+", key):
        raise ValueError("must be visible ASCII characters, without spaces or line breaks")
    if key[0] == key[-1] and key[0] in "\"'":
        raise ValueError("must not be in quotes: remove them")
