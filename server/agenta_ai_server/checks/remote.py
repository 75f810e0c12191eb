"""Checks over HTTP: the token issuer, Agenta, and the trace collector."""

from __future__ import annotations

import importlib.util
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from agenta_ai_server.agenta.addresses import AgentaAddress
from agenta_ai_server.agenta.http import HttpClient, TransportError
from agenta_ai_server.agenta.permissions import Denial, PermissionChecks
from agenta_ai_server.auth.jwks import KeySet, fetch_key_set
from agenta_ai_server.checks.shared import HTTP_SECONDS, Found, failed, get, ok, sentence
from agenta_ai_server.domain.token import json_object
from agenta_ai_server.files.contents import read_file
from agenta_ai_server.telemetry.otel_environment import ENDPOINT, TRACES_ENDPOINT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agenta_ai_server.settings import Settings


async def token_keys(settings: Settings) -> AsyncIterator[Found]:
    """Check that tokens can be verified with the issuer's keys."""
    if "jwt" not in settings.auth:
        return
    name = "AGENTA_AI_GRPC_JWT_JWKS_FILE" if settings.jwt_jwks_file else "AGENTA_AI_GRPC_JWT_JWKS_URL"
    try:
        document = await _key_set(settings)
    except TransportError as error:
        yield failed(
            f"The issuer doesn't return them: {sentence(error)}",
            f"Check that it is running and reachable from here, or correct {name}.",
        )
        return
    except ValueError as error:
        yield failed(f"They can't be read: {sentence(error)}", f"Correct {name}.")
        return
    try:
        KeySet(document)
    except ValueError as error:
        yield failed(f"They can't be used: {sentence(error)}", f"Correct {name}.")
    else:
        yield ok("At least one key can be used.")


async def _key_set(settings: Settings) -> bytes:
    if settings.jwt_jwks_file:
        return read_file(settings.jwt_jwks_file)
    url = settings.jwt_jwks_url or ""
    http = HttpClient(url)
    try:
        return await fetch_key_set(http, url, HTTP_SECONDS)
    finally:
        await http.aclose()


async def agenta(settings: Settings) -> AsyncIterator[Found]:
    """Check that Agenta can be reached, and is Agenta."""
    if settings.api_url is None:
        return
    url = AgentaAddress.parse(settings.api_url).services("health")
    began = time.perf_counter()
    try:
        answer = await get(url, **_way_to_agenta(settings))
    except TransportError as error:
        yield _unanswered(str(error))
        return
    if answer.status == 200 and _is_json(answer.body or b""):
        yield ok(f"{url} answers in {(time.perf_counter() - began) * 1000:.0f} ms.")
    else:
        yield _no_health(url, answer.status)


def _no_health(url: str, status: int) -> Found:
    name = "AGENTA_AI_SERVICES_API_URL"
    if status // 100 == 3:
        return failed(f"{url} redirects (HTTP {status}).", f"Set {name} to the target, usually with https://.")
    if status // 100 == 5:
        return failed(f"{url} fails (HTTP {status}).", "Look at the logs of Agenta, and of any proxy in front of it.")
    if status == 200:
        return failed(f"{url} isn't Agenta.", f"Set {name} to the address of Agenta's API.")
    return failed(f"{url} doesn't exist (HTTP {status}).", f"Correct the path in {name}: https://cloud.agenta.ai.")


async def agenta_key(settings: Settings) -> AsyncIterator[Found]:
    """Check that Agenta knows the server's key, by its permission check, which costs nothing."""
    if settings.api_url is None or settings.api_key is None:
        return
    address = AgentaAddress.parse(settings.api_url)
    http = HttpClient(address.root, keep_alive=False, **_way_to_agenta(settings))
    source = "AGENTA_AI_SERVICES_API_KEY or its file"
    try:
        checks = PermissionChecks(http, address, HTTP_SECONDS)
        verdict = await checks.ask(f"ApiKey {settings.api_key.get_secret_value()}", "run_service")
    except TransportError:
        yield failed("Agenta can't be reached.", "Fix Agenta first.")
    except ValueError as error:
        yield failed(f"Agenta didn't answer ({error}).", "Fix Agenta first, then run check again.")
    else:
        match verdict:
            case Denial.UNKNOWN_CREDENTIAL:
                yield failed("Agenta doesn't know it.", f"Create a key in Agenta, and put it into {source}.")
            case Denial.FORBIDDEN:
                yield failed(
                    "It may not run services.",
                    f"Give its owner a role that may run services, or put another key into {source}.",
                )
            case _:
                yield ok("Agenta knows it, and it may run services.")
    finally:
        await http.aclose()


async def traces(settings: Settings) -> AsyncIterator[Found]:
    """Check that a collector accepts traces."""
    if not settings.traces_url:
        return
    if importlib.util.find_spec("opentelemetry") is None:
        yield failed(
            "OpenTelemetry isn't installed.", "Install the extra 'tracing': in a clone, pip install '.[tracing]'."
        )
        return
    name = TRACES_ENDPOINT if TRACES_ENDPOINT in settings.otel else ENDPOINT
    url = settings.traces_url
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
    try:
        status = (await get(url)).status
    except TransportError as error:
        yield failed(f"{origin} can't be reached: {error}.", f"Start the collector, or correct {name}.")
        return
    # Collectors take POST only, and refuse this with 405 or 401.
    if status == 404 or status // 100 in (3, 5):
        yield failed(f"{url} doesn't accept traces (HTTP {status}).", f"Correct {name}: OTLP over HTTP, port 4318.")
    else:
        yield ok(f"{origin} can be reached.")


def _way_to_agenta(settings: Settings) -> dict[str, Any]:
    proxy = settings.upstream_proxy.get_secret_value() if settings.upstream_proxy else None
    return {"ca_file": settings.upstream_ca_file, "proxy": proxy}


def _unanswered(why: str) -> Found:
    """Return what an error says about the connection to Agenta, by the error's name."""
    if "Certificate" in why or "SSL" in why:
        return failed(
            f"Its certificate isn't trusted, or it has no TLS ({why}).",
            "Renew it if it has expired. Otherwise, set AGENTA_AI_GRPC_UPSTREAM_CA_FILE to the certificate of its "
            "authority, or correct AGENTA_AI_SERVICES_API_URL.",
        )
    if "Proxy" in why:
        return failed(f"The proxy can't be used ({why}).", "Correct AGENTA_AI_GRPC_UPSTREAM_PROXY.")
    if "DNS" in why:
        return failed("Its host name can't be resolved.", "Correct the host in AGENTA_AI_SERVICES_API_URL.")
    return failed(
        f"It can't be reached: {why}.",
        "Check that it is running, correct AGENTA_AI_SERVICES_API_URL, and allow traffic (firewall, NetworkPolicy).",
    )


def _is_json(body: bytes) -> bool:
    try:
        json_object(body)
    except ValueError:
        return False
    return True
