"""The listener's certificates, which may be renewed while it runs."""

from __future__ import annotations

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from agenta_ai_server.files.reloading import NotYet, ReloadingFiles

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes


# Only there sockets have names without a file.
LINUX = sys.platform == "linux"
# What cryptography raises for what it can't read, or doesn't know.
_UNREADABLE = ValueError, UnsupportedAlgorithm, x509.InvalidVersion

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the certificates are, all in PEM form.

    Attributes:
        certificate: The server's own, followed by those between it and its authority.
        key: The private key of the first of them.
        client_authorities: Who may have issued the callers' certificates. If given, every caller must have one.
    """

    certificate: Path
    key: Path
    client_authorities: Path | None = None


class Certificates:
    """The content of the files for handshakes, reloaded when it changes. Open connections keep the old one.

    Only what grpc itself loads counts: it takes fewer kinds of keys than are well formed.

    Raises:
        ValueError: A file can't be read, the certificate isn't valid yet, has expired or doesn't belong to the key, or
            grpc can't load them.
    """

    def __init__(self, files: TlsFiles) -> None:
        paths = [path for path in (files.certificate, files.key, files.client_authorities) if path]
        self._watched = ReloadingFiles(paths, _load_pair)
        self._used = self._watched.content
        self._client_authentication = files.client_authorities is not None

    @property
    def expires(self) -> float:
        """When the first of the certificates in use will have expired, in seconds since the epoch."""
        return self._watched.content.expires

    def credentials(self) -> grpc.ServerCredentials:
        """Return the credentials of a listener. TLS 1.2 is the least that gRPC speaks."""
        fetch: Any = self._renewed  # the stubs know of no None
        return grpc.dynamic_ssl_server_credentials(self._used.configuration, fetch, self._client_authentication)

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return new certificates, or ``None`` if they are the same. Called by grpc in a thread, for each handshake."""
        content = self._watched.content
        if content is self._used:
            return None
        self._used = content
        return content.configuration


@dataclass(frozen=True, slots=True)
class _Content:
    configuration: grpc.ServerCertificateConfiguration
    expires: float


def _load_pair(certificate: bytes, key: bytes, authorities: bytes | None = None) -> _Content:
    chain = read_certificates(certificate)
    first = chain[0]
    private = read_key(key)
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if private.public_key().public_bytes(*form) != first.public_key().public_bytes(*form):
        raise ValueError("the certificate does not belong to the key")
    now = datetime.now(UTC)
    if now < first.not_valid_before_utc:
        raise NotYet(f"the certificate isn't valid before {first.not_valid_before_utc:%Y-%m-%d %H:%M:%S} UTC")
    if first.not_valid_after_utc < now:
        raise ValueError(f"the certificate expired at {first.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if authorities is not None:
        read_authorities(authorities)
    _check_loadable(certificate, key, authorities)
    if unusual := unusual_key(first):
        log.warning("the certificate's key is %s, which grpc's own clients can't use: choose P-256 or RSA", unusual)
    return _Content(
        grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=authorities),
        min(each.not_valid_after_utc.timestamp() for each in chain),
    )


def _check_loadable(certificate: bytes, key: bytes, authorities: bytes | None) -> None:
    """Check that grpc accepts them. The only way is to create a listener, here on an address that no one knows.

    Raises:
        ValueError: It doesn't.
    """
    credentials = grpc.ssl_server_credentials([(key, certificate)], authorities, authorities is not None)
    server = grpc.server(ThreadPoolExecutor(1))
    try:
        server.add_secure_port(f"unix-abstract:agenta-ai-{uuid4()}" if LINUX else "localhost:0", credentials)
    except RuntimeError:
        raise ValueError(
            "grpc can't load the certificate and its key, or the client authorities, although they are well formed. "
            "Use a key of type RSA (2048 bits or more) or ECDSA (P-256, P-384)"
        ) from None
    finally:
        # One that never started would keep its listener.
        server.start()
        server.stop(None).wait()


def unusual_key(certificate: x509.Certificate) -> str:
    """Return the type of the certificate's key if grpc can serve it, while grpc's own clients can't use it."""
    key = certificate.public_key()
    if isinstance(key, ed25519.Ed25519PublicKey):
        return "Ed25519"
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP521R1):
        return "P-521"
    return ""


def read_certificates(pem: bytes) -> list[x509.Certificate]:
    """Return the server's certificate and those between it and its authority.

    Raises:
        ValueError: There is none, or its key is of an unknown type.
    """
    certificates = _certificates(pem, "certificate")
    try:
        certificates[0].public_key()
    except _UNREADABLE:
        raise ValueError("the certificate has a key of an unknown type: use RSA or ECDSA (P-256, P-384)") from None
    return certificates


def read_authorities(pem: bytes) -> list[x509.Certificate]:
    """Return the authorities of callers' certificates.

    Raises:
        ValueError: There is none.
    """
    return _certificates(pem, "file of client authorities")


def read_key(pem: bytes) -> PrivateKeyTypes:
    """Return the certificate's key.

    Raises:
        ValueError: There is none, or none without a password.
    """
    try:
        return load_pem_private_key(pem, password=None)
    except (*_UNREADABLE, TypeError):
        raise ValueError(
            "the key can't be read: it must be in PEM form, without a password, and of type RSA or ECDSA"
        ) from None


def _certificates(pem: bytes, what: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except _UNREADABLE:
        raise ValueError(f"the {what} can't be read: it must be in PEM form") from None
