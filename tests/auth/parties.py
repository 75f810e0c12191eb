"""Everybody whom a service with authentication deals with: authorities, issuers, and callers of each kind."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from uuid import uuid4

import grpc
import grpc.aio
import jwt
from aiohttp import web
from calls import REFINE, details, refine, request, streamed
from conftest import settings_for
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from google.protobuf import json_format
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from agenta_ai.v1 import tool_service_pb2
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub
from agenta_ai_server.auth.key_file import create_key
from agenta_ai_server.commands import serve
from agenta_ai_server.domain.call import CURRENT_CALL
from agenta_ai_server.domain.outcome import ToolOutcome
from agenta_ai_server.domain.tool import ToolSpec
from agenta_ai_server.standin.permissions import Caller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.settings import Settings
    from agenta_ai_server.standin.app import StandIn

ISSUER = "https://issuer.example"
AUDIENCE = "agenta-ai"
ECHO = "tools.tests.api.echo"
WHOAMI = "tools.tests.api.whoami"
MISSING = "tools.tests.api.missing"

# All that must never be written anywhere; conftest.py looks for it after each test.
SECRETS: set[str] = set()

Metadata = tuple[tuple[str, str | bytes], ...]
Kind = tuple[StatusCode, str]


def secret(text: str) -> str:
    """``text``, which from now on may stand in no log."""
    SECRETS.add(text)
    return text


def authorization(*values: str, project: str = "") -> Metadata:
    shown: Metadata = tuple(("authorization", value) for value in values)
    return (*shown, ("x-agenta-project-id", project)) if project else shown


# Certificates


class Pair(NamedTuple):
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes


class Authority:
    """Issues certificates.

    Args:
        parent: Has issued its own certificate; ``None`` for a root.
        permitted: The only domain that it may issue certificates for; empty for all.
    """

    def __init__(self, parent: Authority | None = None, permitted: str = "") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority {uuid4()}")])
        certificate = (
            (parent or self)
            ._builder(self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0 if parent else 1), critical=True)
        )
        if permitted:
            subtrees = [x509.DNSName(permitted)]
            constraints = x509.NameConstraints(permitted_subtrees=subtrees, excluded_subtrees=None)
            certificate = certificate.add_extension(constraints, critical=True)
        signed = certificate.sign((parent or self)._key, hashes.SHA256())
        self.pem = signed.public_bytes(serialization.Encoding.PEM)
        self._chain = self.pem if parent else b""

    def issue(
        self,
        *names: x509.GeneralName,
        lifetime: timedelta = timedelta(days=1),
        begin: timedelta = timedelta(days=-2),
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
        key: CertificateIssuerPrivateKeyTypes | None = None,
    ) -> Pair:
        key = key or ec.generate_private_key(ec.SECP256R1())
        # A common name is no identity, whatever it says.
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "batch.internal")])
        builder = self._builder(subject, key, lifetime, begin).add_extension(
            x509.ExtendedKeyUsage([usage]), critical=False
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        form = serialization.PrivateFormat.PKCS8
        pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        for line in pem.decode().splitlines()[1:-1]:
            secret(line)
        certificate = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        return Pair(certificate + self._chain, pem)

    def server(self, **more: Any) -> Pair:
        """One of a server, by the other arguments of ``issue``."""
        return self.issue(x509.IPAddress(ip_address("127.0.0.1")), usage=ExtendedKeyUsageOID.SERVER_AUTH, **more)

    def _builder(
        self,
        subject: x509.Name,
        key: CertificateIssuerPrivateKeyTypes,
        lifetime: timedelta = timedelta(days=1),
        begin: timedelta = timedelta(days=-2),
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begin)
            .not_valid_after(now + lifetime)
        )


def uri(name: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(name)


def dns(name: str) -> x509.GeneralName:
    return x509.DNSName(name)


# Tokens


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Signs tokens, and publishes its keys over HTTP on loopback."""

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self.key = key
        self.fetches = 0
        self.url = ""
        self.jwks = json.dumps({"keys": [{**json.loads(_RS256.to_jwk(key.public_key())), "kid": "k1"}]}).encode()

    def token(self, *, header: dict[str, Any] | None = None, **changes: object) -> str:
        """A good token, except for the changes; ``...`` leaves a claim out."""
        header = {"alg": "RS256", "kid": "k1", "typ": "JWT"} | (header or {})
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "token-user",
            "organization_id": "token-organization",
            "exp": time.time() + 300,
            "permissions": ["edit_workflows"],
        } | changes
        kept = {name: value for name, value in claims.items() if value is not ...}
        text = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(kept).encode())}"
        signature = b64(self._sign(header["alg"], text.encode()))
        return f"{text}.{secret(signature) if signature else ''}"

    def bearer(self, **how: Any) -> Metadata:
        return authorization(f"Bearer {self.token(**how)}")

    def _sign(self, algorithm: str, text: bytes) -> bytes:
        if algorithm == "none":
            return b""
        if algorithm == "HS256":
            # The confusion: what is public serves as the secret.
            form = serialization.PublicFormat.SubjectPublicKeyInfo
            public = self.key.public_key().public_bytes(serialization.Encoding.PEM, form)
            return hmac.digest(public, text, hashlib.sha256)
        signer: Any = jwt.get_algorithm_by_name(algorithm)
        signature: bytes = signer.sign(text, self.key)
        return signature

    @asynccontextmanager
    async def published(self) -> AsyncIterator[None]:
        server = web.Server(self._handle, access_log=None)
        listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/jwks"
        try:
            yield
        finally:
            listener.close()
            await server.shutdown()

    async def _handle(self, _: web.BaseRequest) -> web.Response:
        self.fetches += 1
        return web.Response(body=self.jwks)


