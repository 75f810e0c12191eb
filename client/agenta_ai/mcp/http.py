"""The bridge over streamable HTTP."""

from __future__ import annotations

import logging
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import uvicorn
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from agenta_ai.errors import InvalidInput
from agenta_ai.mcp import body
from agenta_ai.mcp.bridge import Bridge
from agenta_ai.mcp.caller_check import CallerCheck
from agenta_ai.mcp.callers import caller_of, digest, holder
from agenta_ai.mcp.connections import BACKLOG, KEEP_ALIVE_SECONDS, MAX_HEAD_BYTES, Connection, max_connections
from agenta_ai.mcp.sessions import Sessions, check_beginning
from agenta_ai.mcp.shares import Hold, Shares
from agenta_ai.mcp.targets import CanonicalTargets, canonical, with_any_port
from agenta_ai.mcp.turns import PacedTurns, Turns

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Sequence

    from starlette.types import Receive, Scope, Send

    from agenta_ai.client import Client
    from agenta_ai.mcp.bridge import Context
    from agenta_ai.mcp.names import Names
    from agenta_ai.meta import Metadata

PATH = "/mcp"
WELL_KNOWN = "/.well-known/oauth-protected-resource"
GRACE_SECONDS = 10

# Key of a request's scope: what holds the bytes of its body.
_HOLD = "agenta_ai.hold"
_LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Access:
    """Who may reach the endpoint, and what its metadata says about tokens.

    Attributes:
        hosts: Values of Host that are accepted besides those of this machine; ``"name:*"`` for any port.
        origins: Origins of the web pages that may call; none by default.
        resource: The URL that tokens are issued for: the audience that the service expects. Empty if unknown.
        issuer: URL of the server that issues them; empty if none is configured.
        needs_credentials: Whether a request without credentials is refused regardless of the service.
    """

    hosts: Sequence[str] = ()
    origins: Sequence[str] = ()
    resource: str = ""
    issuer: str = ""
    needs_credentials: bool = False

    def __post_init__(self) -> None:
        if bool(self.resource) != bool(self.issuer):
            raise InvalidInput("--resource and --issuer belong together. Give both.")
        for option, url in (("--resource", self.resource), ("--issuer", self.issuer)):
            parts = urlsplit(url)
            if url and (parts.scheme not in ("https", "http") or not parts.netloc or parts.query or parts.fragment):
                raise InvalidInput(f"{option} {url}: must be an https URL without a query or fragment.")
        for host in self.hosts:
            if not canonical(host) or "://" in host:
                raise InvalidInput(f"--host {host}: must be NAME or NAME:PORT.")
        for origin in self.origins:
            if not canonical(origin) or "://" not in origin:
                raise InvalidInput(f"--origin {origin}: must be https://NAME or https://NAME:PORT, without a path.")

    @property
    def metadata_url(self) -> str:
        """URL of the resource's metadata (RFC 9728, 3.1); empty if no issuer is configured."""
        if not self.issuer:
            return ""
        parts = urlsplit(self.resource)
        return f"{parts.scheme}://{parts.netloc}{self.metadata_path}"

    @property
    def metadata_path(self) -> str:
        """The path of that URL."""
        return WELL_KNOWN + urlsplit(self.resource).path.rstrip("/")

    @property
    def security(self) -> TransportSecuritySettings:
        """Accepted values of Host and Origin: a page of another site must not reach a server on this machine."""
        # Without --resource, no empty one: that is the canonical form of each invalid Host.
        resource = [urlsplit(self.resource).netloc] if self.resource else []
        hosts = [*resource, *self.hosts, *(f"{host}:*" for host in _LOCAL_HOSTS)]
        local = [f"{scheme}://{host}:*" for scheme in ("http", "https") for host in _LOCAL_HOSTS]
        return TransportSecuritySettings(
            allowed_hosts=[form for host in hosts for form in with_any_port(host)],
            allowed_origins=[form for origin in (*self.origins, *local) for form in with_any_port(origin)],
        )


