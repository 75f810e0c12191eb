"""Authenticates callers with a client certificate, which the transport has verified."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import field_validator, model_validator

from agenta_ai_server.auth.authenticator import invalid
from agenta_ai_server.auth.records import PrincipalRecord, Record, current, parse, refuse_repeated
from agenta_ai_server.files.reloading import ReloadingFile

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from agenta_ai_server.auth.authenticator import Credentials
    from agenta_ai_server.domain.call import Principal


def canonical(identity: str) -> str:
    """Return the one spelling of an identity: DNS names mean the same in any case, URIs don't."""
    return identity if ":" in identity else identity.lower()


class IdentityRecord(PrincipalRecord):
    """Who shows a certificate with this ``identity``: a URI, ``spiffe://...``, or a DNS name."""

    identity: str

    @field_validator("identity")
    @classmethod
    def _is_one_name(cls, identity: str) -> str:
        if not identity or "*" in identity or not identity.isascii() or any(blank in identity for blank in " \t\r\n"):
            raise ValueError("must be one URI or DNS name, exactly as in the certificate; wildcards aren't supported")
        return canonical(identity)


class IdentityFile(Record):
    """All identities that may call."""

    principals: tuple[IdentityRecord, ...]

    @model_validator(mode="after")
    def _identities_are_unique(self) -> Self:
        refuse_repeated((record.identity for record in self.principals), "identity")
        return self


class MtlsAuthenticator:
    """Identifies callers by the names in their certificates, and a file that maps names to principals.

    The file is read again when it changes. One that breaks or vanishes revokes nothing, as with API keys.

    Args:
        path: The file.
        every: Seconds between checks for changes of the file.

    Raises:
        ValueError: The file can't be read, or it is broken.
    """

    def __init__(self, path: Path, *, every: float = 1.0) -> None:
        self._principals = ReloadingFile(path, _parse, every=every)

    def accepts(self, credentials: Credentials) -> bool:
        """Return whether the caller has a certificate and no other credential."""
        return not credentials.scheme and bool(credentials.identities)

    async def authenticate(self, credentials: Credentials) -> Principal:
        """Return whose certificate it is.

        Raises:
            Refused: CREDENTIALS_INVALID if its names match no principal, or more than one; AUTHORITY_UNAVAILABLE if
                the file can't be read.
        """
        principals_by_name = current(self._principals)
        names = map(canonical, credentials.identities)
        principals = {principals_by_name[name] for name in names if name in principals_by_name}
        if len(principals) != 1:
            raise invalid()
        return principals.pop()

    async def aclose(self) -> None:
        """Close nothing: the file isn't kept open."""


def _parse(content: bytes) -> dict[str, Principal]:
    return {record.identity: record.principal("mtls") for record in parse(IdentityFile, content).principals}
