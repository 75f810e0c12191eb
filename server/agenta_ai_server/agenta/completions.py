"""Agenta's completion service, over HTTP."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import httpx

from agenta_ai_server.agenta.addresses import AgentaAddress
from agenta_ai_server.agenta.completion import Completion
from agenta_ai_server.agenta.credential import ServerKey
from agenta_ai_server.agenta.http import HttpClient, HttpResponse
from agenta_ai_server.domain.agenta_url import check_key
from agenta_ai_server.domain.deadline import MARGIN_SECONDS
from agenta_ai_server.domain.errors import Reason, UpstreamFailed
from agenta_ai_server.domain.listener import CallListener, record_request
from agenta_ai_server.domain.values import Attempt

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agenta_ai_server.domain.tool import ToolCall

_MAX_CONNECT_SECONDS = 5.0
_MAX_RETRY_DELAY_SECONDS = 3600.0
# Kept back from the caller's time, so that the answer still reaches it.

_TRACE_ID = re.compile(r"[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_SPAN_ID = re.compile(r"[0-9a-f]{16}", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentaConfig:
    """Where Agenta is, and how it is asked.

    Attributes:
        api_url: As :meth:`~agenta_ai_server.agenta.addresses.AgentaAddress.parse` takes it.
        api_key: An Agenta API key, without the scheme. Never shown.
        api_key_file: File that holds the key, in place of that, and is read again when it changes.
        environment: Slug of the environment whose deployed prompts are run.
        ca_file: Certificates of the authorities to trust, as PEM, in place of the public ones.
        proxy: URL of an HTTP proxy, maybe with credentials. Never shown.
        keep_alive: Whether a connection serves one request after another.
        max_seconds: No call takes longer, whatever its deadline.
        min_seconds: A call that has less time left isn't sent. 0 to ``max_seconds``.

    Raises:
        ValueError: A value can't be used; the sentence says which and why, and doesn't repeat it.
    """

    api_url: str
    api_key: str = field(repr=False)
    environment: str
    api_key_file: Path | None = None
    ca_file: Path | None = None
    proxy: str | None = field(default=None, repr=False)
    keep_alive: bool = True
    max_seconds: float = 60.0
    min_seconds: float = 1.0

    def __post_init__(self) -> None:
        AgentaAddress.parse(self.api_url)
        try:
            check_key(self.api_key)
        except ValueError as error:
            raise ValueError(f"The API key {error}.") from None
        if not 0 <= self.min_seconds <= self.max_seconds:
            raise ValueError("The least time of a call must be from 0 to its most.")


class AgentaCompletionService:
    """A :class:`~agenta_ai_server.agenta.completion.CompletionService` that is Agenta.

    It belongs to the event loop that runs its first call, and holds that loop's connections until :meth:`aclose`.

    Args:
        config: Where Agenta is, and how it is asked.
        listener: Is told of each request.

    Raises:
        ValueError: The proxy is no URL of an HTTP proxy, or the file of the key can't be read, or holds none.
        OSError: The file of certificates can't be read, or holds none.
    """

    def __init__(self, config: AgentaConfig, listener: CallListener | None = None) -> None:
        self._config = config
        self._listener = listener or CallListener()
        self._key = ServerKey(config.api_key, config.api_key_file)
        self._url = AgentaAddress.parse(config.api_url).services("completion/run")
        self._http = HttpClient(self._url, ca_file=config.ca_file, proxy=config.proxy, keep_alive=config.keep_alive)

    async def complete(self, app: str, inputs: Mapping[str, str], call: ToolCall) -> Completion:
        """Run one prompt and return what the model wrote, the empty string included.

        Raises:
            Refused: DEADLINE_TOO_SHORT, before anything was sent.
            UpstreamFailed: No completion, for one of the ``UPSTREAM_`` reasons.
        """
        call.require_time(self._config.min_seconds)
        clock = asyncio.get_running_loop().time
        started = clock()
        seconds = self._seconds(call.remaining())
        await call.begin_billing()
        with record_request(self._url, self._listener) as sent:
            # Half of the time at most, so that the end of the whole time never falls into connecting: a call that
            # ends by it was sent.
            connect = min(seconds / 2, _MAX_CONNECT_SECONDS)
            headers, body = self._headers(sent.headers), self._body(app, inputs)
            try:
                answer = await self._http.send(
                    "POST", self._url, headers=headers, content=body, seconds=seconds, connect_seconds=connect
                )
            except httpx.TransportError as error:
                attempt = Attempt("", clock() - started)
                raise _failure_of(error, seconds, self._config.max_seconds).as_error(attempt) from error
            sent.status = answer.status
            completion = _completion(answer, clock() - started)
            sent.attempt = completion.attempt
            return completion

    async def aclose(self) -> None:
        """Close all connections. Calls that run fail."""
        await self._http.aclose()

    def _seconds(self, remaining: float) -> float:
        """Return how long the request may take, if so many seconds are left of the call."""
        return min(self._config.max_seconds, remaining - min(MARGIN_SECONDS, remaining / 2))

    def _headers(self, more: Mapping[str, str]) -> dict[str, str]:
        return {"content-type": "application/json", "authorization": self._key.authorization, **more}

    def _body(self, app: str, inputs: Mapping[str, str]) -> bytes:
        # As ASCII, for its escapes carry every string; UTF-8 has no bytes for half of a surrogate pair.
        return json.dumps({"inputs": dict(inputs), "environment": self._config.environment, "app": app}).encode("ascii")


def retry_delay(retry_after: str | None, *, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks to wait, 0 to 3600; ``None`` if it doesn't say.

    Args:
        retry_after: The header's value, seconds or an HTTP date; ``None`` if there is none.
        now: What dates are counted from.
    """
    value = (retry_after or "").strip()
    if value.isascii() and value.isdigit():
        seconds = float(value)
    else:
        try:
            date = parsedate_to_datetime(value)
            seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now.timestamp()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), _MAX_RETRY_DELAY_SECONDS)