def app(client: Client, asking: Client, names: Names, access: Access, timeout: float | None = None) -> Starlette:
    """Return the application.

    Args:
        client: A client of the service without its own credentials: each request carries those of its caller.
        asking: A client like ``client`` that doesn't retry, for checking whether the service accepts a caller.
        names: How tools are named.
        access: Who may reach it.
        timeout: Seconds that a tool may take; the client's own if not given.
    """
    bridge = Bridge(client, names, _caller, hold=_hold, remote=True, timeout=timeout)
    sessions = Sessions(bridge.server(), max_request_body_size=body.MAX_REQUEST_BYTES)
    endpoint = _Endpoint(
        sessions,
        TransportSecurityMiddleware(access.security),
        CallerCheck(asking, access.metadata_url, access.needs_credentials),
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with sessions.run():
            yield

    routes = [Route(PATH, endpoint)]
    if access.issuer:
        routes.append(Route(access.metadata_path, _described(access)))
    # Pages may read answers only where their origin is named.
    pages = Middleware(
        CORSMiddleware,
        allow_origins=[canonical(origin) for origin in access.origins],
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=["Mcp-Session-Id", "WWW-Authenticate"],
    )
    middleware = [Middleware(CanonicalTargets), *([pages] if access.origins else [])]
    made = Starlette(routes=routes, middleware=middleware, lifespan=lifespan)
    # It would send those who add a slash to the host that they name, which nobody has checked.
    made.router.redirect_slashes = False
    return made


async def serve(application: Starlette, listener: socket.socket, tls: tuple[str, str] | None) -> None:
    """Serve until a signal arrives; running calls then have ten seconds to finish.

    Args:
        application: The application.
        listener: Where it listens.
        tls: The files of the certificate and of its key; ``None`` without TLS.
    """
    # Below errors they log what anybody sends, such as a wrong Host, as often as it comes.
    for library in ("mcp", "uvicorn"):
        logging.getLogger(library).setLevel(logging.ERROR)
    connection = partial(Connection, tls=_tls_context(*tls) if tls else None, most=max_connections(), turns=Turns())
    config = uvicorn.Config(
        application,
        http=cast("Any", connection),
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        lifespan="on",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    await uvicorn.Server(config).serve(sockets=[listener])


def _tls_context(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except OSError:
        raise InvalidInput(
            "--listen-cert and --listen-key: must be a certificate and its private key, in PEM format."
        ) from None
    return context


class _Endpoint:
    """The endpoint: Host and Origin first, then the credentials, then MCP."""

    def __init__(self, sessions: Sessions, security: TransportSecurityMiddleware, check: CallerCheck) -> None:
        self._sessions = sessions
        self._security = security
        self._check = check
        self._large = Shares(body.MAX_BYTES, body.MAX_BYTES_OF_CALLER)
        self._turns = PacedTurns()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        caller = caller_of(request)
        refusal = await self._security.validate_request(request, is_post=request.method == "POST")
        refusal = refusal or await self._check.refusal(caller)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        # A session belongs to the credentials that began it: the SDK compares their users.
        scope["user"] = _user(caller)
        if request.method != "POST":
            # No events are kept that could be sent again, and the SDK would give no answer at all.
            scope["headers"] = [header for header in scope["headers"] if header[0] != b"last-event-id"]
            await self._sessions.handle_request(scope, receive, send)
            return
        with Hold(self._large, holder(caller), self._turns) as hold:
            scope[_HOLD] = hold
            try:
                receive = await _checked(receive, hold)
            except body.Refusal as refused:
                await refused.response(scope, receive, send)
                return
            await self._sessions.handle_request(scope, receive, send)


async def _checked(receive: Receive, hold: Hold) -> Receive:
    """Return a function that receives the request again.

    Raises:
        Refusal: It is too large.
    """
    again, content = await body.read(receive, hold)
    check_beginning(content)
    return again


def _user(caller: Metadata) -> AuthenticatedUser:
    return AuthenticatedUser(AccessToken(token="", client_id=digest(caller), subject=holder(caller), scopes=[]))


def _caller(context: Context) -> Metadata:
    assert context.request is not None
    return caller_of(context.request)


def _hold(context: Context) -> Hold:
    assert context.request is not None
    hold: Hold = context.request.scope[_HOLD]
    return hold


def _described(access: Access) -> Callable[[Request], JSONResponse]:
    """Return the endpoint of the protected resource's metadata (RFC 9728, 2)."""
    metadata = {
        "resource": access.resource,
        "resource_name": "Agenta AI services",
        "authorization_servers": [access.issuer],
        "bearer_methods_supported": ["header"],
    }

    def answer(_: Request) -> JSONResponse:
        return JSONResponse(metadata, headers={"Access-Control-Allow-Origin": "*", "Cache-Control": "max-age=3600"})

    return answer