_RS256: Any = jwt.get_algorithm_by_name("RS256")


# The service


@dataclass
class Parties:
    """All of them, and the service between them."""

    folder: Path
    standin: StandIn
    issuer: Issuer
    authority: Authority
    server: Pair
    modes: frozenset[str] = frozenset()
    address: str = ""
    principals: list[dict[str, Any]] = field(default_factory=list)

    @property
    def keys(self) -> Path:
        return self.folder / "keys.json"

    @property
    def identities(self) -> Path:
        return self.folder / "identities.json"

    def key(self, *permissions: str, expires: datetime | None = None, user: str = "key-user") -> str:
        """A new API key."""
        key = create_key(
            self.keys, user=user, organization="key-organization", project="p", permissions=permissions, expires=expires
        )
        secret(key.rpartition("_")[2])
        return key

    def know(self, identity: str, *permissions: str) -> None:
        """Let who shows a certificate with this identity be known."""
        self.principals.append({"identity": identity, "user": identity, "permissions": permissions})
        self._write_principals()

    def forget(self) -> None:
        self.principals.clear()
        self._write_principals()

    def _write_principals(self) -> None:
        self.identities.write_text(json.dumps({"principals": self.principals}))

    def trust(self, credential: str, *actions: str) -> str:
        """Let Agenta know a credential."""
        secret(credential.partition(" ")[2])
        known = {**self.standin.permissions.callers, credential: Caller(actions=frozenset(actions))}
        self.standin.permissions.callers = known
        return credential

    def use(self, pair: Pair) -> None:
        """Put the server's certificate in its place."""
        self.server = pair
        (self.folder / "server.pem").write_bytes(pair.certificate)
        (self.folder / "server.key").write_bytes(pair.key)

    def environment(self, *modes: str, tls: bool = False) -> dict[str, str]:
        """The settings that these modes need."""
        settings = {"AGENTA_AI_GRPC_AUTH": ",".join(modes)}
        if "api_keys" in modes:
            settings["AGENTA_AI_GRPC_API_KEYS_FILE"] = str(self.keys)
        if "jwt" in modes:
            settings |= {
                "AGENTA_AI_GRPC_JWT_ISSUER": ISSUER,
                "AGENTA_AI_GRPC_JWT_AUDIENCE": AUDIENCE,
                "AGENTA_AI_GRPC_JWT_JWKS_URL": self.issuer.url,
            }
        if tls or "mtls" in modes:
            self.use(self.server)
            settings["AGENTA_AI_GRPC_TLS_CERT_FILE"] = str(self.folder / "server.pem")
            settings["AGENTA_AI_GRPC_TLS_KEY_FILE"] = str(self.folder / "server.key")
        if "agenta" in modes:
            settings["AGENTA_AI_GRPC_AGENTA_ALLOW"] = "*"
        if "mtls" in modes:
            self._write_principals()
            (self.folder / "ca.pem").write_bytes(self.authority.pem)
            settings["AGENTA_AI_GRPC_TLS_CLIENT_CA_FILE"] = str(self.folder / "ca.pem")
            settings["AGENTA_AI_GRPC_MTLS_PRINCIPALS_FILE"] = str(self.identities)
        return settings

    def settings(self, *modes: str, tls: bool = False, **overrides: str) -> Settings:
        return settings_for(self.standin, **(self.environment(*modes, tls=tls) | overrides))

    @asynccontextmanager
    async def serving(self, *modes: str, tls: bool = False, **overrides: str) -> AsyncIterator[None]:
        """Run a service with these modes."""
        async with serve.running(self.settings(*modes, tls=tls, **overrides)) as self.address:
            self.modes = frozenset(modes) | ({"tls"} if tls else set())
            yield

    def channel(self, pair: Pair | None = None) -> grpc.aio.Channel:
        """A new connection to it, never one that is there already."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_metadata_size", 1 << 20)]
        if not self.modes & {"mtls", "tls"}:
            return grpc.aio.insecure_channel(self.address, options)
        shown = (pair.key, pair.certificate) if pair else (None, None)
        credentials = grpc.ssl_channel_credentials(self.authority.pem, *shown)
        return grpc.aio.secure_channel(self.address, credentials, options)

    async def ask(self, metadata: Metadata = (), pair: Pair | None = None) -> dict[str, Outcome]:
        """Make every call that there is, with these credentials."""
        async with self.channel(pair) as channel:
            return {rpc: await _outcome(rpc, channel, metadata) for rpc in RPCS}

    async def call(
        self, metadata: Metadata = (), pair: Pair | None = None, *, rpc: str = "CallTool", name: str = REFINE
    ) -> Outcome:
        """Make one of them."""
        async with self.channel(pair) as channel:
            return await _outcome(rpc, channel, metadata, name)

    async def whoami(self, metadata: Metadata = (), pair: Pair | None = None) -> dict[str, Any]:
        """Who the tool takes the caller for."""
        return (await self.call(metadata, pair, name=WHOAMI)).answer


# What comes back

CALLS = ("CallTool", "CallToolStream")
RPCS = ("Status", "ListTools", *CALLS, "Health", "Reflection")


@dataclass(frozen=True)
class Outcome:
    """How a call ended, and all that the caller could read of it but the call's own id."""

    code: StatusCode
    reason: str = ""
    text: str = ""
    details: dict[str, Any] = field(default_factory=dict)
    metadata: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    answer: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> Kind:
        return self.code, self.reason

    @property
    def tools(self) -> set[str]:
        """The tools that a Status or a list names."""
        return {tool.get("tool", tool)["name"] for tool in self.answer.get("tools", ())}

    @property
    def everything(self) -> str:
        return repr((self.text, self.details, self.metadata, self.answer))


