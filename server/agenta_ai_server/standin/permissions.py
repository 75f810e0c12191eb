"""Agenta's check of permissions: the known callers, their permissions, and the recorded responses."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agenta_ai_server.standin import answers
from agenta_ai_server.standin.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from agenta_ai_server.standin.answers import CannedResponse
    from agenta_ai_server.standin.received import Received

PATH = "/api/access/permissions/check"
OLDER_PATH = "/api/permissions/verify"
"""Before v0.103.0."""
PATHS = (PATH, OLDER_PATH)

_KEY = b"stand-in"  # Agenta's own key is secret, so no one verifies tokens signed with this one
_EXPIRES = 4102444800
VIEWER = frozenset({"run_service", "view_applications", "view_environments", "view_spans", "view_workflows"})
EDITOR = VIEWER | {"edit_applications", "edit_spans", "edit_workflows", "run_workflows"}
DEVELOPER = EDITOR | {"deploy_environments", "edit_environments"}
OWNER = DEVELOPER | {"view_secret"}
ROLES = {
    "viewer": VIEWER,
    "annotator": VIEWER | {"edit_spans"},
    "editor": EDITOR,
    "developer": DEVELOPER,
    "admin": DEVELOPER,
    "owner": OWNER,
}
"""The relevant permissions of the roles in a project."""

_RESOURCES = ("service", "local_secrets")
_FORBIDDEN = answers.of_json(403, {"detail": "Forbidden"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The owner of a credential, and their permissions in their one project."""

    user_id: str = "01a1fd54-f01e-7562-a7cf-1621f0ae9ac6"
    user_email: str = "owner@example.com"
    project_id: str = "01a1fd54-f03b-79e2-8a5e-0bf134e8dc01"
    workspace_id: str = "01a1fd54-f035-7511-8c79-87d130fabaec"
    organization_id: str = "01a1fd54-f02a-7880-ada6-862592899bf1"
    actions: frozenset[str] = OWNER

    @property
    def credentials(self) -> str:
        """The token that names the caller, with its scheme."""
        claims = {
            "user_id": self.user_id,
            "user_email": self.user_email,
            "project_id": self.project_id,
            "workspace_id": self.workspace_id,
            "organization_id": self.organization_id,
            "organization_name": None,
            "exp": _EXPIRES,
        }
        signed = f"{_base64url(_compact({'alg': 'HS256', 'typ': 'JWT'}))}.{_base64url(_compact(claims))}"
        return f"Secret {signed}.{_base64url(hmac.digest(_KEY, signed.encode(), hashlib.sha256))}"


@dataclass(slots=True)
class Permissions:
    """The answers to checks of permissions. They can be changed while the stand-in runs.

    Attributes:
        callers: Who is known, by the whole ``Authorization`` header. A bare key is taken for an API key.
        fault: What goes wrong in all checks; of the model's answers and bodies with a trace it can do nothing.
        respond: Decides for each check: a canned answer, what goes wrong, or ``None`` for the usual. It may wait.
        started: How many checks came.
        in_flight: How many are being answered now.
        peak: How many were at the same time, at most.
    """

    callers: Mapping[str, Caller]
    fault: Fault = field(default_factory=Fault)
    respond: Callable[[Received], Awaitable[CannedResponse | Fault | None]] | None = None
    started: int = 0
    in_flight: int = 0
    peak: int = 0

    def caller(self, authorization: str) -> Caller | None:
        """Return the owner of the credential; ``None`` if it is unknown."""
        return self.callers.get(authorization) or self.callers.get(f"ApiKey {authorization}")

    def verdict(self, authorization: str, query: Mapping[str, str]) -> CannedResponse:
        """Return what Agenta would answer."""
        caller = self.caller(authorization)
        if caller is None:
            reason = {"reason": "invalid_token"} if authorization.startswith("Secret ") else {}
            return answers.of_json(401, {"detail": {"message": "Unauthorized"} | reason})
        scope_id = query.get("scope_id")
        if scope_id is not None and not _is_uuid(scope_id):
            return _no_uuid(scope_id)
        scopes = {None: scope_id, "project": caller.project_id, "workspace": caller.workspace_id}
        is_here = scopes.get(query.get("scope_type"), "") == scope_id
        if not is_here or query.get("resource_type") not in _RESOURCES or query.get("action") not in caller.actions:
            return _FORBIDDEN
        return answers.of_json(200, {"effect": "allow", "credentials": caller.credentials})


def _no_uuid(value: str) -> CannedResponse:
    problem = f"invalid character: found `{value[:1]}` at 0"
    entry = {
        "type": "uuid_parsing",
        "loc": ["query", "scope_id"],
        "msg": f"Input should be a valid UUID, {problem}",
        "input": value,
        "ctx": {"error": problem},
    }
    return answers.of_json(422, {"detail": [entry]})


def _is_uuid(value: str) -> bool:
    try:
        uuid.UUID(value)
    except ValueError:
        return False
    return True


def _compact(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
