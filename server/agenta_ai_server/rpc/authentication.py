"""Finds out who calls."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agenta_ai_server.auth.authenticator import Credentials, invalid
from agenta_ai_server.domain.call import ANONYMOUS, Call
from agenta_ai_server.rpc.interceptor import Interceptor, Proceed

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from agenta_ai_server.auth.authenticator import Authenticator

PROJECT_KEY = "x-agenta-project-id"
# The scheme's case doesn't matter (RFC 9110, 11.1), except to Agenta, which knows these spellings.
SCHEMES = {scheme.lower(): scheme for scheme in ("ApiKey", "Bearer", "Secret")}
# Visible ASCII but for quotes: a key of ours that somebody has put into them must not be taken for one of Agenta's.
AUTHORIZATION = re.compile(r"([A-Za-z]{1,16}) +([!#-&(-~]{1,8192})")


class Authentication(Interceptor):
    """Lets in those whom the authenticator knows."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    async def intercept(self, request: Message, call: Call, proceed: Proceed) -> Message:
        """Let the caller in by its name, or refuse it."""
        await self.identify(call)
        return await proceed(request, call)

    async def identify(self, call: Call) -> None:
        """Name the caller.

        Raises:
            Refused: As the authenticator does.
        """
        call.principal = await self._authenticator.authenticate(_credentials(call))


class Anonymous(Interceptor):
    """Lets everybody in as one principal: the mode ``AGENTA_AI_GRPC_AUTH=none``."""

    async def intercept(self, request: Message, call: Call, proceed: Proceed) -> Message:
        """Let the caller in by its name, or refuse it."""
        await self.identify(call)
        return await proceed(request, call)

    async def identify(self, call: Call) -> None:
        """Name the caller."""
        call.principal = ANONYMOUS


def _credentials(call: Call) -> Credentials:
    """Return what the caller shows of itself.

    Raises:
        Refused: CREDENTIALS_INVALID, if that can't be read or is more than one.
    """
    shown = call.values("authorization")
    if not shown:
        return Credentials(identities=call.identities, host=call.host)
    found = AUTHORIZATION.fullmatch(shown[0])
    scheme = SCHEMES.get(found[1].lower()) if found else None
    projects = call.values(PROJECT_KEY)
    if len(shown) > 1 or len(projects) > 1 or not found or not scheme:
        raise invalid()
    # A certificate doesn't stand in for a credential that was shown and is wrong.
    return Credentials(scheme, found[2], project="".join(projects), host=call.host)