OK = StatusCode.OK, ""
INVALID = StatusCode.UNAUTHENTICATED, "CREDENTIALS_INVALID"
EXPIRED = StatusCode.UNAUTHENTICATED, "CREDENTIALS_EXPIRED"
DENIED = StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"
NOT_FOUND = StatusCode.NOT_FOUND, "TOOL_NOT_FOUND"
UNAVAILABLE = StatusCode.UNAVAILABLE, "AUTHORITY_UNAVAILABLE"
DISABLED = StatusCode.UNAVAILABLE, "SERVICE_DISABLED"
# There was no connection, and so nobody who could give a reason.
NO_CONNECTION = StatusCode.UNAVAILABLE, ""


async def _outcome(rpc: str, channel: grpc.aio.Channel, metadata: Metadata, name: str = REFINE) -> Outcome:
    try:
        if rpc == "Reflection":
            return await _reflected(channel, metadata)
        answer = await _unary(rpc, channel, metadata, name)
    except grpc.aio.AioRpcError as error:
        if rpc == "Reflection" and error.code() is StatusCode.INTERNAL:
            # What grpcio's client says where the stream has ended before its own request was written.
            return await _outcome(rpc, channel, metadata, name)
        found = details(error)
        found.pop("RequestInfo", None)
        reason = found.get("ErrorInfo", {}).get("reason", "").removeprefix("ERROR_REASON_")
        return Outcome(error.code(), reason, str(error.details()), found, (_sent(error, 0), _sent(error, 1)))
    return Outcome(StatusCode.OK, answer=answer)


