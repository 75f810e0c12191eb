"""What the command ``check`` asks each part of the set-up. A part that isn't set up says nothing.

No sentence here holds a secret, nor the text of somebody else's error, which may.
"""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import os
import resource
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

from cryptography import x509

from agenta_ai_server.assembly import agenta_config
from agenta_ai_server.auth.agenta import check_url
from agenta_ai_server.auth.http import Answer, HttpClient, Unanswered, http_url
from agenta_ai_server.auth.jwks import KeySet
from agenta_ai_server.auth.key_file import list_keys
from agenta_ai_server.auth.mtls import IdentityFile
from agenta_ai_server.auth.records import parse
from agenta_ai_server.auth.token import json_object
from agenta_ai_server.domain.agenta_url import root_path
from agenta_ai_server.domain.call import ANONYMOUS, Call
from agenta_ai_server.domain.errors import Reason, Refused, ToolFailed
from agenta_ai_server.limits.policy import Policy
from agenta_ai_server.rpc.server import is_served
from agenta_ai_server.rpc.tls import Certificates, TlsFiles
from agenta_ai_server.tools.registry import Dependencies, Registry, discover
from agenta_ai_server.upstream.agenta import AgentaCompletionService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import yarl
    from redis.asyncio import Redis

    from agenta_ai_server.settings import Settings

State: TypeAlias = Literal["ok", "warning", "failed"]

HTTP_SECONDS = 5.0
REDIS_SECONDS = 3.0
# Of which the middle one counts.
PINGS = 5
# What limits and repeats need of Redis: a script that writes.
SCRIPT = "return redis.call('SET', KEYS[1], '', 'PX', 1000)"
SCRIPT_KEY = "agenta-ai:check"
SOON = 14 * 86_400
PROMPT = '{"messages": [{"role": "user", "content": "Please translate {{text}}"}]}'


class Found(NamedTuple):
    """What a part says of itself; see :class:`~agenta_ai_server.check.Finding`."""

    state: State
    said: str
    remedy: str = ""


Probe: TypeAlias = "Callable[[Settings], AsyncIterator[Found]]"


def ok(said: str) -> Found:
    """Return that all is fine."""
    return Found("ok", said)


def warning(said: str, remedy: str) -> Found:
    """Return that it works, and won't do so for long or in every case."""
    return Found("warning", said, remedy)


def failed(said: str, remedy: str) -> Found:
    """Return that it doesn't work."""
    return Found("failed", said, remedy)


# Files


async def tools(settings: Settings) -> AsyncIterator[Found]:
    """Which tools there are."""
    if settings.missing:
        yield failed("AI services are disabled: callers get SERVICE_DISABLED.", f"Set {', '.join(settings.missing)}.")
        return
    try:
        left = Registry(await _made_tools(settings), settings.disabled_tools).tools
    except ValueError as error:
        yield failed(_sentence(error), "Correct AGENTA_AI_GRPC_DISABLED_TOOLS.")
        return
    if left:
        yield ok(f"There are: {', '.join(tool.name for tool in left)}.")
    else:
        yield warning("All tools are switched off.", "Remove one from AGENTA_AI_GRPC_DISABLED_TOOLS.")


async def api_keys(settings: Settings) -> AsyncIterator[Found]:
    """Whether somebody has a key, and nobody else can read the file."""
    path = settings.api_keys_file
    if "api_keys" not in settings.auth or path is None:
        return
    if not path.exists():
        make = "make a key: agenta-ai-server keys create."
        if os.access(path.parent, os.W_OK):
            # A new file would take from a running server the keys that it still knows.
            yield warning(
                f"{path} isn't there, so no key is known.", f"Restore it from a copy; if there is none, {make}"
            )
        else:
            yield failed(f"{path} isn't there, and can't be made.", f"Make {path.parent} writable, and {make}")
        return
    try:
        keys = list_keys(path)
    except ValueError as error:
        yield failed(_sentence(error), "Restore AGENTA_AI_GRPC_API_KEYS_FILE from a copy, or make it readable.")
        return
    if path.stat().st_mode & 0o077:
        yield warning(f"{path} is open to others than its owner.", f"chmod 600 {path}")
    valid = sum(key.is_valid(time.time()) for key in keys)
    if not valid:
        yield warning(f"None of its {len(keys)} keys is valid.", "Make one: agenta-ai-server keys create.")
    else:
        yield ok(f"{valid} of {len(keys)} keys are valid.")


