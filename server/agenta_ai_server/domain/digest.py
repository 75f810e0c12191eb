"""Hashes several values."""

from __future__ import annotations

import hashlib


def digest(*parts: str | bytes, size: int = 16) -> bytes:
    """Return a BLAKE2b hash that differs wherever a part does: each part goes in with its length.

    Args:
        parts: What to hash. Strings are encoded as UTF-8; lone surrogates are kept apart from all else.
        size: Bytes of the hash, from 1 to 64.
    """
    hashed = hashlib.blake2b(digest_size=size)
    for part in parts:
        encoded = part.encode(errors="surrogatepass") if isinstance(part, str) else part
        hashed.update(len(encoded).to_bytes(8) + encoded)
    return hashed.digest()
