"""The form in which a store keeps outcomes: as they are, encrypted, or not at all."""

from __future__ import annotations

import base64
import binascii
import os
import time
from typing import TYPE_CHECKING, Protocol

from agenta_ai_server.domain.digest import digest
from agenta_ai_server.files.reloading import ReloadingFile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

KEY_BYTES = 32
_NONCE_BYTES = 12
_ID_BYTES = 4


class Sealing(Protocol):
    """Converts outcomes to their stored form, and back."""

    def seal(self, key: str, data: bytes) -> bytes | None:
        """Return what to store for the id of this ``key``; ``None`` to store nothing."""

    def unseal(self, key: str, sealed: bytes) -> bytes | None:
        """Return the outcome; ``None`` if it can't be read."""


class Plain:
    """Stores outcomes as they are."""

    def seal(self, key: str, data: bytes) -> bytes | None:
        """Return the ``data``."""
        return data

    def unseal(self, key: str, sealed: bytes) -> bytes | None:
        """Return what was stored."""
        return sealed


class Unstored:
    """Stores no outcomes."""

    def seal(self, key: str, data: bytes) -> bytes | None:
        """Return nothing."""
        return None

    def unseal(self, key: str, sealed: bytes) -> bytes | None:
        """Return nothing."""
        return None


class Encrypted:
    """Stores outcomes encrypted by AES-256-GCM, each bound to its id.

    Args:
        keys: The first one encrypts, and each of them decrypts. 32 bytes each.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._ciphers = {digest(key, size=_ID_BYTES): AESGCM(key) for key in keys}
        self._newest = digest(keys[0], size=_ID_BYTES)

    @classmethod
    def parse(cls, content: bytes) -> Encrypted:
        """Read the keys: 32 random bytes each in base64, one a line, the newest first.

        Raises:
            ValueError: The content is something else. The sentence doesn't quote it.
        """
        try:
            keys = [base64.b64decode(line, validate=True) for line in content.split()]
        except binascii.Error:
            keys = []
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(
                "must hold 32-byte keys in base64, one per line, the newest first. Create one: openssl rand -base64 32"
            )
        return cls(keys)

    def seal(self, key: str, data: bytes) -> bytes | None:
        """Return the outcome encrypted by the newest key."""
        nonce = os.urandom(_NONCE_BYTES)
        return self._newest + nonce + self._ciphers[self._newest].encrypt(nonce, data, key.encode())

    def unseal(self, key: str, sealed: bytes) -> bytes | None:
        """Return the outcome; ``None`` if its key is gone, or if it was tampered with."""
        from cryptography.exceptions import InvalidTag

        cipher = self._ciphers.get(sealed[:_ID_BYTES])
        start = _ID_BYTES + _NONCE_BYTES
        if cipher is None or len(sealed) < start:
            return None
        try:
            return cipher.decrypt(sealed[_ID_BYTES:start], sealed[start:], key.encode())
        except InvalidTag:
            return None


class EncryptedByFile:
    """Stores outcomes encrypted by the keys of a file, which is read again when it changes.

    Args:
        path: The file, as :meth:`Encrypted.parse` reads it.
        clock: Monotonic clock, in seconds.

    Raises:
        ValueError: It can't be read, or holds something else.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = ReloadingFile(path, Encrypted.parse, clock=clock)

    def seal(self, key: str, data: bytes) -> bytes | None:
        """Return the outcome encrypted by the newest key."""
        return self._file.content.seal(key, data)

    def unseal(self, key: str, sealed: bytes) -> bytes | None:
        """Return the outcome; ``None`` if its key is gone, or if it was tampered with."""
        return self._file.content.unseal(key, sealed)