async def principals(settings: Settings) -> AsyncIterator[Found]:
    """Whose certificates are known."""
    path = settings.mtls_principals_file
    if "mtls" not in settings.auth or path is None:
        return
    try:
        known = parse(IdentityFile, _content(path)).principals
    except ValueError as error:
        yield failed(f"{path}: {_sentence(error)}", "Correct AGENTA_AI_GRPC_MTLS_PRINCIPALS_FILE: docs/security.md.")
        return
    if known:
        yield ok(f"{len(known)} names in certificates are known.")
    else:
        yield warning(f"{path} names nobody, so nobody may call.", "Add who may call: docs/security.md.")


async def limits(settings: Settings) -> AsyncIterator[Found]:
    """Whether the policy can be read."""
    path = settings.limits_file
    if settings.limits == "off" or path is None:
        return
    names = [tool.name for tool in await _made_tools(settings)]
    try:
        Policy.parse(_content(path), names)
    except ValueError as error:
        yield failed(f"{path}: {_sentence(error)}", "Correct AGENTA_AI_GRPC_LIMITS_FILE: docs/limits.md has its form.")
    else:
        yield ok(f"{path} can be read.")


# The listener


async def certificates(settings: Settings) -> AsyncIterator[Found]:
    """Whether the certificates can be used, and for how long."""
    if not (settings.tls_cert_file and settings.tls_key_file):
        return
    files = TlsFiles(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
    try:
        Certificates(files)
    except ValueError as error:
        yield failed(
            _sentence(error),
            "Put a certificate and its key, both in PEM form and of the same renewal, into "
            "AGENTA_AI_GRPC_TLS_CERT_FILE and AGENTA_AI_GRPC_TLS_KEY_FILE: docs/security.md.",
        )
        return
    for path in filter(None, (files.certificate, files.client_authorities)):
        yield _lifetime(path)


def _lifetime(path: Path) -> Found:
    chain = x509.load_pem_x509_certificates(path.read_bytes())
    now = datetime.now(UTC)
    begin = max(each.not_valid_before_utc for each in chain)
    end = min(each.not_valid_after_utc for each in chain)
    left = (end - now).total_seconds()
    if begin > now:
        return failed(f"{path} isn't valid before {begin:%Y-%m-%d %H:%M} UTC.", "Set the clock, or use another one.")
    if left < 0:
        return failed(f"A certificate in {path} expired at {end:%Y-%m-%d %H:%M} UTC.", f"Renew {path}.")
    if left < SOON:
        return warning(f"{path} expires in {left / 86_400:.1f} days.", "Renew it; it is read again by itself.")
    return ok(f"{path} is valid for {left / 86_400:.0f} days.")


async def address(settings: Settings) -> AsyncIterator[Found]:
    """Whether it can be listened on, or is already by a running server."""

    async def is_ours() -> bool:
        if settings.tls_cert_file is None:
            return await is_served(settings.listen)
        # One that can't be read is told of by itself, and a running server goes on with the one before.
        with suppress(OSError, ValueError):
            return await is_served(settings.listen, settings.tls_cert_file.read_text())
        return False

    yield await _address(settings.listen, "AGENTA_AI_GRPC_LISTEN", settings.reuse_port, is_ours)


async def metrics(settings: Settings) -> AsyncIterator[Found]:
    """As the other address."""
    listen = settings.metrics_listen
    if not listen:
        return

    async def is_ours() -> bool:
        try:
            return b"agenta_ai_build_info" in (await _get(http_url(f"http://{listen}/metrics"))).body
        except Unanswered:
            return False

    yield await _address(listen, "AGENTA_AI_GRPC_METRICS_LISTEN", False, is_ours)


async def _address(listen: str, name: str, is_shared: bool, is_ours: Callable[[], Any]) -> Found:
    try:
        _bind(listen, is_shared)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and await is_ours():
            return ok(f"{listen} is served by a running agenta-ai-server.")
        return failed(f"{listen} can't be listened on: {error.strerror}.", _way_out(error.errno, name))
    return ok(f"{listen} is free.")


def _bind(listen: str, is_shared: bool) -> None:
    """See whether the address can be had, and leave it."""
    if listen.startswith("unix:"):
        _bind_path(Path(listen.removeprefix("unix:")))
        return
    host, _, port = listen.rpartition(":")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(is_shared))
        probe.bind((host.strip("[]"), int(port)))


