"""The caller of a request that carries its own credentials."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from agenta_ai.credentials import AUTHORIZATION, PROJECT

if TYPE_CHECKING:
    from starlette.requests import Request

    from agenta_ai.meta import Metadata


def caller_of(request: Request) -> Metadata:
    """Return the caller's credentials of a request, which the service checks."""
    return tuple((key, value) for key in (AUTHORIZATION, PROJECT) for value in request.headers.getlist(key))


def holder(caller: Metadata) -> str:
    """Return whose share a request uses; empty without credentials.

    One credential is one caller, regardless of project and spelling: the service ignores the case of the scheme and the
    number of spaces.
    """
    credential = next((str(value) for key, value in caller if key == AUTHORIZATION), "")
    scheme, _, secret = credential.strip().partition(" ")
    return hashlib.sha256(f"{scheme.lower()} {secret.strip()}".encode()).hexdigest() if scheme else ""


def digest(caller: Metadata) -> str:
    """Return a digest that identifies a caller where its secret must not be kept."""
    return hashlib.sha256(repr(caller).encode()).hexdigest()
