"""Classifies failed runs: what went wrong, who can fix it, and whether a retry is safe.

``may_have_run`` says whether a request may have been billed: one that arrived, but was refused before a model was
called, hasn't run. The sentences are the only text that reaches a caller. Agenta's own text decides which one it is,
and never gets any further: it holds stack traces and internal addresses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

import httpx

from agenta_ai_server.agenta.connections import TooManyOpenFiles
from agenta_ai_server.agenta.http import MAX_BODY_BYTES
from agenta_ai_server.agenta.retry_after import retry_delay
from agenta_ai_server.domain.errors import Reason, UpstreamFailed
from agenta_ai_server.domain.values import MAX_VALUES

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenta_ai_server.agenta.routes.reply import Reply
    from agenta_ai_server.domain.values import Attempt

MAX_CONNECT_SECONDS = 5.0
MAX_INLINE_BODY_BYTES = 256 * 1024
"""Bound of an answer to a caller's own prompt: many can be made long, and to arrive at the same moment."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One way to fail.

    Attributes:
        reason: The contract's reason.
        message: What the caller reads; may name the HTTP status as ``{status}``.
        may_have_run: Whether it may have been billed.
        retryable: Whether the same call may succeed later, and nothing was billed.
        transient: Whether the same request may succeed within seconds, so that sending it again by itself makes sense.
        healthy: Whether Agenta itself works, as far as this tells; ``None`` if it doesn't tell.
    """

    reason: Reason
    message: str
    may_have_run: bool
    retryable: bool = False
    transient: bool = False
    healthy: bool | None = True

    def as_error(
        self,
        attempt: Attempt,
        reply: Reply | None = None,
        explanation: str = "",
        kind: type[UpstreamFailed] = UpstreamFailed,
    ) -> UpstreamFailed:
        """Return the exception for one attempt.

        Args:
            attempt: The request that failed.
            reply: What Agenta answered, if it did.
            explanation: Agenta's own sentence, scrubbed.
            kind: The exception's class.
        """
        delay = retry_delay(reply.retry_after, now=datetime.now(UTC)) if reply and self.retryable else None
        return kind(
            self.reason,
            self.message.format(status=reply.http_status if reply else 0),
            attempt=attempt,
            may_have_run=self.may_have_run,
            retryable=self.retryable,
            retry_delay=delay,
            transient=self.transient,
            healthy=self.healthy,
            explanation=explanation,
        )


def _misconfigured(message: str) -> Failure:
    return Failure(Reason.UPSTREAM_MISCONFIGURED, f"{message} Nothing was billed.", may_have_run=False)


def _provider(message: str, *, retryable: bool = False) -> Failure:
    return Failure(Reason.UPSTREAM_PROVIDER_FAILED, message, may_have_run=False, retryable=retryable)


# Failures of the connection.

UNREACHABLE = Failure(
    Reason.UPSTREAM_UNREACHABLE,
    "The completion service can't be reached. Nothing was sent: try again.",
    may_have_run=False,
    retryable=True,
    transient=True,
    healthy=False,
)
TOO_MANY_OPEN_FILES = replace(
    UNREACHABLE,
    message="This service has no file descriptor left for a connection. Nothing was sent: try again.",
    healthy=None,
)
TIMEOUT = Failure(
    Reason.UPSTREAM_TIMEOUT,
    "The completion service didn't answer in time. The request may have been billed: before sending it again, allow it "
    "more time or make it smaller.",
    may_have_run=True,
    transient=True,
    healthy=False,
)
BROKEN = Failure(
    Reason.UPSTREAM_BROKEN,
    "The connection to the completion service broke before its answer was complete. The request may have been billed: "
    "send it again only if being billed twice is acceptable.",
    may_have_run=True,
    transient=True,
    healthy=False,
)
UNREADABLE = Failure(
    Reason.UPSTREAM_BROKEN,
    "The completion service's answer isn't readable as HTTP. The request may have been billed. Ask the operator of "
    "this service to check the address of Agenta and the proxies in front of it.",
    may_have_run=True,
    transient=True,
    healthy=False,
)

UNREAD = Failure(
    Reason.UPSTREAM_TIMEOUT,
    "The completion service's answer is large, and the call's time was over while other large answers were being read. "
    "The request may have been billed: before sending it again, allow it more time or ask for less text.",
    may_have_run=True,
    healthy=None,
)

# What Agenta says of a prompt and of its model.

NOT_DEPLOYED = _misconfigured(
    "The prompt behind this tool isn't deployed in Agenta, or this service's key belongs to another project there. Ask "
    "the operator of this service to deploy it to the configured environment."
)
WRONG_INPUTS = _misconfigured(
    "The prompt that is deployed in Agenta for this tool expects other inputs than this service sends. Ask the "
    "operator of this service to deploy one that fits the tool."
)
UNFILLED_VARIABLES = _misconfigured(
    "The prompt that is deployed in Agenta for this tool has variables without a value. Ask the operator of this "
    "service to deploy one that fits the tool and has no other template variables."
)
NO_MODEL_CREDENTIAL = _misconfigured(
    "Agenta has no credential for the model of this tool's prompt, or doesn't know the model. Ask the operator of this "
    "service to add the provider's key in Agenta, or to choose another model."
)
UNKNOWN_MODEL = _misconfigured(
    "The model's provider doesn't have the model of this tool's prompt. Ask the operator of this service to choose "
    "another model in Agenta."
)
MODEL_CREDENTIAL_REJECTED = _provider(
    "The model's provider doesn't accept the credential that Agenta has for it. Nothing was billed. Ask the operator "
    "of this service to renew the provider's key in Agenta."
)
QUOTA_EXHAUSTED = _provider(
    "The quota at the model's provider is used up. Nothing was billed. Ask the owner of the account there to raise it."
)
PROVIDER_RATE_LIMITED = _provider(
    "The model's provider limits the rate of requests. Nothing was billed. Try again later.", retryable=True
)
PROVIDER_REFUSED = _provider(
    "The model's provider refused the request (HTTP {status}). Nothing was billed. Ask the operator of this service to "
    "look at the trace in Agenta."
)
PROMPT_TOO_LONG = Failure(
    Reason.UPSTREAM_REJECTED,
    "The prompt is too long for the model. Nothing was billed. Make it shorter, or ask the operator of this service "
    "for a model with a larger context.",
    may_have_run=False,
)
CONTENT_REFUSED = Failure(
    Reason.UPSTREAM_REJECTED,
    "The model's provider refused the content of the request. Nothing was billed. Reword it.",
    may_have_run=False,
)
PROVIDER_FAILED = Failure(
    Reason.UPSTREAM_FAILED,
    "The model's provider failed, even after Agenta's own retries (HTTP {status}). The request may have been billed. "
    "Try again later only if being billed twice is acceptable.",
    may_have_run=True,
    healthy=False,
)
AGENTA_API_DOWN = Failure(
    Reason.UPSTREAM_FAILED,
    "Agenta's services can't reach Agenta's API (HTTP {status}). Nothing was billed. Ask the operator of this service "
    "to check that all parts of Agenta are running.",
    may_have_run=False,
    healthy=False,
)

# All other failures, by HTTP status.

CREDENTIALS_REJECTED = Failure(
    Reason.UPSTREAM_CREDENTIALS_REJECTED,
    "The completion service doesn't accept this service's own credential (HTTP {status}). Ask the operator of this "
    "service to set a valid Agenta API key.",
    may_have_run=False,
)
RATE_LIMITED = Failure(
    Reason.UPSTREAM_RATE_LIMITED,
    "The completion service limits the requests of this service (HTTP {status}). Try again later.",
    may_have_run=False,
    retryable=True,
    transient=True,
)
UNAVAILABLE = Failure(
    Reason.UPSTREAM_UNAVAILABLE,
    "The completion service is unavailable (HTTP {status}). Nothing was billed. Try again later.",
    may_have_run=False,
    retryable=True,
    transient=True,
    healthy=False,
)
# While Agenta's services restart, Traefik, which Agenta comes with, has no route to them.
PROXY_WITHOUT_ROUTE = replace(
    UNAVAILABLE,
    message="A proxy in front of the completion service doesn't find it (HTTP {status}); it may be restarting. Nothing "
    "was billed. Try again later, and if that doesn't help, ask the operator of this service to check the address of "
    "Agenta.",
)
FAILED = Failure(
    Reason.UPSTREAM_FAILED,
    "The completion service failed (HTTP {status}). The request may have been billed: before sending it again, ask the "
    "operator of this service to look at the logs of Agenta.",
    may_have_run=True,
    healthy=False,
)
PROXY_WITHOUT_AGENTA = Failure(
    Reason.UPSTREAM_FAILED,
    "A proxy in front of the completion service got no answer from it (HTTP {status}); it may be restarting. The "
    "request may have been billed: send it again only if being billed twice is acceptable.",
    may_have_run=True,
    transient=True,
    healthy=False,
)
PROXY_TIMEOUT = Failure(
    Reason.UPSTREAM_TIMEOUT,
    "A proxy in front of the completion service didn't wait long enough for it (HTTP {status}). The request may have "
    "been billed. Ask the operator of this service to raise the proxy's timeout.",
    may_have_run=True,
    transient=True,
    healthy=False,
)
AGENTA_TIMEOUT = Failure(
    Reason.UPSTREAM_TIMEOUT,
    "The model didn't answer Agenta in time (HTTP {status}). The request may have been billed: before sending it "
    "again, make it smaller.",
    may_have_run=True,
    healthy=False,
)
REJECTED = Failure(
    Reason.UPSTREAM_REJECTED,
    "The completion service refused the request (HTTP {status}). Ask the operator of this service to check the address "
    "of Agenta and the prompt that is deployed there.",
    may_have_run=False,
)
REJECTED_AFTER_RUN = replace(REJECTED, may_have_run=True)
UNUSABLE = Failure(
    Reason.UPSTREAM_OUTPUT_INVALID,
    "The completion service gave an unexpected answer (HTTP {status}). Ask the operator of this service to check the "
    "configured address of Agenta.",
    may_have_run=True,
)

# By the type and the beginning of Agenta's own sentence. Never by what may follow, which may quote the prompt.
_BY_STATUS_TYPE = {
    "invalid-inputs": WRONG_INPUTS,
    "invalid-secrets": NO_MODEL_CREDENTIAL,
    "missing-parameter": NOT_DEPLOYED,
}
_NOT_RETRIEVED = re.compile(r"Client error '404 Not Found' for url '\S*/revisions/retrieve'")
_UNREPLACED = re.compile(r"Error in messages\[\d+\]\.content: Unreplaced variables\b")
_NO_CONNECTION = re.compile(r"All connection attempts failed")
_PROVIDER_ERROR = re.compile(r"litellm\.(\w+):")
_QUOTA = re.compile(r"exceeded your current quota|insufficient_quota")
_BY_PROVIDER_ERROR = {
    "AuthenticationError": MODEL_CREDENTIAL_REJECTED,
    "PermissionDeniedError": MODEL_CREDENTIAL_REJECTED,
    "RateLimitError": PROVIDER_RATE_LIMITED,
    "NotFoundError": UNKNOWN_MODEL,
    "ContextWindowExceededError": PROMPT_TOO_LONG,
    "ContentPolicyViolationError": CONTENT_REFUSED,
    "Timeout": AGENTA_TIMEOUT,
}
_BY_HTTP_STATUS: dict[int, Callable[[Reply], Failure]] = {
    401: lambda _: CREDENTIALS_REJECTED,
    403: lambda _: CREDENTIALS_REJECTED,
    404: lambda reply: REJECTED if reply.is_from_agenta else PROXY_WITHOUT_ROUTE,
    405: lambda reply: REJECTED if reply.is_from_agenta else PROXY_WITHOUT_ROUTE,
    # With a trace, Agenta says so after the model has answered.
    406: lambda reply: REJECTED_AFTER_RUN if reply.trace_id else REJECTED,
    424: lambda _: PROVIDER_REFUSED,
    429: lambda _: RATE_LIMITED,
    502: lambda reply: FAILED if reply.is_from_agenta else PROXY_WITHOUT_AGENTA,
    # With a trace, Agenta has sent requests to the model, three as a rule.
    503: lambda reply: FAILED if reply.trace_id else UNAVAILABLE,
    504: lambda reply: AGENTA_TIMEOUT if reply.is_from_agenta else PROXY_TIMEOUT,
}
# Replacements for an inline prompt, which its sender can fix instead of the operator.
_OF_INLINE = {
    NOT_DEPLOYED: _misconfigured("Agenta can't read the prompt. Send it in the format of Agenta's playground."),
    WRONG_INPUTS: _misconfigured(
        "The inputs don't match the prompt. Give a value for each of its variables and 'input_keys'."
    ),
    UNFILLED_VARIABLES: _misconfigured("The prompt has variables without a value. Give a value for each of them."),
    NO_MODEL_CREDENTIAL: _misconfigured(
        "Agenta has no credential for the prompt's model, or doesn't know the model. Add the provider's key in Agenta, "
        "or choose another model."
    ),
    UNKNOWN_MODEL: _misconfigured("The model's provider doesn't have the prompt's model. Choose another one."),
    REJECTED: replace(
        REJECTED,
        message="The completion service refused the prompt (HTTP {status}). Try it in Agenta's playground, and ask the "
        "operator of this service whether Agenta is older than v0.96.0.",
    ),
    CREDENTIALS_REJECTED: replace(
        CREDENTIALS_REJECTED,
        message="Agenta doesn't let this credential run prompts (HTTP {status}). Use one that has the permission "
        "run_service in its project.",
    ),
    # The prompt may be the reason, so it isn't known whether Agenta works.
    FAILED: replace(FAILED, healthy=None),
}


def of_reply(reply: Reply, *, is_inline: bool = False) -> Failure | None:
    """Return how the run failed; ``None`` for a success, whose text may still be unusable.

    Args:
        reply: What Agenta said.
        is_inline: Whether the prompt is the caller's own, and not one that is deployed.
    """
    status = reply.http_status
    if status == HTTPStatus.OK:
        return None
    known = _by_agenta_status(reply) if status >= HTTPStatus.BAD_REQUEST else None
    failure = known or _BY_HTTP_STATUS.get(status, _by_class)(reply)
    return _OF_INLINE.get(failure, failure) if is_inline else failure


def _by_class(reply: Reply) -> Failure:
    return {3: REJECTED, 4: REJECTED, 5: FAILED}.get(reply.http_status // 100, UNUSABLE)


def _by_agenta_status(reply: Reply) -> Failure | None:
    if reply.failed is None:
        return None
    message = reply.failed.message
    if by_type := _BY_STATUS_TYPE.get(reply.failed.type.rpartition(":")[2]):
        return by_type
    if _UNREPLACED.match(message):
        return UNFILLED_VARIABLES
    if not reply.trace_id and _NOT_RETRIEVED.match(message):
        return NOT_DEPLOYED
    if not reply.trace_id and _NO_CONNECTION.match(message):
        return AGENTA_API_DOWN
    if found := _PROVIDER_ERROR.match(message):
        return _by_provider_error(found[1], message, reply.http_status)
    return None


def _by_provider_error(error: str, message: str, status: int) -> Failure | None:
    if error == "RateLimitError" and _QUOTA.search(message):
        return QUOTA_EXHAUSTED
    if failure := _BY_PROVIDER_ERROR.get(error):
        return failure
    return PROVIDER_FAILED if status >= HTTPStatus.INTERNAL_SERVER_ERROR else None


def is_missing_route(reply: Reply) -> bool:
    """Return whether Agenta or a proxy doesn't have the route, so that nothing ran."""
    absent = reply.http_status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED)
    return absent and reply.failed is None and not reply.trace_id