def _bind_path(path: Path) -> None:
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(errno.EACCES, "its folder isn't there, or not writable")
    with socket.socket(socket.AF_UNIX) as probe:
        if path.exists() and probe.connect_ex(str(path)) == 0:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _way_out(number: int | None, name: str) -> str:
    match number:
        case errno.EADDRINUSE:
            return (
                "See what listens there (ss -ltnp). Leave an agenta-ai-server that has an earlier certificate; "
                f"stop anything else, or set another port by {name}."
            )
        case errno.EADDRNOTAVAIL:
            return f"Set {name} to an address of this machine, or to 0.0.0.0 for all of them."
        case errno.EACCES:
            return f"Set {name} to a port from 1024 on, or a path in a folder that this user may write."
    return f"Set {name} to another address."


async def open_files(settings: Settings) -> AsyncIterator[Found]:
    """Whether the process may open as many files as the full load takes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < settings.open_files:
        yield warning(
            f"{hard:,} may be open at once, and {settings.open_files:,} may be needed.",
            "Raise the limit (ulimit -Hn, LimitNOFILE), or lower AGENTA_AI_GRPC_MAX_IN_FLIGHT.",
        )
    else:
        yield ok(f"{settings.open_files:,} may be needed, and no fewer are allowed.")


# Redis


async def redis(settings: Settings) -> AsyncIterator[Found]:
    """Whether limits and repeats can be kept there."""
    if settings.redis_url is None:
        if settings.reuse_port:
            yield warning(
                "Processes that share the port count rate limits and know request_ids each for itself.",
                "Set AGENTA_AI_GRPC_REDIS_URL.",
            )
        return
    try:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
        from redis.exceptions import RedisError
    except ModuleNotFoundError:
        yield failed("The package redis isn't installed.", "pip install 'agenta-ai[redis]'")
        return
    try:
        url = settings.redis_url.get_secret_value()
        client = Redis.from_url(url, protocol=2, retry=Retry(NoBackoff(), 0))
    except (ValueError, TypeError, RedisError):
        yield failed("Its URL is none.", "Set AGENTA_AI_GRPC_REDIS_URL to redis://user:password@host:6379/0.")
        return
    try:
        async with asyncio.timeout(REDIS_SECONDS):
            async for found in _redis(client, settings.redis_timeout_seconds):
                yield found
    except (RedisError, OSError, TimeoutError) as error:
        yield _redis_failed(error)
    finally:
        await client.aclose()


async def _redis(client: Redis, timeout_seconds: float) -> AsyncIterator[Found]:
    await client.ping()
    await client.eval(SCRIPT, 1, SCRIPT_KEY)
    times = []
    for _ in range(PINGS):
        began = time.perf_counter()
        await client.ping()
        times.append(time.perf_counter() - began)
    latency = sorted(times)[PINGS // 2]
    said = f"It answers in {latency * 1000:.1f} ms"
    if latency > timeout_seconds / 2:
        yield warning(
            f"{said}, and has {timeout_seconds * 1000:g} ms.",
            "Bring it nearer, or raise AGENTA_AI_GRPC_REDIS_TIMEOUT_SECONDS.",
        )
    else:
        yield ok(f"{said}, and runs scripts.")
    policy = await _eviction_policy(client)
    if policy != "noeviction":
        yield warning(
            f"Its maxmemory-policy is {policy}: with a result that it evicts, a repeat is paid for twice.",
            "Set maxmemory-policy to noeviction in Redis.",
        )


async def _eviction_policy(client: Redis) -> str:
    from redis.exceptions import ResponseError

    try:
        return str((await client.info("memory")).get("maxmemory_policy", "noeviction"))
    except ResponseError:
        # This user mayn't ask, and needn't for anything else.
        return "noeviction"


# By the names of the client's exceptions, which is what can be told without their texts.
REDIS_FAILURES = {
    "AuthenticationError": (
        "It refuses the user or the password.",
        "Correct them in AGENTA_AI_GRPC_REDIS_URL: redis://user:password@host:6379/0.",
    ),
    "ReadOnlyError": (
        "It is a replica, which can't be written.",
        "Set AGENTA_AI_GRPC_REDIS_URL to the address of the primary.",
    ),
    "OutOfMemoryError": ("Its memory is full.", "Raise its maxmemory, or remove what else is in it."),
    "BusyLoadingError": ("It is still loading its data.", "Wait, and check again."),
    "ResponseError": (
        "It refuses scripts that write.",
        "Let its user run them: ACL SETUSER … ~agenta-ai:* +@scripting +@read +@write +ping.",
    ),
}
REDIS_UNREACHABLE = (
    "It can't be reached.",
    "See that it runs; correct host and port in AGENTA_AI_GRPC_REDIS_URL, with rediss:// if it has TLS.",
)


def _redis_failed(error: Exception) -> Found:
    known = (REDIS_FAILURES[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in REDIS_FAILURES)
    return failed(*next(known, REDIS_UNREACHABLE))


# Those who are asked over HTTP


async def token_keys(settings: Settings) -> AsyncIterator[Found]:
    """Whether tokens can be checked with the issuer's keys."""
    if "jwt" not in settings.auth:
        return
    name = "AGENTA_AI_GRPC_JWT_JWKS_FILE" if settings.jwt_jwks_file else "AGENTA_AI_GRPC_JWT_JWKS_URL"
    try:
        document = await _key_set(settings)
    except Unanswered as error:
        yield failed(
            f"The issuer doesn't give them: {_sentence(error)}",
            f"See that it runs and can be reached from here, or correct {name}.",
        )
        return
    except ValueError as error:
        yield failed(f"They can't be had: {_sentence(error)}", f"Correct {name}.")
        return
    try:
        KeySet(document, settings.jwt_algorithms)
    except ValueError as error:
        algorithms = ",".join(settings.jwt_algorithms)
        yield failed(
            f"What was read can't be used: {_sentence(error)}",
            f"Correct {name}, or AGENTA_AI_GRPC_JWT_ALGORITHMS, which is {algorithms}.",
        )
    else:
        yield ok("One key at least fits the algorithms.")


