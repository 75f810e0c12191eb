"""Finds faults that concern several settings together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.domain.deadline import MARGIN_SECONDS
from agenta_ai_server.settings.schema import name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agenta_ai_server.settings.schema import Settings

AUTH_NEEDS = {
    "api_keys": ["api_keys_file"],
    "jwt": ["jwt_issuer", "jwt_audience"],
    "agenta": ["api_url"],
    "mtls": ["mtls_principals_file", "tls_client_ca_file"],
}


def find_contradictions(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each, beginning with the name of a setting and a colon."""
    yield from _auth_faults(settings)
    yield from _tls_faults(settings)
    if settings.usage_metrics == "on" and not settings.metrics_listen:
        yield "AGENTA_AI_GRPC_USAGE_METRICS: needs AGENTA_AI_GRPC_METRICS_LISTEN, where the metrics are served."
    if settings.min_remaining_seconds + MARGIN_SECONDS >= settings.max_call_seconds:
        yield (
            "AGENTA_AI_GRPC_MIN_REMAINING_SECONDS: must be less than AGENTA_AI_GRPC_MAX_CALL_SECONDS, which is "
            f"{settings.max_call_seconds:g}, by more than {MARGIN_SECONDS:g}, or every call would be refused."
        )
    yield from _cases_faults(settings)
    if settings.result_storage == "encrypted" and settings.result_keys_file is None:
        yield "AGENTA_AI_GRPC_RESULT_STORAGE: 'encrypted' needs AGENTA_AI_GRPC_RESULT_KEYS_FILE."


def _cases_faults(settings: Settings) -> Iterator[str]:
    if not settings.offers_cases:
        return
    if settings.min_remaining_seconds + MARGIN_SECONDS >= settings.cases_max_seconds:
        yield (
            "AGENTA_AI_GRPC_CASES_MAX_SECONDS: must be more than AGENTA_AI_GRPC_MIN_REMAINING_SECONDS, which is "
            f"{settings.min_remaining_seconds:g}, by more than {MARGIN_SECONDS:g}, or every call would be refused."
        )
    if settings.cases_models and settings.upstream_route == "run":
        yield (
            "AGENTA_AI_GRPC_CASES_MODELS: needs the route invoke, and AGENTA_AI_GRPC_UPSTREAM_ROUTE is run. Set it to "
            "auto or invoke, or remove the models."
        )


def _auth_faults(settings: Settings) -> Iterator[str]:
    name = "AGENTA_AI_GRPC_AUTH"
    if not settings.auth:
        yield f"{name}: must be set: any of api_keys, jwt, agenta, mtls, or none to admit everybody who can connect."
    if "none" in settings.auth and len(settings.auth) > 1:
        yield f"{name}: 'none' admits everybody, so it can't be combined with other modes."
    if settings.auth == ("none",) and not settings.is_loopback and not settings.allow_no_auth:
        yield (
            f"{name}: 'none' on {settings.listen} would let other machines call. Choose another mode, listen on "
            "127.0.0.1, or set AGENTA_AI_GRPC_ALLOW_NO_AUTH=true if something else keeps them out."
        )
    for mode, needed in AUTH_NEEDS.items():
        missing = [name_of(field) for field in needed if getattr(settings, field) is None]
        if mode in settings.auth and missing:
            yield f"{name}: '{mode}' needs {' and '.join(missing)}."
    if "agenta" in settings.auth and not settings.agenta_allow:
        yield (
            "AGENTA_AI_GRPC_AGENTA_ALLOW: must be set with AGENTA_AI_GRPC_AUTH=agenta. Agenta checks permissions "
            "within each caller's own project, so every organization there would be admitted. List ids of "
            "organizations, projects or workspaces, or set * to admit them all."
        )
    if "jwt" in settings.auth and (settings.jwt_jwks_url is None) == (settings.jwt_jwks_file is None):
        yield f"{name}: 'jwt' needs either AGENTA_AI_GRPC_JWT_JWKS_URL or AGENTA_AI_GRPC_JWT_JWKS_FILE."


def _tls_faults(settings: Settings) -> Iterator[str]:
    if (settings.tls_cert_file is None) != (settings.tls_key_file is None):
        yield "AGENTA_AI_GRPC_TLS_CERT_FILE and AGENTA_AI_GRPC_TLS_KEY_FILE: each needs the other."
    elif settings.tls_client_ca_file and not settings.tls_cert_file:
        yield "AGENTA_AI_GRPC_TLS_CLIENT_CA_FILE: needs AGENTA_AI_GRPC_TLS_CERT_FILE and AGENTA_AI_GRPC_TLS_KEY_FILE."
