"""Agenta's permission check: the owner of a credential, and whether it grants one permission."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlencode

import httpx

from agenta_ai_server.domain.token import json_object, unverified

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenta_ai_server.agenta.addresses import AgentaAddress
    from agenta_ai_server.agenta.http import HttpClient, HttpResponse

CHECK = "access/permissions/check"
"""The route since Agenta v0.103.0."""
VERIFY = "permissions/verify"
"""The same route before that."""

_MAX_BODY_BYTES = 1024 * 1024
_ID = re.compile(r"[!-~]{0,256}")


class Denial(Enum):
    """The answers that don't name the owner of the credential."""

    FORBIDDEN = auto()
    UNKNOWN_CREDENTIAL = auto()


@dataclass(frozen=True, slots=True)
class Grant:
    """The permission is granted, to the owner of the credential. Ids are empty where Agenta doesn't name them."""

    user: str
    project: str = ""
    workspace: str = ""
    organization: str = ""


Verdict: TypeAlias = Grant | Denial


class PermissionChecks:
    """Asks Agenta, on the route that this release of it has. Which one is found out by the first request.

    Args:
        http: Sends the requests. Its connections must not be kept alive: what came late on a used one would be
            taken for the answer about another caller.
        address: Where Agenta is.
        seconds: Bounds each request.
    """

    def __init__(self, http: HttpClient, address: AgentaAddress, seconds: float) -> None:
        self._http = http
        self._urls = address.api(CHECK), address.api(VERIFY)
        self._seconds = seconds

    async def ask(self, authorization: str, action: str, project: str = "") -> Verdict:
        """Return whether the credential grants the permission.

        Args:
            authorization: The caller's credential with its scheme.
            action: Agenta's name of the permission.
            project: UUID of the project to check; empty for the credential's own.

        Raises:
            httpx.TransportError: No response came. The text says why, and quotes nothing.
            ValueError: The response isn't one of Agenta's. The text quotes nothing of it.
        """
        # Those of this question: others that run at the same time may exchange them meanwhile.
        first, second = self._urls
        response = await self._get(first, authorization, action, project)
        if response.status == httpx.codes.NOT_FOUND:
            other = await self._get(second, authorization, action, project)
            if other.status != httpx.codes.NOT_FOUND:
                response = other
                self._urls = second, first
        return decode(response.with_bounded_values(), project)

    async def _get(self, url: str, authorization: str, action: str, project: str) -> HttpResponse:
        return await self._http.send(
            "GET",
            f"{url}?{urlencode(encode(action, project))}",
            headers={"authorization": authorization},
            seconds=self._seconds,
            max_body_bytes=_MAX_BODY_BYTES,
        )


def encode(action: str, project: str = "") -> dict[str, str]:
    """Return the query of a permission check; the same on both routes."""
    query = {"action": action, "resource_type": "service"}
    return query | {"scope_type": "project", "scope_id": project} if project else query


def decode(response: HttpResponse, project: str = "") -> Verdict:
    """Return what the response says; the same on both routes.

    Args:
        response: What Agenta answered.
        project: The project that was requested, if any.

    Raises:
        ValueError: It says neither yes nor no, or is about another project. The sentence quotes nothing of it.
    """
    if response.status == httpx.codes.UNAUTHORIZED:
        return Denial.UNKNOWN_CREDENTIAL
    if response.status == httpx.codes.FORBIDDEN:
        return Denial.FORBIDDEN
    if response.status != httpx.codes.OK:
        raise ValueError(f"HTTP {response.status}")
    if response.body is None:
        raise ValueError("its answer has more than 1 MiB, or too many values")
    document = json_object(response.body)
    scheme, _, token = str(document.get("credentials")).partition(" ")
    if document.get("effect") != "allow" or scheme != "Secret":
        raise ValueError("its response neither allows nor denies")
    # Unverified: it has just come from its issuer.
    claims = unverified(token).claims
    names = ("user_id", "project_id", "workspace_id", "organization_id")
    grant = Grant(*(_id(claims, name) for name in names))
    if not grant.user or project not in ("", grant.project):
        raise ValueError("its response is about another project")
    return grant


def _id(claims: Mapping[str, object], name: str) -> str:
    value = claims.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise ValueError("its answer has a malformed id")
    return value
