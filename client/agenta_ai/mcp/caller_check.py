"""Checks the credentials of an HTTP request before it is read."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.responses import PlainTextResponse

from agenta_ai.credentials import AUTHORIZATION
from agenta_ai.errors import AgentaError, InvalidInput
from agenta_ai.mcp.callers import digest
from agenta_ai.mcp.failures import OUTAGE_SECONDS, retry_delay, status_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.responses import Response

    from agenta_ai.client import Client
    from agenta_ai.meta import Metadata

# Seconds for which the service isn't asked again whether it accepts a caller. Each call carries its credentials to the
# service all the same: what is remembered decides only whether a refusal is a 401 or the failure of a call.
REMEMBERED_SECONDS = 30.0
MAX_REMEMBERED = 10_000
# Seconds that the question may take.
CHECK_SECONDS = 5.0


@dataclass
class CallerCheck:
    """Refuses callers that the service refuses, with the HTTP statuses that MCP clients expect.

    Attributes:
        client: A client of the service without its own credentials.
        metadata_url: URL of the metadata that names the issuer of tokens; empty if there is none.
        needs_credentials: Whether requests without credentials are refused regardless of the service.
        clock: Monotonic clock, in seconds.
    """

    client: Client
    metadata_url: str = ""
    needs_credentials: bool = False
    clock: Callable[[], float] = time.monotonic
    # By the digests of their credentials: when the service accepted them last.
    _accepted: dict[str, float] = field(default_factory=dict)

    async def refusal(self, caller: Metadata) -> Response | None:
        """Return the refusal of a caller; ``None`` if the service accepts it.

        While the service can't be reached, callers that it accepted before are let through: their calls fail and report
        the outage as MCP errors.
        """
        has_credentials = any(key == AUTHORIZATION for key, _ in caller)
        if self.needs_credentials and not has_credentials:
            return self._unauthorized(has_credentials)
        key = digest(caller)
        accepted = self._accepted.get(key)
        if accepted is not None and self.clock() - accepted < REMEMBERED_SECONDS:
            return None
        try:
            await self.client.status(timeout=CHECK_SECONDS, metadata=caller)
        except InvalidInput:  # it can't even be sent
            return self._unauthorized(has_credentials)
        except AgentaError as failure:
            return self._refused(failure, key, has_credentials)
        self._remember(key)
        return None

    def _refused(self, failure: AgentaError, key: str, has_credentials: bool) -> Response | None:
        status = status_of(failure)
        if status in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
            self._accepted.pop(key, None)
            if status == "UNAUTHENTICATED":
                return self._unauthorized(has_credentials)
            return PlainTextResponse("The service does not permit this caller to use it.", 403)
        if key in self._accepted:
            return None
        seconds = math.ceil(retry_delay(failure) or OUTAGE_SECONDS)
        sentence = f"The service can't check this caller's credentials at the moment. Try again in {seconds} s."
        return PlainTextResponse(sentence, 503, {"Retry-After": str(seconds)})

    def _unauthorized(self, has_credentials: bool) -> Response:
        """Return a 401 (RFC 6750, 3), with an error code only if credentials were sent."""
        challenge = ['error="invalid_token"'] if has_credentials else []
        if self.metadata_url:
            challenge.append(f'resource_metadata="{self.metadata_url}"')
        return PlainTextResponse(
            "The service requires valid credentials: send them in the Authorization header.",
            401,
            {"WWW-Authenticate": f"Bearer {', '.join(challenge)}".rstrip()},
        )

    def _remember(self, key: str) -> None:
        self._accepted.pop(key, None)
        if len(self._accepted) >= MAX_REMEMBERED:
            del self._accepted[next(iter(self._accepted))]  # the one that was asked about longest ago
        self._accepted[key] = self.clock()
