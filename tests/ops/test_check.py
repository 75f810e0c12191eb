"""The command ``agenta-ai-server check``: each fault that is planted is found, and its remedy named."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import ssl
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trustme
from addresses import free_address
from aiohttp import web
from auth.parties import AUDIENCE, ISSUER, Issuer
from conftest import settings_for
from cryptography.hazmat.primitives.asymmetric import rsa
from ops.test_process import output, process
from redis_server import RedisServer

from agenta_ai_server.auth.key_file import create_key, list_keys, revoke_key
from agenta_ai_server.checks.redis import ACL, COMMANDS
from agenta_ai_server.commands import check, serve
from agenta_ai_server.settings import SettingsError
from agenta_ai_server.standin.app import StandIn
from agenta_ai_server.standin.permissions import Caller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from agenta_ai_server.commands.check import Finding

KEY = "goodpref.0123456789abcdef"
REDIS_PASSWORD = "redis-s3cret"
LIMITS = "burst = 10\nper_minute = 30\n"


@dataclass
class Web:
    """Somebody on loopback who answers every request in the same way."""

    url: str = ""
    status: int = 200
    body: str = "{}"
    location: str = ""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Web]:
        server = web.Server(self._answer, access_log=None)
        listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            listener.close()
            await server.shutdown()

    async def _answer(self, _: web.BaseRequest) -> web.Response:
        return web.Response(status=self.status, text=self.body, headers={"location": self.location})


@dataclass
class Setup:
    """A set-up in which all is fine, until something is planted.

    Attributes:
        other: Somebody who is none of those whom the service knows.
    """

    folder: Path
    standin: StandIn
    issuer: Issuer
    collector: Web
    other: Web
    authority: trustme.CA
    environment: dict[str, str]
    patch: pytest.MonkeyPatch

    def write(self, name: str, content: str | bytes) -> None:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def certificate(self, *, begin: float = -90, days: float = 90) -> None:
        now = datetime.now(UTC)
        issued = self.authority.issue_cert(
            "127.0.0.1", not_before=now + timedelta(days=begin), not_after=now + timedelta(days=days)
        )
        self.write("server.pem", b"".join(each.bytes() for each in issued.cert_chain_pems))
        self.write("server.key", issued.private_key_pem.bytes())

    async def findings(self, *, call: bool = False) -> list[Finding]:
        return await check.run(self.environment, call=call)


@pytest.fixture(scope="session")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
async def setup(tmp_path: Path, rsa_key: rsa.RSAPrivateKey, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Setup]:
    async with AsyncExitStack() as stack:
        standin = await stack.enter_async_context(StandIn(api_key=KEY))
        issuer = Issuer(rsa_key)
        await stack.enter_async_context(issuer.published())
        collector = await stack.enter_async_context(Web(status=405).serving())
        other = await stack.enter_async_context(Web().serving())
        made = Setup(tmp_path, standin, issuer, collector, other, trustme.CA(), {}, monkeypatch)
        made.certificate()
        made.write("ca.pem", made.authority.cert_pem.bytes())
        made.write("limits.toml", LIMITS)
        made.write("principals.json", json.dumps({"principals": [{"identity": "batch.internal", "user": "batch"}]}))
        made.write("agenta-key", KEY)
        create_key(tmp_path / "keys.json", user="u", organization="o", project="p", expires=None)
        made.environment = {
            "AGENTA_AI_SERVICES_API_URL": standin.url,
            "AGENTA_AI_SERVICES_API_KEY_FILE": str(tmp_path / "agenta-key"),
            "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG": "production",
            "AGENTA_AI_SERVICES_REFINE_PROMPT_KEY": "ai-refine",
            "AGENTA_AI_GRPC_LISTEN": free_address(),
            "AGENTA_AI_GRPC_METRICS_LISTEN": free_address(),
            "AGENTA_AI_GRPC_AUTH": "api_keys,jwt,mtls",
            "AGENTA_AI_GRPC_API_KEYS_FILE": str(tmp_path / "keys.json"),
            "AGENTA_AI_GRPC_MTLS_PRINCIPALS_FILE": str(tmp_path / "principals.json"),
            "AGENTA_AI_GRPC_TLS_CERT_FILE": str(tmp_path / "server.pem"),
            "AGENTA_AI_GRPC_TLS_KEY_FILE": str(tmp_path / "server.key"),
            "AGENTA_AI_GRPC_TLS_CLIENT_CA_FILE": str(tmp_path / "ca.pem"),
            "AGENTA_AI_GRPC_JWT_ISSUER": ISSUER,
            "AGENTA_AI_GRPC_JWT_AUDIENCE": AUDIENCE,
            "AGENTA_AI_GRPC_JWT_JWKS_URL": issuer.url,
            "AGENTA_AI_GRPC_LIMITS_FILE": str(tmp_path / "limits.toml"),
            "AGENTA_AI_GRPC_MAX_IN_FLIGHT": "10",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        }
        yield made


def wrong(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.state != "ok"]


async def test_a_healthy_set_up_is_fine(setup: Setup) -> None:
    findings = await setup.findings(call=True)
    assert wrong(findings) == []
    asked = {"settings", *check.PROBES, "refinement"} - {"Redis", "tool prompts"}
    assert {finding.part for finding in findings} == asked
    assert setup.standin.finished == 1


async def test_nothing_is_paid_for_unless_it_is_asked_for(setup: Setup) -> None:
    await setup.findings()
    assert setup.standin.started == 0


# Faults

Plant: TypeAlias = "Callable[[Setup], dict[str, str] | None]"


def revoked(setup: Setup) -> None:
    path = setup.folder / "keys.json"
    revoke_key(path, list_keys(path)[0].id)


def mismatched(setup: Setup) -> None:
    setup.write("server.key", setup.authority.issue_cert("127.0.0.1").private_key_pem.bytes())


def unknown_agenta_key(setup: Setup) -> None:
    setup.write("agenta-key", "unknown0.0123456789abcdef")


def powerless_agenta_key(setup: Setup) -> None:
    setup.standin.permissions.callers = {f"ApiKey {KEY}": Caller(actions=frozenset())}


def unknown_host(setup: Setup) -> dict[str, str]:
    resolve = socket.getaddrinfo

    def resolved(host: Any, *args: Any, **options: Any) -> Any:
        # Without asking a name server, which may be slow or not there.
        if host == "agenta.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *args, **options)

    setup.patch.setattr(socket, "getaddrinfo", resolved)
    return {"AGENTA_AI_SERVICES_API_URL": "http://agenta.invalid"}


def agenta_answers(status: int, body: str = "{}", location: str = "") -> Plant:
    def plant(setup: Setup) -> dict[str, str]:
        setup.other.status, setup.other.body, setup.other.location = status, body, location
        return {"AGENTA_AI_SERVICES_API_URL": setup.other.url}

    return plant


def issuer_answers(jwks: str) -> Plant:
    def plant(setup: Setup) -> None:
        setup.issuer.jwks = jwks.encode()

    return plant


def collector_answers(status: int) -> Plant:
    def plant(setup: Setup) -> None:
        setup.collector.status = status

    return plant


def writes(name: str, content: str) -> Plant:
    return lambda setup: setup.write(name, content)


def sets(**settings: str) -> Plant:
    return lambda _: settings


def taken(name: str) -> Plant:
    return lambda setup: {name: setup.other.url.removeprefix("http://")}


CLOSED = "127.0.0.1:9"


def makes_ids_file(content: bytes, mode: int = 0o600) -> Plant:
    def plant(setup: Setup) -> dict[str, str]:
        path = setup.folder / "ids.db"
        path.write_bytes(content)
        path.chmod(mode)
        return {"AGENTA_AI_GRPC_IDEMPOTENCY_FILE": str(path)}

    return plant


def makes_tools_file(content: str) -> Plant:
    def plant(setup: Setup) -> dict[str, str]:
        setup.write("tools.toml", content)
        return {"AGENTA_AI_GRPC_TOOLS_FILE": str(setup.folder / "tools.toml")}

    return plant


FAULTS: dict[str, tuple[Plant, str, str, str]] = {
    "wrong value": (sets(AGENTA_AI_GRPC_RETRIES="many"), "settings", "failed", "AGENTA_AI_GRPC_RETRIES"),
    "contradiction": (sets(AGENTA_AI_GRPC_AUTH="none,jwt"), "settings", "failed", "AGENTA_AI_GRPC_AUTH"),
    "named database": (sets(AGENTA_AI_GRPC_REDIS_URL="redis://h/x"), "settings", "failed", "AGENTA_AI_GRPC_REDIS_URL"),
    "misspelt name": (sets(AGENTA_AI_GRPC_RETRYS="1"), "settings", "warning", "did you mean AGENTA_AI_GRPC_RETRIES?"),
    "no file of the key": (
        lambda setup: (setup.folder / "agenta-key").unlink(),
        "settings",
        "failed",
        "AGENTA_AI_SERVICES_API_KEY_FILE",
    ),
    "disabled": (
        sets(AGENTA_AI_SERVICES_REFINE_PROMPT_KEY=""),
        "tools",
        "failed",
        "Set AGENTA_AI_SERVICES_REFINE_PROMPT_KEY",
    ),
    "no such tool": (sets(AGENTA_AI_GRPC_DISABLED_TOOLS="x"), "tools", "failed", "AGENTA_AI_GRPC_DISABLED_TOOLS"),
    "all tools off": (
        sets(AGENTA_AI_GRPC_DISABLED_TOOLS="tools.agenta.api.refine_prompt"),
        "tools",
        "warning",
        "AGENTA_AI_GRPC_DISABLED_TOOLS",
    ),
    "broken tools file": (
        makes_tools_file('[tools."tools.a.b.c"]\nx = 1\n'),
        "tools",
        "failed",
        "Correct AGENTA_AI_GRPC_TOOLS_FILE",
    ),
    "no keys": (lambda setup: (setup.folder / "keys.json").unlink(), "API keys", "warning", "Restore it"),
    "open keys": (lambda setup: (setup.folder / "keys.json").chmod(0o644), "API keys", "warning", "chmod 600"),
    "broken keys": (writes("keys.json", "{"), "API keys", "failed", "Restore AGENTA_AI_GRPC_API_KEYS_FILE"),
    "no valid key": (revoked, "API keys", "warning", "keys create"),
    "folder of keys": (
        sets(AGENTA_AI_GRPC_API_KEYS_FILE="/none/keys.json"),
        "API keys",
        "failed",
        "Make /none writable",
    ),
    "broken principals": (
        writes("principals.json", "[]"),
        "principals",
        "failed",
        "AGENTA_AI_GRPC_MTLS_PRINCIPALS_FILE",
    ),
    "no principals": (writes("principals.json", '{"principals": []}'), "principals", "warning", "Add principals"),
    "misspelt limit": (writes("limits.toml", "brust = 3"), "limits", "failed", "AGENTA_AI_GRPC_LIMITS_FILE"),
    "limit of no tool": (
        writes("limits.toml", '[tools."tools.agenta.api.nothing"]\nburst = 1\nper_minute = 1'),
        "limits",
        "failed",
        "AGENTA_AI_GRPC_LIMITS_FILE",
    ),
    "mismatched pair": (mismatched, "certificates", "failed", "AGENTA_AI_GRPC_TLS_CERT_FILE"),
    "expired": (lambda setup: setup.certificate(days=-1), "certificates", "failed", "that belongs to it"),
    "not yet valid": (lambda setup: setup.certificate(begin=1), "certificates", "failed", "check the clock"),
    "expires soon": (lambda setup: setup.certificate(days=13), "certificates", "warning", "Renew it"),
    "no authority": (writes("ca.pem", "garbage"), "certificates", "failed", "PEM form"),
    "taken": (taken("AGENTA_AI_GRPC_LISTEN"), "address", "failed", "ss -ltnp"),
    "not ours": (sets(AGENTA_AI_GRPC_LISTEN="192.0.2.1:50051"), "address", "failed", "an address of this machine"),
    "no folder": (sets(AGENTA_AI_GRPC_LISTEN="unix:/none/socket"), "address", "failed", "Create the folder, or set"),
    "metrics taken": (taken("AGENTA_AI_GRPC_METRICS_LISTEN"), "metrics", "failed", "Stop it, or set another port"),
    "no issuer": (
        sets(AGENTA_AI_GRPC_JWT_JWKS_URL=f"http://{CLOSED}/jwks"),
        "token keys",
        "failed",
        "Check that it is running and reachable from here, or correct AGENTA_AI_GRPC_JWT_JWKS_URL.",
    ),
    "no URL of the issuer": (
        sets(AGENTA_AI_GRPC_JWT_JWKS_URL="issuer.example"),
        "token keys",
        "failed",
        "Correct AGENTA_AI_GRPC_JWT_JWKS_URL.",
    ),
    "no file of the issuer's keys": (
        sets(AGENTA_AI_GRPC_JWT_JWKS_URL="", AGENTA_AI_GRPC_JWT_JWKS_FILE="/none/jwks.json"),
        "token keys",
        "failed",
        "Correct AGENTA_AI_GRPC_JWT_JWKS_FILE.",
    ),
    "no key set": (issuer_answers("<html>"), "token keys", "failed", "AGENTA_AI_GRPC_JWT_JWKS_URL"),
    "Agenta down": (
        sets(AGENTA_AI_SERVICES_API_URL=f"http://{CLOSED}"),
        "Agenta",
        "failed",
        "Check that it is running",
    ),
    "Agenta's name": (unknown_host, "Agenta", "failed", "the host in"),
    "Agenta without TLS": (
        lambda setup: {"AGENTA_AI_SERVICES_API_URL": setup.standin.url.replace("http:", "https:")},
        "Agenta",
        "failed",
        "AGENTA_AI_GRPC_UPSTREAM_CA_FILE",
    ),
    "Agenta redirects": (agenta_answers(308, location="https://x.example"), "Agenta", "failed", "https://"),
    "Agenta fails": (agenta_answers(502), "Agenta", "failed", "the logs of Agenta"),
    "Agenta elsewhere": (agenta_answers(404), "Agenta", "failed", "Correct the path"),
    "not Agenta": (agenta_answers(200, "<html>Log in</html>"), "Agenta", "failed", "address of Agenta's API"),
    "proxy": (sets(AGENTA_AI_GRPC_UPSTREAM_PROXY=f"http://me:s3cret@{CLOSED}"), "Agenta", "failed", "UPSTREAM_PROXY"),
    "unknown key": (unknown_agenta_key, "Agenta key", "failed", "Create a key in Agenta"),
    "powerless key": (powerless_agenta_key, "Agenta key", "failed", "a role that may"),
    "no collector": (
        sets(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{CLOSED}"),
        "traces",
        "failed",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ),
    "not a collector": (collector_answers(404), "traces", "failed", "port 4318"),
    "file of something else": (
        makes_ids_file(b"not a database " * 100),
        "request ids",
        "failed",
        "Set another path",
    ),
    "open file of ids": (makes_ids_file(b"", mode=0o644), "request ids", "warning", "chmod 600"),
    "no folder for ids": (
        sets(AGENTA_AI_GRPC_IDEMPOTENCY_FILE="/none/ids.db"),
        "request ids",
        "failed",
        "Create /none",
    ),
    "no keys of results": (
        sets(AGENTA_AI_GRPC_RESULT_STORAGE="encrypted", AGENTA_AI_GRPC_RESULT_KEYS_FILE="/none/keys"),
        "request ids",
        "failed",
        "Correct AGENTA_AI_GRPC_RESULT_KEYS_FILE.",
    ),
    "shared port alone": (
        sets(AGENTA_AI_GRPC_REUSE_PORT="true"),
        "Redis",
        "warning",
        "AGENTA_AI_GRPC_REDIS_URL",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_planted_fault_is_found_and_its_remedy_named(fault: str, setup: Setup) -> None:
    plant, part, state, remedy = FAULTS[fault]
    setup.environment |= plant(setup) or {}
    findings = await setup.findings()
    found = [finding for finding in wrong(findings) if finding.part == part]
    assert [finding.state for finding in found] == [state], findings
    assert remedy in f"{found[0].said} {found[0].remedy}"
    # Nothing else is said to be wrong but for what the fault itself breaks.
    broken = {part, "the rest"} | ({"Agenta key", "prompt"} if part.startswith("Agenta") else set())
    assert {finding.part for finding in wrong(findings)} <= broken
    text = check.table(findings, 100)
    assert text.endswith(
        f"\n{sum(finding.part in broken - {'the rest'} for finding in wrong(findings))} to be looked at."
    )
    assert all(secret not in text for secret in (KEY, "unknown0.", "s3cret"))
    assert ".." not in text


async def test_too_few_files(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 512))
    (found,) = wrong(await setup.findings())
    assert (found.part, found.said) == ("open files", "The limit is 512, and up to 530 may be needed.")
    assert "ulimit -Hn" in found.remedy


@pytest.mark.parametrize(
    ("name", "days", "is_known", "said"),
    [
        ("127.0.0.1", -1, True, "certificate has expired"),
        ("agenta.example", 1, True, "certificate is not valid for '127.0.0.1'"),
        ("127.0.0.1", 1, False, "unable to get local issuer certificate"),
    ],
)
async def test_what_is_wrong_with_agentas_certificate(
    name: str, days: int, is_known: bool, said: str, setup: Setup
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    setup.authority.issue_cert(name, not_after=datetime.now(UTC) + timedelta(days=days)).configure_cert(tls)
    trusted = setup.authority if is_known else trustme.CA()
    trusted.cert_pem.write_to_path(setup.folder / "agenta-ca.pem")
    setup.environment["AGENTA_AI_GRPC_UPSTREAM_CA_FILE"] = str(setup.folder / "agenta-ca.pem")
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=tls)
    async with server:
        port = server.sockets[0].getsockname()[1]
        setup.environment["AGENTA_AI_SERVICES_API_URL"] = f"https://127.0.0.1:{port}"
        found = {finding.part: finding for finding in wrong(await setup.findings())}
    assert said in found["Agenta"].said
    assert "Renew it if it has expired" in found["Agenta"].remedy


async def test_a_part_that_hangs_keeps_nobody_waiting(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(_: object) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield

    async def break_down(_: object) -> AsyncIterator[Any]:
        raise RuntimeError("s3cret")
        yield

    monkeypatch.setattr(check, "MAX_SECONDS", 0.05)
    monkeypatch.setattr(check, "PROBES", {"hanging": hang, "broken": break_down})
    found = wrong(await setup.findings())
    assert [finding.part for finding in found] == ["hanging", "broken"]
    assert "RuntimeError" in found[1].said
    assert "s3cret" not in str(found)


# A server that runs already


@pytest.mark.parametrize("has_tls", [False, True])
async def test_the_addresses_of_a_running_server_are_fine(has_tls: bool, setup: Setup) -> None:
    if not has_tls:
        for name in ("TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_CLIENT_CA_FILE"):
            setup.environment[f"AGENTA_AI_GRPC_{name}"] = ""
        setup.environment["AGENTA_AI_GRPC_AUTH"] = "api_keys"
    own = {name: value for name, value in setup.environment.items() if not name.startswith("OTEL_")}
    async with serve.running(settings_for(setup.standin, **own, AGENTA_AI_SERVICES_API_KEY="")):
        findings = await setup.findings()
    assert wrong(findings) == []
    told = {finding.part: finding.said for finding in findings}
    assert told["address"].endswith("is served by a running agenta-ai-server.")
    assert told["metrics"].endswith("is served by a running agenta-ai-server.")


@pytest.mark.parametrize("break_down", [lambda path: path.unlink(), lambda path: path.write_bytes(b"\xff")])
async def test_a_running_server_whose_certificate_broke_isnt_called_a_stranger(
    break_down: Callable[[Path], object], setup: Setup
) -> None:
    own = {name: value for name, value in setup.environment.items() if not name.startswith("OTEL_")}
    async with serve.running(settings_for(setup.standin, **own, AGENTA_AI_SERVICES_API_KEY="")):
        break_down(Path(setup.environment["AGENTA_AI_GRPC_TLS_CERT_FILE"]))
        found = {finding.part: finding for finding in wrong(await setup.findings())}
    assert sorted(found) == ["address", "certificates"]
    assert "an agenta-ai-server with an older certificate, leave it" in found["address"].remedy


# No IPv4 loopback, and somebody listens on all addresses of IPv4. Then: the command.
ONLY_IPV6 = """
import socket, subprocess, sys
for command in ("ip link set lo up", "ip addr del 127.0.0.1/8 dev lo"):
    subprocess.run(command.split(), check=True)
