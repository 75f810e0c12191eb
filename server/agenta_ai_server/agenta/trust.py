"""TLS contexts of HTTP clients: which authorities they trust."""

from __future__ import annotations

import ssl
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def tls_context(ca_file: Path | None, *schemes: str) -> ssl.SSLContext:
    """Return the context of a client.

    Args:
        ca_file: PEM file of the authorities to trust, in place of the public ones.
        schemes: Those of all URLs that the client connects to. Without an ``"https"``, nobody needs to be trusted.

    Raises:
        OSError: The file can't be read, or holds no certificate.
    """
    if ca_file:
        return ssl.create_default_context(cafile=ca_file)
    return _public_authorities() if "https" in schemes else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@contextmanager
def trusting_nobody() -> Iterator[None]:
    """Leave the public authorities out of all contexts that are created meanwhile.

    For the import of aiohttp, which creates two contexts for clients that bring none. Ours do, and loading the
    authorities takes 20 ms and a megabyte for each.
    """
    ssl.SSLContext.set_default_verify_paths = _load_nothing  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        # Uncovers the inherited one.
        del ssl.SSLContext.set_default_verify_paths


# All clients share it, because of the time and memory that it takes.
@cache
def _public_authorities() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


def _load_nothing(*_: object) -> None:
    pass
