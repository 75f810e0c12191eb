"""Who calls, where each request says so itself."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from agenta_ai.credentials import AUTHORIZATION, PROJECT

if TYPE_CHECKING:
    from starlette.requests import Request

    from agenta_ai.meta import Metadata


def caller_of(request: Request) -> Metadata:
    """Return what a request says of who calls, for the service to judge."""
    return tuple((key, value) for key in (AUTHORIZATION, PROJECT) for value in request.headers.getlist(key))


def digest(caller: Metadata) -> str:
    """Return what stands for a caller where a secret must not be kept."""
    return hashlib.sha256(repr(caller).encode()).hexdigest()
