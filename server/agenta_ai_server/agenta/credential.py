"""This server's own API key in Agenta."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.domain.agenta_url import check_key
from agenta_ai_server.files.reloading import ReloadingFile

if TYPE_CHECKING:
    from pathlib import Path


class ServerKey:
    """The key, from a setting or from a file that is reloaded when it changes.

    Args:
        key: The key, without a scheme.
        path: The file that holds the key, in place of ``key``.

    Raises:
        ValueError: The file can't be read, or holds no key.
    """

    def __init__(self, key: str, path: Path | None = None) -> None:
        self._key = key
        self._file = ReloadingFile(path, _parse_key) if path else None

    @property
    def secret(self) -> str:
        """The key itself."""
        return self._file.content if self._file else self._key

    @property
    def authorization(self) -> str:
        """The value of the header ``Authorization``."""
        return f"ApiKey {self.secret}"


def _parse_key(content: bytes) -> str:
    if not (key := content.decode("utf-8-sig", errors="replace").strip()):
        raise ValueError("it is empty, and should contain this server's API key in Agenta")
    check_key(key)
    return key