async def _unary(rpc: str, channel: grpc.aio.Channel, metadata: Metadata, name: str) -> dict[str, Any]:
    stub: Any = ToolServiceStub(channel)
    health: Any = health_pb2_grpc.HealthStub(channel)
    method, sent = {
        "Status": (stub.Status, tool_service_pb2.StatusRequest()),
        "ListTools": (stub.ListTools, tool_service_pb2.ListToolsRequest()),
        "CallTool": (stub.CallTool, refine() if name == REFINE else request({}, name=name)),
        "CallToolStream": (partial(_last, stub), refine() if name == REFINE else request({}, name=name)),
        "Health": (health.Check, health_pb2.HealthCheckRequest()),
    }[rpc]
    answer = await method(sent, metadata=metadata, timeout=20)
    if rpc not in CALLS:
        return json_format.MessageToDict(answer)
    assert not answer.is_error, answer.content[0].text
    found: dict[str, Any] = json_format.MessageToDict(answer.structured_content)
    return found


async def _last(stub: Any, asked: tool_service_pb2.CallToolRequest, **options: Any) -> Any:
    return (await streamed(stub, asked, **options))[1]


async def _reflected(channel: grpc.aio.Channel, metadata: Metadata) -> Outcome:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", channel))
    requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    answers = stub.ServerReflectionInfo(requests, metadata=metadata, timeout=20)
    (answer,) = [answer async for answer in answers]
    return Outcome(StatusCode.OK, answer=json_format.MessageToDict(answer))


def _sent(error: grpc.aio.AioRpcError, at: int) -> dict[str, Any]:
    """What came as metadata, without the details, which hold the call's id and are looked at by themselves."""
    metadata: Iterable[tuple[str, Any]] = (error.initial_metadata() if at == 0 else error.trailing_metadata()) or ()
    return {key: value for key, value in metadata if key != "grpc-status-details-bin"}


# A tool that says who it takes the caller for


async def _whoami(call: ToolCall) -> ToolOutcome:
    caller, rpc = call.caller, CURRENT_CALL.get()
    found: dict[str, Any] = {
        "user": caller.user,
        "project": caller.project,
        "workspace": caller.workspace,
        "organization": caller.organization,
        "plan": caller.plan,
        "permissions": sorted(caller.permissions or ()),
        "method": caller.method,
        "peer": rpc.peer if rpc else "",
    }
    return ToolOutcome(text="", structured=found)


def whoami_tool(permission: str = "edit_workflows") -> ToolSpec:
    return ToolSpec(
        name=WHOAMI,
        title="Who am I",
        description="Names the caller.",
        permission=permission,
        input_schema={"type": "object"},
        output_schema={},
        run=_whoami,
    )


def fingerprints(outcomes: Iterable[Outcome]) -> Collection[str]:
    """How many different things a caller could read out of these refusals."""
    return {repr((outcome.kind, outcome.everything)) for outcome in outcomes}
