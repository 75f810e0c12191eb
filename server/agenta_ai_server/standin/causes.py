"""The failures of a run, as recorded from Agenta."""

from __future__ import annotations

FAILED = "https://agenta.ai/docs/errors#v1:sdk:unknown-workflow-invoke-error"
_INVALID_SECRETS = "https://agenta.ai/docs/misc/errors#v0:schemas:invalid-secrets"
_NOT_RETRIEVED = (
    "Client error '404 Not Found' for url 'http://127.0.0.1:8000/api/applications/revisions/retrieve'\n"
    "For more information check: https://developer.mozilla.org/en-US/docs/Web/HTTP/Status/404"
)

CAUSES = {
    "api-down": (500, "All connection attempts failed", FAILED, False),
    "model-credential": (
        424,
        "litellm.AuthenticationError: AuthenticationError: OpenAIException - Incorrect API key provided: sk-wro**ng.",
        FAILED,
        True,
    ),
    "no-model-credential": (
        400,
        "No API key found for model 'gpt-4o-mini'. Please add your provider's API key.",
        _INVALID_SECRETS,
        True,
    ),
    "not-deployed": (500, _NOT_RETRIEVED, FAILED, False),
    "provider-busy": (
        503,
        "litellm.ServiceUnavailableError: ServiceUnavailableError: OpenAIException - The engine is currently "
        "overloaded, please try again later",
        FAILED,
        True,
    ),
    "provider-down": (
        500,
        "litellm.InternalServerError: InternalServerError: OpenAIException - Connection error.",
        FAILED,
        True,
    ),
    "quota": (
        424,
        "litellm.RateLimitError: RateLimitError: OpenAIException - You exceeded your current quota, please check your "
        "plan and billing details.",
        FAILED,
        True,
    ),
    "rate-limit": (
        424,
        "litellm.RateLimitError: RateLimitError: OpenAIException - Rate limit reached for gpt-4o-mini.",
        FAILED,
        True,
    ),
    "too-long": (
        400,
        "litellm.ContextWindowExceededError: litellm.BadRequestError: ContextWindowExceededError: OpenAIException - "
        "This model's maximum context length is 128000 tokens.",
        FAILED,
        True,
    ),
    "unfilled-variable": (
        500,
        "Error in messages[0].content: Unreplaced variables in curly template: ['name'].",
        FAILED,
        True,
    ),
    "unknown-model": (
        404,
        "litellm.NotFoundError: OpenAIException - The model `gpt-nope` does not exist or you do not have access to it.",
        FAILED,
        True,
    ),
}
"""By the words that a fault has for them: HTTP status, Agenta's sentence, its type, and whether the run has a trace."""