async def _key_set(settings: Settings) -> bytes:
    if settings.jwt_jwks_file:
        return _content(settings.jwt_jwks_file)
    answer = await _get(http_url(settings.jwt_jwks_url or ""))
    if answer.status != 200:
        raise Unanswered(f"HTTP {answer.status}")
    return answer.body


async def agenta(settings: Settings) -> AsyncIterator[Found]:
    """Whether it can be reached, and is Agenta."""
    if settings.api_url is None:
        return
    permissions = check_url(settings.api_url)
    url = permissions.with_path(root_path(urlsplit(settings.api_url).path) + "/services/health", encoded=True)
    began = time.perf_counter()
    try:
        answer = await _ask_agenta(settings, url)
    except Unanswered as error:
        yield _unanswered(str(error))
        return
    if answer.status == 200 and _is_json(answer.body):
        yield ok(f"{url} answers in {(time.perf_counter() - began) * 1000:.0f} ms.")
    else:
        yield _no_health(url, answer.status)


def _no_health(url: yarl.URL, status: int) -> Found:
    name = "AGENTA_AI_SERVICES_API_URL"
    if status // 100 == 3:
        return failed(f"{url} redirects (HTTP {status}).", f"Set {name} to where it leads: with https://, as a rule.")
    if status // 100 == 5:
        return failed(f"{url} fails (HTTP {status}).", "Look at the logs of Agenta, and of what stands before it.")
    if status == 200:
        return failed(f"{url} answers something else than Agenta.", f"Set {name} to the address of Agenta's API.")
    return failed(f"{url} isn't there (HTTP {status}).", f"Correct the path in {name}: https://cloud.agenta.ai.")


async def agenta_key(settings: Settings) -> AsyncIterator[Found]:
    """Whether Agenta knows our key: its check of permissions says so, and costs nothing."""
    if settings.api_url is None or settings.api_key is None:
        return
    query = {"action": "run_service", "resource_type": "service"}
    headers = {"authorization": f"ApiKey {settings.api_key.get_secret_value()}"}
    try:
        status = (await _ask_agenta(settings, check_url(settings.api_url).with_query(query), headers)).status
    except Unanswered:
        yield failed("Agenta can't be asked.", "See to Agenta first.")
        return
    source = "AGENTA_AI_SERVICES_API_KEY or its file"
    match status:
        case 200:
            yield ok("Agenta knows it, and lets it run services.")
        case 401:
            yield failed("Agenta doesn't know it.", f"Make a key in Agenta, and put it into {source}.")
        case 403:
            yield failed("It may not run services.", f"Give its owner a role that may, or put another into {source}.")
        case _:
            yield failed(f"Agenta doesn't say (HTTP {status}).", "See to Agenta first; then check again.")


