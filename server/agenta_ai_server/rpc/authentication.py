"""Identifies the caller, before any of the request is read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from agenta_ai_server.auth.authenticator import Credentials, invalid
from agenta_ai_server.domain.call import ANONYMOUS, AgentaCredential, Call
from agenta_ai_server.rpc.handler import CallHandler, Request, Response

if TYPE_CHECKING:
    from agenta_ai_server.auth.authenticator import Authenticator
    from agenta_ai_server.rpc.handler import Continuation, GrpcHandler

PROJECT_KEY = "x-agenta-project-id"
# The scheme's case doesn't matter (RFC 9110, 11.1), except to Agenta, which knows these spellings.
SCHEMES = {scheme.lower(): scheme for scheme in ("ApiKey", "Bearer", "Secret")}
# Visible ASCII except quotes: one of our keys in quotes must not be mistaken for a key of Agenta.
AUTHORIZATION = re.compile(r"([A-Za-z]{1,16}) +([!#-&(-~]{1,8192})")


class Authentication(grpc.aio.ServerInterceptor):
    """Identifies the caller of each of the contract's methods, or refuses the call.

    Args:
        authenticator: Authenticates callers; ``None`` admits everyone as one anonymous principal.
    """

    def __init__(self, authenticator: Authenticator | None) -> None:
        self._authenticator = authenticator

    async def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> GrpcHandler:
        """Authenticate before the method. Health and reflection are open to everyone."""
        handler = await continuation(details)
        if not isinstance(handler, CallHandler):
            return handler
        proceed = handler.respond

        async def respond(request: Request, call: Call) -> Response:
            await self._identify(call)
            return await proceed(request, call)

        return handler.replace(respond)

    async def _identify(self, call: Call) -> None:
        """Identify the caller.

        Raises:
            Refused: As the authenticator does.
        """
        if self._authenticator is None:
            call.principal = ANONYMOUS
            return
        credentials = _credentials(call)
        call.principal = await self._authenticator.authenticate(credentials)
        if call.principal.is_known_to_agenta:
            call.credential = AgentaCredential(f"{credentials.scheme} {credentials.secret}", credentials.project)


def _credentials(call: Call) -> Credentials:
    """Return the credentials that the caller sent.

    Raises:
        Refused: CREDENTIALS_INVALID, if they can't be read or are more than one.
    """
    shown = call.values("authorization")
    if not shown:
        return Credentials(identities=call.identities, host=call.host)
    found = AUTHORIZATION.fullmatch(shown[0])
    scheme = SCHEMES.get(found[1].lower()) if found else None
    projects = call.values(PROJECT_KEY)
    if len(shown) > 1 or len(projects) > 1 or not found or not scheme:
        raise invalid()
    # Without the certificate, which must not replace a wrong credential.
    return Credentials(scheme, found[2], project="".join(projects), host=call.host)
