"""What those say who are asked over HTTP: the issuer of tokens, Agenta, and the collector of traces."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from agenta_ai_server.assembly.resources import Resources
from agenta_ai_server.assembly.tools import build_tools
from agenta_ai_server.assembly.upstream import build_completions
from agenta_ai_server.auth.agenta import check_url
from agenta_ai_server.auth.http import Answer, Unanswered, http_url
from agenta_ai_server.auth.jwks import KeySet
from agenta_ai_server.auth.token import json_object
from agenta_ai_server.checks.shared import Found, failed, get, ok, sentence
from agenta_ai_server.domain.agenta_url import root_path
from agenta_ai_server.domain.call import ANONYMOUS
from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.domain.files import read_file
from agenta_ai_server.domain.tool import ToolCall
from agenta_ai_server.pipeline.pipeline import run_tool
from agenta_ai_server.telemetry.otel_environment import ENDPOINT, TRACES_ENDPOINT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import yarl

    from agenta_ai_server.settings import Settings

REFINE = "tools.agenta.api.refine_prompt"
PROMPT = '{"messages": [{"role": "user", "content": "Please translate {{text}}"}]}'


async def token_keys(settings: Settings) -> AsyncIterator[Found]:
    """Whether tokens can be checked with the issuer's keys."""
    if "jwt" not in settings.auth:
        return
    name = "AGENTA_AI_GRPC_JWT_JWKS_FILE" if settings.jwt_jwks_file else "AGENTA_AI_GRPC_JWT_JWKS_URL"
    try:
        document = await _key_set(settings)
    except Unanswered as error:
        yield failed(
            f"The issuer doesn't give them: {sentence(error)}",
            f"See that it runs and can be reached from here, or correct {name}.",
        )
        return
    except ValueError as error:
        yield failed(f"They can't be had: {sentence(error)}", f"Correct {name}.")
        return
    try:
        KeySet(document)
    except ValueError as error:
        yield failed(f"What was read can't be used: {sentence(error)}", f"Correct {name}.")
    else:
        yield ok("At least one key can be used.")


async def _key_set(settings: Settings) -> bytes:
    if settings.jwt_jwks_file:
        return read_file(settings.jwt_jwks_file)
    answer = await get(http_url(settings.jwt_jwks_url or ""))
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
    name = TRACES_ENDPOINT if TRACES_ENDPOINT in settings.otel else ENDPOINT
    url = http_url(settings.traces_url)
    try:
        status = (await get(url)).status
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
    async with Resources() as resources:
        completions = build_completions(settings, resources)
        if completions is None or settings.refine_prompt_key is None:
            return
        tools = build_tools(settings, resources, completions).current
        deadline = asyncio.get_running_loop().time() + settings.max_call_seconds
        call = ToolCall(
            "check",
            REFINE,
            ANONYMOUS,
            deadline,
            settings.max_call_seconds,
            tools,
            lambda: {"prompt_template_json": PROMPT},
        )
        try:
            outcome = await run_tool(call)
        except Refused as refused:
            yield failed(f"{refused.reason}: {refused.message}", _remedy_of(refused.reason))
            return
        if failure := outcome.failure:
            yield failed(f"{failure.reason}: {outcome.text}", _remedy_of(failure.reason))
        else:
            yield ok("A prompt was refined.")


def _remedy_of(reason: Reason) -> str:
    if reason in (Reason.UPSTREAM_FAILED, Reason.UPSTREAM_REJECTED):
        return (
            "See in Agenta that AGENTA_AI_SERVICES_REFINE_PROMPT_KEY names an application, that it is deployed to "
            "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG, and that its model has a credential."
        )
    return f"docs/operations.md says what to do about {reason}."


async def _ask_agenta(settings: Settings, url: yarl.URL, headers: dict[str, str] | None = None) -> Answer:
    proxy = settings.upstream_proxy.get_secret_value() if settings.upstream_proxy else None
    return await get(url, headers, ca_file=settings.upstream_ca_file, proxy=proxy)


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