@dataclass(frozen=True, slots=True)
class _Failure:
    """A way to fail. The message may name the HTTP status as ``{status}``."""

    reason: Reason
    message: str
    may_have_run: bool
    retryable: bool = False
    healthy: bool | None = True

    def as_error(self, attempt: Attempt, *, status: int = 0, retry_delay: float | None = None) -> UpstreamFailed:
        return UpstreamFailed(
            self.reason,
            self.message.format(status=status),
            attempt=attempt,
            may_have_run=self.may_have_run,
            retryable=self.retryable,
            retry_delay=retry_delay if self.retryable else None,
            healthy=self.healthy,
        )


_UNREACHABLE = _Failure(
    Reason.UPSTREAM_UNREACHABLE,
    "The completion service can't be reached. Nothing was sent: try again.",
    may_have_run=False,
    retryable=True,
    healthy=False,
)
_TIMEOUT = _Failure(
    Reason.UPSTREAM_TIMEOUT,
    "The completion service didn't answer in time. The request may have been paid for: before sending it again, allow "
    "it more time or make it smaller.",
    may_have_run=True,
    healthy=False,
)
_BROKEN = _Failure(
    Reason.UPSTREAM_BROKEN,
    "The connection to the completion service broke before its answer was complete. The request may have been paid "
    "for: send it again only if you accept to pay twice.",
    may_have_run=True,
    healthy=False,
)
_UNREADABLE = _Failure(
    Reason.UPSTREAM_BROKEN,
    "What came in place of the completion service's answer can't be read as HTTP. The request may have been paid for. "
    "Ask the operator of this service to check the address of Agenta, and any proxy in between.",
    may_have_run=True,
    healthy=False,
)
_UNUSABLE = _Failure(
    Reason.UPSTREAM_OUTPUT_INVALID,
    "The completion service gave an unexpected answer (HTTP {status}). Ask the operator of this service to check the "
    "address of Agenta that it is set to.",
    may_have_run=True,
)
_CREDENTIALS_REJECTED = _Failure(
    Reason.UPSTREAM_CREDENTIALS_REJECTED,
    "The completion service doesn't accept this service's own credential (HTTP {status}). Ask the operator of this "
    "service to set a valid Agenta API key.",
    may_have_run=False,
)
_REJECTED = _Failure(
    Reason.UPSTREAM_REJECTED,
    "The completion service refused the request (HTTP {status}). Ask the operator of this service to check the address "
    "of Agenta and the prompt that is deployed there.",
    may_have_run=False,
)