taken = socket.create_server(("0.0.0.0", 50551))
sys.exit(subprocess.run(sys.argv[1:]).returncode)
"""
NETWORK_OF_ITS_OWN = ["unshare", "--map-root-user", "--net"]


def may_unshare() -> bool:
    try:
        return subprocess.run([*NETWORK_OF_ITS_OWN, "ip", "link"], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not may_unshare(), reason="needs the permission to make a network namespace: unshare -rn")
def test_nobody_is_blamed_for_an_address_that_this_machine_has_no_way_to() -> None:
    program = "import sys; from agenta_ai_server.cli import main; sys.exit(main())"
    settings = {"AGENTA_AI_GRPC_LISTEN": "0.0.0.0:50551", "AGENTA_AI_GRPC_AUTH": "none"}
    done = subprocess.run(
        [*NETWORK_OF_ITS_OWN, sys.executable, "-c", ONLY_IPV6, sys.executable, "-c", program, "check", "--json"],
        env={**os.environ, **settings, "AGENTA_AI_GRPC_ALLOW_NO_AUTH": "true"}, capture_output=True, text=True,
    )  # fmt: skip
    [address] = [found for found in json.loads(done.stdout)["findings"] if found["part"] == "address"]
    assert address["state"] == "warning"
    assert "is in use, but can't be reached" in address["said"]


# Redis


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path, "--appendonly", "yes")
    server.start()
    yield server
    server.kill()


def evicting(redis: RedisServer) -> str:
    redis.do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    return redis.url


def forgetful(redis: RedisServer) -> str:
    redis.do("CONFIG", "SET", "appendonly", "no")
    return redis.url


def full(redis: RedisServer) -> str:
    redis.do("CONFIG", "SET", "maxmemory", "1")
    return redis.url


def read_only(redis: RedisServer) -> str:
    redis.do("REPLICAOF", "127.0.0.1", "9")
    return redis.url


def with_password(redis: RedisServer) -> str:
    redis.do("ACL", "SETUSER", "other", "on", f">{REDIS_PASSWORD}", "~*", "+@all")
    return redis.url.replace("://", f"://other:wrong-{REDIS_PASSWORD}@")


def without_scripts(redis: RedisServer) -> str:
    redis.do("ACL", "SETUSER", "other", "on", f">{REDIS_PASSWORD}", "~*", "+ping", "+get", "+set")
    return redis.url.replace("://", f"://other:{REDIS_PASSWORD}@")


def without_our_names(redis: RedisServer) -> str:
    redis.do("ACL", "SETUSER", "other", "on", f">{REDIS_PASSWORD}", "~theirs:*", "+@all")
    return redis.url.replace("://", f"://other:{REDIS_PASSWORD}@")


def without_so_many_databases(redis: RedisServer) -> str:
    return redis.url.replace("/0", "/99")


def without_its_socket(redis: RedisServer) -> str:
    return "unix:///none/redis"


def down(redis: RedisServer) -> str:
    redis.kill()
    return redis.url


def frozen(redis: RedisServer) -> str:
    redis.freeze()
    return redis.url


REDIS_FAULTS: dict[Callable[[RedisServer], str], tuple[str, str]] = {
    evicting: ("warning", "noeviction"),
    forgetful: ("warning", "appendonly to yes"),
    full: ("failed", "maxmemory"),
    read_only: ("failed", "the primary"),
    with_password: ("failed", "Correct them in AGENTA_AI_GRPC_REDIS_URL"),
    without_scripts: ("failed", "ACL SETUSER"),
    without_our_names: ("failed", "~agenta-ai:*"),
    without_so_many_databases: ("failed", "Correct the number"),
    without_its_socket: ("failed", "if it is Redis's socket"),
    down: ("failed", "Check that it is running"),
    frozen: ("failed", "Check that it is running"),
}


@pytest.mark.needs("redis-server")
@pytest.mark.parametrize("plant", REDIS_FAULTS, ids=lambda plant: plant.__name__)
async def test_what_is_wrong_with_redis(
    plant: Callable[[RedisServer], str], setup: Setup, redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if plant is frozen:
        monkeypatch.setattr("agenta_ai_server.checks.redis.SECONDS", 0.1)
    state, remedy = REDIS_FAULTS[plant]
    setup.environment["AGENTA_AI_GRPC_REDIS_URL"] = plant(redis)
    (found,) = wrong(await setup.findings())
    assert (found.part, found.state) == ("Redis", state)
    assert remedy in found.remedy
    assert REDIS_PASSWORD not in str(found)


@pytest.mark.needs("redis-server")
async def test_a_user_with_exactly_the_permissions_that_are_recommended(setup: Setup, redis: RedisServer) -> None:
    redis.do(*ACL.replace("PASSWORD", REDIS_PASSWORD).split())
    redis.do("CONFIG", "RESETSTAT")
    setup.environment["AGENTA_AI_GRPC_REDIS_URL"] = redis.url.replace("://", f"://agenta-ai:{REDIS_PASSWORD}@")
    assert wrong(await setup.findings()) == []
    used = {name.removeprefix("cmdstat_") for name in redis.do("INFO", "commandstats")}
    # The first one that isn't known by its digest needs EVAL, and a database other than 0 needs SELECT.
    assert set(COMMANDS) - used <= {"evalsha", "eval", "select"}


@pytest.mark.needs("redis-server")
async def test_a_good_redis(setup: Setup, redis: RedisServer) -> None:
    setup.environment["AGENTA_AI_GRPC_REDIS_URL"] = redis.url
    findings = await setup.findings()
    assert wrong(findings) == []
    assert any(finding.part == "Redis" for finding in findings)


@pytest.mark.parametrize(
    ("query", "remedy"),
    [
        ("", "add ?ssl_ca_certs=FILE to AGENTA_AI_GRPC_REDIS_URL"),
        ("?ssl_ca_certs=/none/ca.pem", "Correct the path in AGENTA_AI_GRPC_REDIS_URL"),
    ],
)
async def test_what_is_wrong_with_the_certificate_of_redis(query: str, remedy: str, setup: Setup) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    setup.authority.issue_cert("127.0.0.1").configure_cert(tls)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=tls)
    async with server:
        port = server.sockets[0].getsockname()[1]
        setup.environment["AGENTA_AI_GRPC_REDIS_URL"] = f"rediss://:{REDIS_PASSWORD}@127.0.0.1:{port}/0{query}"
        (found,) = wrong(await setup.findings())
    assert (found.part, found.state) == ("Redis", "failed")
    assert remedy in found.remedy
    assert REDIS_PASSWORD not in str(found)


@pytest.mark.parametrize("query", ["x=5", "decode_responses=True"])
async def test_a_parameter_that_isnt_supported(query: str, setup: Setup) -> None:
    setup.environment["AGENTA_AI_GRPC_REDIS_URL"] = f"redis://:{REDIS_PASSWORD}@host/0?{query}"
    found = wrong(await setup.findings())[0]
    assert (found.part, found.state) == ("settings", "failed")
    assert f"the parameter {query.partition('=')[0]}" in found.said
    assert REDIS_PASSWORD not in str(found)


async def test_what_is_not_installed(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "agenta_ai_server.redis.client", raising=False)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    setup.environment["AGENTA_AI_GRPC_REDIS_URL"] = "redis://host"
    (found,) = wrong(await setup.findings())
    assert found.remedy == "Install the extra 'redis': in a clone, pip install '.[redis]'."


async def test_serve_says_so_too(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "agenta_ai_server.redis.client", raising=False)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    with pytest.raises(SettingsError) as told:
        async with serve.running(settings_for(setup.standin, AGENTA_AI_GRPC_REDIS_URL="redis://host")):
            pass
    needed = "needs redis.asyncio. Install the extra 'redis': in a clone, pip install '.[redis]'."
    assert told.value.faults == [f"AGENTA_AI_GRPC_REDIS_URL: {needed}"]


# The program


def whole(setup: Setup) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTA_AI_", "OTEL_"))}
    return kept | setup.environment | {"COLUMNS": "80"}


async def test_the_program_prints_a_table(setup: Setup) -> None:
    async with process("check", "--call", **whole(setup)) as started:
        code, out, err = await output(started)
    assert (code, err) == (0, ""), out
    assert out.splitlines()[-1] == "All is fine."
    (setup.folder / "keys.json").chmod(0o644)
    async with process("check", **whole(setup)) as started:
        code, out, err = await output(started)
    assert (code, err) == (1, "")
    assert f"→ chmod 600 {setup.folder}/keys.json" in " ".join(out.split())
    assert out.splitlines()[-1] == "1 to be looked at."
    assert KEY not in out


async def test_the_program_prints_json(setup: Setup) -> None:
    unknown_agenta_key(setup)
    async with process("check", "--json", **whole(setup)) as started:
        code, out, err = await output(started)
    assert (code, err) == (1, "")
    told = json.loads(out)
    assert told["ok"] is False
    assert {"part": "Agenta key", "state": "failed"}.items() <= next(
        finding for finding in told["findings"] if finding["state"] != "ok"
    ).items()
    assert "unknown0" not in out
