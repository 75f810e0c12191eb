"""The address of Agenta, in the spellings that people give it in."""

from __future__ import annotations


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