# may_have_run follows the money: a request that was refused before a model was asked has bought nothing, although it
# arrived. A 5xx may have come after the model's answer, unless it says that nobody was there to take the request.
_BY_STATUS = {
    401: _CREDENTIALS_REJECTED,
    403: _CREDENTIALS_REJECTED,
    424: _Failure(
        Reason.UPSTREAM_PROVIDER_FAILED,
        "The model's provider refused the request (HTTP {status}): its limit is used up, or Agenta's credential for it "
        "is wrong. Try again later; if it stays, ask the operator of this service.",
        may_have_run=False,
        retryable=True,
    ),
    429: _Failure(
        Reason.UPSTREAM_RATE_LIMITED,
        "The completion service limits the requests of this service (HTTP {status}). Try again later.",
        may_have_run=False,
        retryable=True,
    ),
    503: _Failure(
        Reason.UPSTREAM_UNAVAILABLE,
        "The completion service is unavailable (HTTP {status}). Try again later.",
        may_have_run=False,
        retryable=True,
        healthy=False,
    ),
    504: _TIMEOUT,
}
_BY_CLASS = {
    3: _REJECTED,
    4: _REJECTED,
    5: _Failure(
        Reason.UPSTREAM_FAILED,
        "The completion service failed (HTTP {status}). The request may have been paid for: before sending it again, "
        "ask the operator of this service to check that the prompt is deployed.",
        may_have_run=True,
        healthy=False,
    ),
}


def _failure_of(error: httpx.TransportError, seconds: float, most: float) -> _Failure:
    """Return what a call that had ``seconds`` failed by, where others have ``most``.

    One that had much less can't tell that Agenta is slow: impatient callers must not speak for the patient ones.
    """
    if isinstance(error, httpx.ConnectTimeout):
        return replace(_UNREACHABLE, healthy=False if seconds >= min(2 * _MAX_CONNECT_SECONDS, most) else None)
    if isinstance(error, httpx.ConnectError):
        return _UNREACHABLE
    if isinstance(error, httpx.ReadTimeout):
        return replace(_TIMEOUT, healthy=False if seconds >= most / 2 else None)
    return _UNREADABLE if isinstance(error, httpx.RemoteProtocolError) else _BROKEN


def _completion(answer: HttpResponse, seconds: float) -> Completion:
    document = _json_object(answer.body)
    attempt = Attempt(_trace_id(document), seconds, _span_id(document))
    if answer.status != httpx.codes.OK:
        failure = _BY_STATUS.get(answer.status) or _BY_CLASS.get(answer.status // 100, _UNUSABLE)
        delay = retry_delay(answer.headers.get("retry-after"), now=datetime.now(UTC))
        raise failure.as_error(attempt, status=answer.status, retry_delay=delay)
    if problem := _problem(answer, document):
        message = f"The completion service's answer can't be used: {problem}"
        raise UpstreamFailed(Reason.UPSTREAM_OUTPUT_INVALID, message, attempt=attempt, may_have_run=True)
    return Completion(document["data"], attempt)


def _problem(answer: HttpResponse, document: dict[str, Any]) -> str:
    """Say what is wrong with a success and the way out, or nothing."""
    if answer.body is None:
        return "it has more than 2 MiB. Ask for less text."
    if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
        return "it is compressed, which wasn't asked for. Ask the operator to look at what is between here and Agenta."
    if "data" not in document:
        return "it is none of Agenta's. Ask the operator to check the address, and what is between here and there."
    text = document["data"]
    if not isinstance(text, str):
        return "it has no text. The model may have declined, or called a tool: reword the request, or ask the operator."
    if not _is_unicode(text):
        return "its text is cut within a character. Ask again, maybe for less text."
    return ""


def _json_object(body: bytes | None) -> dict[str, Any]:
    """Return the body as a JSON object; an empty one if it isn't one."""
    try:
        document = json.loads(body or b"")
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _trace_id(document: dict[str, Any]) -> str:
    for name in ("trace_id", "traceId"):
        value = document.get(name)
        if isinstance(value, str) and _TRACE_ID.fullmatch(value):
            return value.replace("-", "").lower()
    return ""


def _span_id(document: dict[str, Any]) -> str:
    value = document.get("span_id")
    return value.lower() if isinstance(value, str) and _SPAN_ID.fullmatch(value) else ""


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
