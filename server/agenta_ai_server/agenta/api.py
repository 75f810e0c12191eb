"""Agenta's management API: JSON in, JSON out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlencode

from agenta_ai_server.agenta.http import MAX_BODY_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agenta_ai_server.agenta.addresses import AgentaAddress
    from agenta_ai_server.agenta.credential import ServerKey
    from agenta_ai_server.agenta.http import HttpClient
    from agenta_ai_server.domain.values import Json

    Document: TypeAlias = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """A response of the management API.

    Attributes:
        status: The HTTP status.
        document: The body; ``None`` if it isn't JSON. Not for callers of the service: it may hold internals of Agenta.
    """

    status: int
    document: Json


class AgentaApi:
    """Sends requests with one key. Nothing is retried, except a GET whose connection broke.

    Args:
        http: Sends the requests; closed by its owner.
        address: Where Agenta is.
        key: The API key, whose permissions apply.
        seconds: Bounds each request.
    """

    def __init__(self, http: HttpClient, address: AgentaAddress, key: ServerKey, *, seconds: float = 10.0) -> None:
        self._http = http
        self._address = address
        self._key = key
        self._seconds = seconds

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> ApiResponse:
        """Send a GET.

        Args:
            path: Below ``/api/``: ``"traces/0af7651916cd43dd8448eb211c80319c"``.
            query: Of the URL.

        Raises:
            httpx.TransportError: No response came, or none that can be read. The text says why, and quotes nothing.
            ValueError: The response has more than 2 MiB.
        """
        return await self._send("GET", f"{path}?{urlencode(query)}" if query else path)

    async def post(self, path: str, document: Document) -> ApiResponse:
        """Send a POST with a body of JSON.

        Args:
            path: Below ``/api/``: ``"applications/revisions/retrieve"``.
            document: The body.

        Raises:
            httpx.TransportError: As for :meth:`get`. Unless it is a ``ConnectError`` or ``ConnectTimeout``, the
                request may have had its effect.
            ValueError: As for :meth:`get`.
        """
        return await self._send("POST", path, json.dumps(document).encode("ascii"))

    async def _send(self, method: str, path: str, content: bytes = b"") -> ApiResponse:
        headers = {"authorization": self._key.authorization}
        if content:
            headers["content-type"] = "application/json"
        response = await self._http.send(
            method, self._address.api(path), headers=headers, content=content, seconds=self._seconds
        )
        if response.body is None:
            raise ValueError(f"Agenta's response has more than {MAX_BODY_BYTES // 1024**2} MiB.")
        try:
            document: Json = json.loads(response.body)
        except (ValueError, RecursionError):
            document = None
        return ApiResponse(response.status, document)