def of_connection(error: httpx.TransportError, seconds: float, most: float) -> Failure:
    """Return how a request failed that had ``seconds``, where others have ``most``.

    One that had much less can't tell that Agenta is slow: impatient callers must not speak for the patient ones.
    """
    if isinstance(error, TooManyOpenFiles):
        return TOO_MANY_OPEN_FILES
    if isinstance(error, httpx.ConnectTimeout):
        return replace(UNREACHABLE, healthy=False if seconds >= min(2 * MAX_CONNECT_SECONDS, most) else None)
    if isinstance(error, httpx.ConnectError):
        return UNREACHABLE
    if isinstance(error, httpx.ReadTimeout):
        return replace(TIMEOUT, healthy=False if seconds >= most / 2 else None)
    return UNREADABLE if isinstance(error, httpx.RemoteProtocolError) else BROKEN


def problem_of(reply: Reply, *, is_inline: bool = False) -> str:
    """Return why the text of a success is unusable, and what to do; empty if it is usable.

    Args:
        reply: What Agenta said.
        is_inline: Whether the prompt is the caller's own, and not one that is deployed.
    """
    if not reply.is_complete:
        most = f"{MAX_INLINE_BODY_BYTES // 1024} KiB" if is_inline else f"{MAX_BODY_BYTES // 1024**2} MiB"
        return f"it has more than {most} or {MAX_VALUES:,} values. Ask for less text."
    if not reply.is_plain:
        return (
            "it is compressed, which wasn't requested. Ask the operator to check the "
            "proxies between this service and Agenta."
        )
    if not reply.has_output:
        return (
            "it isn't one of Agenta's. Ask the operator to check the address, and the "
            "proxies between this service and Agenta."
        )
    if not isinstance(reply.output, str):
        return "it has no text. The model may have declined, or called a tool: reword the request, or ask the operator."
    if not _is_unicode(reply.output):
        return "its text is cut within a character. Send the request again, perhaps asking for less text."
    return ""


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
