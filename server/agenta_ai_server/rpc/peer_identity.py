r"""The names in a caller's certificate, read from the certificate itself, for as long as it is valid.

grpc's own ``peer_dns`` and ``peer_uri`` end at a NUL, so that ``DNS:victim.example\0.attacker.test`` would pass for
``victim.example``, also under an authority whose name constraints permit ``attacker.test`` only. And TLS looks at the
clock in a full handshake only: a connection that stays open, and a session that is resumed, outlive the certificate.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from time import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cryptography import x509

CERTIFICATE = "x509_pem_cert"
# Certificates that are remembered: a connection shows one, and a call asks for its names.
MAX_CERTIFICATES = 1024

audit = logging.getLogger("agenta_ai_server.audit")


def identities(auth_context: Mapping[str, Iterable[bytes]]) -> tuple[str, ...]:
    """Return the URIs and DNS names of the caller's certificate, which the transport has verified.

    A name that holds anything but visible ASCII is not a name (RFC 5280, 4.2.1.6): it is left out, and audited once for
    each certificate. So is a DNS name with a colon, which could pass for a URI, and a URI without one.

    Args:
        auth_context: What grpc knows of the connection. Without a certificate, or with one that has expired, there
            are no names.
    """
    certificates = tuple(auth_context.get(CERTIFICATE, ()))
    if not certificates:
        return ()
    names, end = _read(certificates[0])
    return names if time() <= end else ()


@lru_cache(MAX_CERTIFICATES)
def _read(pem: bytes) -> tuple[tuple[str, ...], float]:
    """Return the names in a certificate, and until when it is valid, in seconds since the epoch."""
    # Without client certificates it isn't needed, and takes a while to import.
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    certificate = x509.load_pem_x509_certificate(pem)
    try:
        found = list(_alternative_names(certificate))
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        # An unreadable extension has no names.
        found = [""]
    names = tuple(name for name in found if _is_name(name))
    if len(names) < len(found):
        # Without the names, which are whatever an authority has signed.
        audit.warning(
            "ignored %d names of the client certificate with serial number %x and SHA-256 fingerprint %s: they "
            "can't be read, or contain invalid characters",
            len(found) - len(names),
            certificate.serial_number,
            certificate.fingerprint(SHA256()).hex(),
        )
    return names, certificate.not_valid_after_utc.timestamp()


def _alternative_names(certificate: x509.Certificate) -> Iterator[str]:
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return
    for name in extension.value:
        is_uri = isinstance(name, x509.UniformResourceIdentifier)
        # An authority that looks at DNS names only would otherwise let a URI pass for one.
        if isinstance(name, x509.DNSName | x509.UniformResourceIdentifier) and (":" in name.value) is is_uri:
            yield name.value


def _is_name(name: str) -> bool:
    return bool(name) and all("!" <= character <= "~" for character in name)
