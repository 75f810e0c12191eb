"""Authenticates callers with an API key of this service."""

from __future__ import annotations

import hmac
import logging
import os
import time
from typing import TYPE_CHECKING

from agenta_ai_server.auth.authenticator import invalid
from agenta_ai_server.auth.key_file import (
    KEY,
    OWN_KEY_PREFIX,
    KeyFile,
    KeyRecord,
    check_place,
    hashed,
    make_if_missing,
)
from agenta_ai_server.auth.records import current, parse
from agenta_ai_server.files.reloading import ReloadingFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agenta_ai_server.auth.authenticator import Credentials
    from agenta_ai_server.domain.call import Principal

NO_HASH = "sha256:" + "0" * 64

log = logging.getLogger(__name__)


class ApiKeyAuthenticator:
    """Identifies callers by a file of API keys, which is reloaded when it changes.

    A file that breaks or vanishes revokes nothing: its last valid version stays in effect, expiry included. So a file
    that is being copied, or a volume that is gone for a moment, locks nobody out. Keys are revoked by what the file
    says. If it can't be read because descriptors run out or the disk hangs, no one is admitted after a minute.

    Args:
        path: The file. If there is none, :meth:`start` makes one.
        clock: Seconds since the epoch, for expiry.
        every: Seconds between checks for changes of the file: how long a revoked key may still be accepted.

    Raises:
        ValueError: The file can't be made or read, or it is broken.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time, *, every: float = 1.0) -> None:
        self._path = path
        self._clock = clock
        self._every = every
        self._keys = self._read() if os.path.exists(path) else None
        if self._keys is None:
            check_place(path)

    async def start(self) -> None:
        """Make a file without keys, readable by its owner only, if there was none.

        Not before the other parts have started: if this server doesn't start, another one with the same path would
        forget the keys that it still knows.

        Raises:
            ValueError: The file can't be made.
        """
        if self._keys is None:
            make_if_missing(self._path)
            self._keys = self._read()

    def accepts(self, credentials: Credentials) -> bool:
        """Return whether it is a key of this service's own making, by its beginning."""
        return credentials.scheme == "ApiKey" and credentials.secret.startswith(OWN_KEY_PREFIX)

    async def authenticate(self, credentials: Credentials) -> Principal:
        """Return whose key it is.

        Raises:
            Refused: CREDENTIALS_INVALID, whatever is wrong with it; AUTHORITY_UNAVAILABLE if the file can't be read.
        """
        # The same work for every outcome, so that timing doesn't reveal which ids exist.
        well_formed = KEY.fullmatch(credentials.secret)
        key_id, secret = well_formed.groups() if well_formed else ("", "")
        record = current(self._keys).get(key_id) if self._keys else None
        is_genuine = hmac.compare_digest(hashed(secret), record.hash if record else NO_HASH)
        if record is None or not is_genuine or not record.is_valid(self._clock()):
            raise invalid()
        return record.principal("api_key")

    async def aclose(self) -> None:
        """Close nothing: the file isn't kept open."""

    def _read(self) -> ReloadingFile[dict[str, KeyRecord]]:
        return ReloadingFile(self._path, self._parse, every=self._every)

    def _parse(self, content: bytes) -> dict[str, KeyRecord]:
        keys = {record.id: record for record in parse(KeyFile, content).keys}
        # Last, because a broken file is tried again and again.
        if self._path.stat().st_mode & 0o027:
            log.warning("%s can be read by everyone or written by its group: chmod 600 %s", self._path, self._path)
        return keys
