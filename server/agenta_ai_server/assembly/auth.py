"""Authentication and access policy. Modes that are off aren't built, and their libraries aren't imported."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, assert_never

from agenta_ai_server.assembly.resources import given, secret
from agenta_ai_server.auth.authenticator import CredentialRouter
from agenta_ai_server.auth.policy import NAMES_IN_AGENTA, AccessPolicy
from agenta_ai_server.settings import SettingsError

if TYPE_CHECKING:
    from agenta_ai_server.assembly.resources import Resources
    from agenta_ai_server.auth.authenticator import Authenticator
    from agenta_ai_server.settings import AuthMode, Settings
    from agenta_ai_server.tools.catalog import Catalog

# The order in which they may accept a credential: API keys first, so that our own keys are never sent elsewhere.
AUTH_ORDER: tuple[AuthMode, ...] = ("api_keys", "jwt", "agenta", "mtls", "none")

log = logging.getLogger(__name__)


def build_policy(settings: Settings) -> AccessPolicy:
    """Build the access policy."""
    return AccessPolicy(settings.required_permissions)


def build_authenticator(
    settings: Settings, resources: Resources, policy: AccessPolicy, catalog: Catalog
) -> Authenticator | None:
    """Build the authenticator; ``None`` if everyone may call."""
    if settings.auth == ("none",):
        log.warning("AGENTA_AI_GRPC_AUTH is none: anyone who can reach %s may call", settings.listen)
        return None
    modes = sorted(settings.auth, key=AUTH_ORDER.index)
    built = [_build(mode, settings, resources, policy, catalog) for mode in modes]
    authenticators = [authenticator for authenticator in built if authenticator]
    router = CredentialRouter(authenticators)
    resources.on_close(router.aclose)
    return router


def _build(
    mode: AuthMode, settings: Settings, resources: Resources, policy: AccessPolicy, catalog: Catalog
) -> Authenticator | None:
    match mode:
        case "api_keys":
            return _api_keys(settings, resources)
        case "mtls":
            from agenta_ai_server.auth.mtls import MtlsAuthenticator

            with resources.faults_of("AGENTA_AI_GRPC_MTLS_PRINCIPALS_FILE"):
                return MtlsAuthenticator(given(settings.mtls_principals_file))
        case "jwt":
            return _jwt(settings, resources)
        case "agenta":
            return _agenta(settings, resources, policy, catalog)
        case "none":
            return None
        case _:
            assert_never(mode)
    return None


def _api_keys(settings: Settings, resources: Resources) -> Authenticator | None:
    from agenta_ai_server.auth.api_keys import ApiKeyAuthenticator

    async def start() -> None:
        try:
            await authenticator.start()
        except ValueError as error:
            raise SettingsError([f"AGENTA_AI_GRPC_API_KEYS_FILE: {error}."]) from None

    with resources.faults_of("AGENTA_AI_GRPC_API_KEYS_FILE"):
        authenticator = ApiKeyAuthenticator(given(settings.api_keys_file))
        resources.on_start(start)
        return authenticator
    return None


def _jwt(settings: Settings, resources: Resources) -> Authenticator | None:
    from agenta_ai_server.auth.jwt import JwtAuthenticator, JwtConfig

    with resources.faults_of("AGENTA_AI_GRPC_AUTH: jwt"):
        config = JwtConfig(
            issuer=given(settings.jwt_issuer),
            audience=given(settings.jwt_audience),
            jwks_url=settings.jwt_jwks_url,
            jwks_file=settings.jwt_jwks_file,
            claims=settings.jwt_claims,
        )
        # The values are good by now, and only the file may be bad.
        with resources.faults_of("AGENTA_AI_GRPC_JWT_JWKS_FILE"):
            authenticator = JwtAuthenticator(config)
            resources.on_start(authenticator.start)
            return authenticator
    return None


def _agenta(settings: Settings, resources: Resources, policy: AccessPolicy, catalog: Catalog) -> Authenticator | None:
    from agenta_ai_server.auth.agenta import AgentaAuthConfig, AgentaAuthenticator

    with resources.faults_of("AGENTA_AI_GRPC_AUTH: agenta"):
        authenticator = AgentaAuthenticator(
            AgentaAuthConfig(
                api_url=given(settings.api_url),
                permissions=policy.permissions(catalog.current),
                names=NAMES_IN_AGENTA,
                allow=frozenset(settings.agenta_allow),
                allow_seconds=settings.agenta_auth_seconds,
                deny_seconds=min(settings.agenta_auth_seconds, 10.0),
                ca_file=settings.upstream_ca_file,
                proxy=secret(settings.upstream_proxy),
            )
        )
        catalog.on_change(lambda tools: authenticator.ask_about(policy.permissions(tools)))
        return authenticator
    return None