async def traces(settings: Settings) -> AsyncIterator[Found]:
    """Whether somebody takes them."""
    if not settings.traces_url:
        return
    if importlib.util.find_spec("opentelemetry") is None:
        yield failed("OpenTelemetry isn't installed.", "pip install 'agenta-ai[tracing]'")
        return
    name = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" if settings.otel_traces_endpoint else "OTEL_EXPORTER_OTLP_ENDPOINT"
    url = http_url(settings.traces_url)
    try:
        status = (await _get(url)).status
    except Unanswered as error:
        yield failed(f"{url.origin()} can't be reached: {error}.", f"Start the collector, or correct {name}.")
        return
    # Collectors take POST only, and refuse this with 405 or 401.
    if status == 404 or status // 100 in (3, 5):
        yield failed(f"{url} doesn't take traces (HTTP {status}).", f"Correct {name}: OTLP over HTTP, port 4318.")
    else:
        yield ok(f"{url.origin()} can be reached.")


async def refinement(settings: Settings) -> AsyncIterator[Found]:
    """Whether a tiny prompt is refined. This is paid for."""
    config = agenta_config(settings)
    if config is None or settings.refine_prompt_key is None:
        return
    completions = AgentaCompletionService(config)
    try:
        registry = Registry(discover(_dependencies(settings, completions)))
        (name,) = [tool.name for tool in registry.tools if tool.name.endswith(".refine_prompt")]
        deadline = asyncio.get_running_loop().time() + settings.max_call_seconds
        call = Call("check", "/check", (), "check", deadline, principal=ANONYMOUS)
        await registry.call(name, {"prompt_template_json": PROMPT}, call)
    except (ToolFailed, Refused) as error:
        yield failed(f"{error.reason}: {error.message}", _remedy_of(error.reason))
    else:
        yield ok("A prompt was refined.")
    finally:
        await completions.aclose()


def _remedy_of(reason: Reason) -> str:
    if reason in (Reason.UPSTREAM_FAILED, Reason.UPSTREAM_REJECTED):
        return (
            "See in Agenta that AGENTA_AI_SERVICES_REFINE_PROMPT_KEY names an application, that it is deployed to "
            "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG, and that its model has a credential."
        )
    return f"docs/operations.md says what to do about {reason}."


# What they share


def _dependencies(settings: Settings, completions: AgentaCompletionService) -> Dependencies:
    return Dependencies(completions, {"refine_prompt": settings.refine_prompt_key or ""}, repairs=settings.repairs)


async def _made_tools(settings: Settings) -> list[Any]:
    config = agenta_config(settings)
    if config is None:
        return []
    completions = AgentaCompletionService(config)
    try:
        return discover(_dependencies(settings, completions))
    finally:
        await completions.aclose()


async def _ask_agenta(settings: Settings, url: yarl.URL, headers: dict[str, str] | None = None) -> Answer:
    proxy = settings.upstream_proxy.get_secret_value() if settings.upstream_proxy else None
    return await _get(url, headers, ca_file=settings.upstream_ca_file, proxy=proxy)


async def _get(url: yarl.URL, headers: dict[str, str] | None = None, **way: Any) -> Answer:
    client = HttpClient(timeout=HTTP_SECONDS, **way)
    try:
        return await client.get(url, headers)
    finally:
        await client.aclose()


def _unanswered(why: str) -> Found:
    """Return what an attempt to reach Agenta says of the way there, by the name of the error."""
    if "Certificate" in why or "SSL" in why:
        return failed(
            f"Its certificate isn't trusted, or it has no TLS ({why}).",
            "Renew one that has expired. Else set AGENTA_AI_GRPC_UPSTREAM_CA_FILE to its authority's, or correct "
            "AGENTA_AI_SERVICES_API_URL.",
        )
    if "Proxy" in why:
        return failed(f"The proxy can't be used ({why}).", "Correct AGENTA_AI_GRPC_UPSTREAM_PROXY.")
    if "DNS" in why:
        return failed("The name of its host leads nowhere.", "Correct the host in AGENTA_AI_SERVICES_API_URL.")
    return failed(
        f"It can't be reached: {why}.",
        "See that it runs, correct AGENTA_AI_SERVICES_API_URL, and let traffic through (firewall, NetworkPolicy).",
    )


def _is_json(body: bytes) -> bool:
    try:
        json_object(body)
    except ValueError:
        return False
    return True


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"can't read it: {error.strerror}") from None


def _sentence(error: Exception) -> str:
    return f"{str(error).rstrip('.')}."
