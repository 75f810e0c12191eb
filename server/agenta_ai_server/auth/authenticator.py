"""The interface of authenticators, and the router that selects one by the form of the credential."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Protocol

from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.domain.record import record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenta_ai_server.domain.call import Principal


@record
class Credentials:
    """A caller's credentials. Nothing in them has been checked, except the identities.

    Attributes:
        scheme: First word of the ``authorization`` metadata, ``"ApiKey"``, ``"Bearer"`` or ``"Secret"``, in
            Agenta's spelling; empty without ``authorization``.
        secret: The rest of it, visible ASCII without blanks, at most 8 KiB.
        project: The project that the caller wants to act in, from ``x-agenta-project-id``; a wish, no proof.
        identities: URIs and DNS names of the peer's certificate, which the transport has verified.
        host: Address of the peer without its port.
    """

    scheme: str = ""
    secret: str = field(default="", repr=False)
    project: str = ""
    identities: tuple[str, ...] = ()
    host: str = ""


class Authenticator(Protocol):
    """One way to identify callers."""

    def accepts(self, credentials: Credentials) -> bool:
        """Return whether this authenticator is responsible for credentials of this form."""

    async def authenticate(self, credentials: Credentials) -> Principal:
        """Return the caller.

        Raises:
            Refused: CREDENTIALS_INVALID, made by :func:`invalid`, whatever is wrong with them; CREDENTIALS_EXPIRED for
                a token that is genuine but too old; AUTHORITY_UNAVAILABLE if that can't be found out now;
                REQUEST_INVALID if other metadata that the check needs is malformed.
        """

    async def aclose(self) -> None:
        """Close what it has opened."""


class CredentialRouter:
    """Passes credentials to the one authenticator that is responsible for their form, and never to a second one.

    Args:
        authenticators: In the order in which they may accept.
    """

    def __init__(self, authenticators: Sequence[Authenticator]) -> None:
        self._authenticators = tuple(authenticators)

    def accepts(self, credentials: Credentials) -> bool:
        """Return whether an authenticator is responsible."""
        return any(authenticator.accepts(credentials) for authenticator in self._authenticators)

    async def authenticate(self, credentials: Credentials) -> Principal:
        """Return the caller. Raises like every :class:`Authenticator`."""
        for authenticator in self._authenticators:
            if authenticator.accepts(credentials):
                return await authenticator.authenticate(credentials)
        raise invalid()

    async def aclose(self) -> None:
        """Close them all."""
        for authenticator in self._authenticators:
            await authenticator.aclose()


def invalid() -> Refused:
    """Return the refusal of missing, unknown, revoked and malformed credentials, which is the same for all."""
    return Refused(
        Reason.CREDENTIALS_INVALID,
        "The credentials are missing or not valid: send one authorization header, 'ApiKey <key>' or 'Bearer <token>'.",
    )
