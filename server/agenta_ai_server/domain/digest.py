"""One way to hash several parts together."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def digest(parts: Iterable[bytes]) -> bytes:
    """Return a hash of 16 bytes that differs wherever a part does: each part goes in with its length."""
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        hashed.update(len(part).to_bytes(8) + part)
    return hashed.digest()
