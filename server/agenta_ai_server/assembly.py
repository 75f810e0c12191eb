"""Makes the parts of the service from its settings. What is off isn't made, and its libraries aren't imported."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from agenta_ai import __version__
from agenta_ai_server.agenta.completions import AgentaCompletionService, AgentaConfig
from agenta_ai_server.auth.authenticator import CredentialRouter
from agenta_ai_server.auth.policy import AccessPolicy
from agenta_ai_server.concurrency.limiter import ConcurrencyLimiter
from agenta_ai_server.domain.listener import CallListener, CallListeners
from agenta_ai_server.domain.reloading_file import ReloadingFile
from agenta_ai_server.domain.server_state import ServerState
from agenta_ai_server.idempotency.fallback import LocalFallback
from agenta_ai_server.idempotency.in_flight import InFlightCalls
from agenta_ai_server.idempotency.memory import MemoryStore
from agenta_ai_server.idempotency.store import StoreState
from agenta_ai_server.limits.limiter import LimiterState
from agenta_ai_server.limits.limits import RateLimits
from agenta_ai_server.limits.memory import MemoryLimiter
from agenta_ai_server.limits.policy import LimitPolicy
from agenta_ai_server.resilience.circuit_breaker import Breaker, CircuitBreakingCompletions, State
from agenta_ai_server.resilience.retry import RetryingCompletions
from agenta_ai_server.rpc import reflection
from agenta_ai_server.rpc.admission import ConcurrencyLimit
from agenta_ai_server.rpc.authentication import Anonymous, Authentication
from agenta_ai_server.rpc.authorization import Authorization
from agenta_ai_server.rpc.idempotency import Idempotency
from agenta_ai_server.rpc.parsing import Parsing
from agenta_ai_server.rpc.rate_limit import RateLimit
from agenta_ai_server.rpc.server import ListenError, Server
from agenta_ai_server.rpc.servicer import ToolServicer
from agenta_ai_server.settings import SettingsError
from agenta_ai_server.telemetry.call_log import AuditLog, CallLog
from agenta_ai_server.telemetry.trace_context import PassingOn
from agenta_ai_server.tools.registry import Dependencies, Registry, discover

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from pydantic import SecretStr

    from agenta_ai_server.agenta.completion import CompletionService
    from agenta_ai_server.auth.authenticator import Authenticator
    from agenta_ai_server.idempotency.store import Store
    from agenta_ai_server.limits.limiter import RateLimiter
    from agenta_ai_server.rpc.interceptor import Interceptor
    from agenta_ai_server.rpc.server import GenericHandler
    from agenta_ai_server.rpc.tls import Certificates
    from agenta_ai_server.settings import AuthMode, Settings
    from agenta_ai_server.telemetry.metrics import Metrics, MetricsServer

# In which they may accept credentials; an API key of our own making is never shown to anybody else.
AUTH_ORDER: tuple[AuthMode, ...] = ("api_keys", "jwt", "agenta", "mtls")

# Those that need no place: of Status, of repeats that join a run, and those that are about to be refused.
MORE_CALLS = 10_000
# Seconds at the end in which spans that haven't been sent yet are.
MAX_FLUSH_SECONDS = 5.0
# The values of the metrics of these names, which their descriptions explain.
BREAKER_STATES = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}
LIMITER_STATES = {LimiterState.SHARED: 0, LimiterState.LOCAL: 1, LimiterState.FALLBACK: 2}
STORE_STATES = {StoreState.SHARED: 0, StoreState.LOCAL: 1, StoreState.FALLBACK: 2}

Value = TypeVar("Value")

log = logging.getLogger(__name__)


class Assembly:
    """The parts, made and not yet started.

    Args:
        settings: What to make.

    Attributes:
        service: The process.
        server: Its listener.
        runs: What it runs for those who repeat their calls.
        starting: What to await before the listener opens, in this order.
        closing: What to await after it has closed, in the opposite order.

    Raises:
        SettingsError: With every setting that has a fault which only shows when it is used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._faults: list[str] = []
        self.starting: list[Callable[[], Awaitable[object]]] = []
        self.closing: list[Callable[[], Awaitable[object]]] = []
        self.service = ServerState(version=__version__, missing_settings=settings.missing)
        self._breaker: Breaker | None = None
        # First, so that they see what the others do until these have closed.
        self._metrics = self._made_metrics()
        audit = AuditLog()
        self.closing.append(audit.aclose)
        self._listener = self._listeners(audit)
        registry = self._registry()
        policy = AccessPolicy({tool.name: tool.permission for tool in registry.tools}, settings.required_permissions)
        authentication = self._authentication(policy)
        self._redis_url = self._checked_redis_url()
        limits = self._limits(registry)
        store = self._replay_store()
        self.runs = InFlightCalls(store, settings.max_call_seconds)
        self.closing.append(self.runs.aclose)
        certificates = self._certificates()
        if settings.reuse_port and not settings.redis_url:
            log.warning(
                "processes that share the port count rate limits and know request_ids each for itself: give "
                "them an AGENTA_AI_GRPC_REDIS_URL"
            )
        if self._faults:
            raise SettingsError(self._faults)
        parsing = Parsing([tool.name for tool in registry.tools])
        interceptors: list[Interceptor | Parsing] = [authentication, parsing]
        interceptors.append(Authorization(self.service, policy, registry))
        interceptors.append(Idempotency(self.runs, settings.min_upstream_seconds))
        if limits:
            interceptors.append(RateLimit(limits))
        admission = ConcurrencyLimiter(
            settings.max_in_flight, settings.max_waiting, min_seconds=settings.min_upstream_seconds
        )
        interceptors.append(ConcurrencyLimit(admission))
        if self._metrics:
            self._add_gauges(self._metrics, admission, limits, store, certificates)
        self.server = Server(
            ToolServicer(self.service, registry, policy, limits),
            interceptors,
            more=(*_reflection(settings, authentication, audit), *_channelz(settings, authentication, audit)),
            tls=certificates,
            max_call_seconds=settings.max_call_seconds,
            max_connection_age_seconds=settings.max_connection_age_seconds,
            max_pending_calls=settings.max_in_flight + settings.max_waiting + MORE_CALLS,
            reuse_port=settings.reuse_port,
            listener=self._listener,
        )

    @contextmanager
    def _faults_of(self, name: str) -> Iterator[None]:
        """Note what is wrong with the setting of this ``name``, so that the next fault is found too."""
        try:
            yield
        except ValueError as error:
            self._faults.append(f"{name}: {str(error).rstrip('.')}.")
        except ModuleNotFoundError as error:
            self._faults.append(f"{name}: needs {error.name}: pip install 'agenta-ai[redis]'.")

    def _made_metrics(self) -> Metrics | None:
        address = self._settings.metrics_listen
        if not address:
            return None
        from agenta_ai_server.telemetry.metrics import Metrics, MetricsServer

        metrics = Metrics(__version__)
        server = MetricsServer(metrics, address)
        self.starting.append(lambda: _open(server, address))
        self.closing.append(server.aclose)
        return metrics

    def _listeners(self, audit: AuditLog) -> CallListener:
        # What knows the trace comes before those that tell it.
        listeners = [self._tracing(), CallLog(self._settings.log_sample), audit]
        return CallListeners([*listeners, self._metrics] if self._metrics else listeners)

    def _tracing(self) -> CallListener:
        settings = self._settings
        if not settings.traces_url:
            return PassingOn()
        try:
            from agenta_ai_server.telemetry.tracing import Tracing
        except ModuleNotFoundError as error:
            self._faults.append(f"OTEL_EXPORTER_OTLP_ENDPOINT: needs {error.name}: pip install 'agenta-ai[tracing]'.")
            return PassingOn()
        tracing = Tracing(
            settings.traces_url,
            service=settings.otel_service_name,
            version=__version__,
            flush_seconds=min(settings.shutdown_grace_seconds, MAX_FLUSH_SECONDS),
        )
        self.closing.append(tracing.aclose)
        return tracing

    def _add_gauges(
        self,
        metrics: Metrics,
        admission: ConcurrencyLimiter,
        limits: RateLimits | None,
        store: Store,
        certificates: Certificates | None,
    ) -> None:
        metrics.gauge("agenta_ai_in_flight", "Tools that run now.", lambda: admission.in_flight)
        metrics.gauge("agenta_ai_waiting", "Calls that wait for a place now.", lambda: admission.waiting)
        if breaker := self._breaker:
            metrics.gauge(
                "agenta_ai_breaker_state",
                "Whether Agenta is asked: 0 closed, it is; 1 half-open, by one call at a time; 2 open, it isn't.",
                lambda: BREAKER_STATES[breaker.state],
            )
        if limits:
            metrics.gauge(
                "agenta_ai_limiter_state",
                "Where rate limits are counted: 0 in the shared Redis; 1 in this process, as it is set; 2 in this "
                "process or nowhere, because Redis fails.",
                lambda: LIMITER_STATES[limits.state],
            )
        metrics.gauge(
            "agenta_ai_replay_store_state",
            "Where repeats find results: 0 in the shared Redis; 1 in this process, as it is set; 2 in this process or "
            "nowhere, because Redis fails.",
            lambda: STORE_STATES[store.state],
        )
        if certificates:
            metrics.gauge(
                "agenta_ai_certificate_expiry_seconds",
                "When the first certificate of the server's chain expires, in seconds since the epoch.",
                lambda: certificates.expires,
            )

    def _registry(self) -> Registry:
        settings = self._settings
        completions = self._completions()
        if completions is None or settings.refine_prompt_key is None:
            return Registry()
        apps = {"refine_prompt": settings.refine_prompt_key}
        tools = discover(Dependencies(completions, apps, repairs=settings.repairs))
        with self._faults_of("AGENTA_AI_GRPC_DISABLED_TOOLS"):
            return Registry(tools, settings.disabled_tools)
        return Registry()

    def _completions(self) -> CompletionService | None:
        settings = self._settings
        config = agenta_config(settings)
        if config is None:
            return None
        completions: CompletionService | None = None
        with self._faults_of("AGENTA_AI_SERVICES_API_KEY_FILE"):
            completions = AgentaCompletionService(config, self._listener)
        if completions is None:
            return None
        if settings.breaker == "on":
            self._breaker = Breaker(on_change=self._note_breaker)
            completions = CircuitBreakingCompletions(completions, self._breaker)
        # Outside the breaker, so that each request counts there.
        completions = RetryingCompletions(
            completions,
            retries=settings.retries,
            max_seconds=settings.max_upstream_seconds,
            least_seconds=config.least_seconds,
            unsafe=settings.retry_unsafe,
        )
        self.closing.append(completions.aclose)
        return completions

    def _note_breaker(self, state: State) -> None:
        self.service.degraded = state is not State.CLOSED

    def _authentication(self, policy: AccessPolicy) -> Authentication | Anonymous:
        settings = self._settings
        if settings.auth == ("none",):
            log.warning("AGENTA_AI_GRPC_AUTH is none: everybody who can reach %s may call", settings.listen)
            return Anonymous()
        made = [self._authenticator(mode, policy) for mode in AUTH_ORDER if mode in settings.auth]
        authenticators = [authenticator for authenticator in made if authenticator]
        self.closing += [authenticator.aclose for authenticator in authenticators]
        return Authentication(CredentialRouter(authenticators))

    def _authenticator(self, mode: AuthMode, policy: AccessPolicy) -> Authenticator | None:
        match mode:
            case "api_keys":
                from agenta_ai_server.auth.api_keys import ApiKeyAuthenticator

                with self._faults_of("AGENTA_AI_GRPC_API_KEYS_FILE"):
                    return ApiKeyAuthenticator(_given(self._settings.api_keys_file))
            case "mtls":
                from agenta_ai_server.auth.mtls import MtlsAuthenticator

                with self._faults_of("AGENTA_AI_GRPC_MTLS_PRINCIPALS_FILE"):
                    return MtlsAuthenticator(_given(self._settings.mtls_principals_file))
            case "jwt":
                return self._jwt()
            case _:
                with self._faults_of("AGENTA_AI_GRPC_AUTH: agenta"):
                    return self._agenta(policy)
        return None

    def _jwt(self) -> Authenticator | None:
        from agenta_ai_server.auth.jwt import JwtAuthenticator, JwtConfig

        settings = self._settings
        with self._faults_of("AGENTA_AI_GRPC_AUTH: jwt"):
            config = JwtConfig(
                issuer=_given(settings.jwt_issuer),
                audience=_given(settings.jwt_audience),
                jwks_url=settings.jwt_jwks_url,
                jwks_file=settings.jwt_jwks_file,
                algorithms=settings.jwt_algorithms,
                leeway=settings.jwt_leeway_seconds,
                claims=settings.jwt_claims,
            )
            # The values are good by now, and only the file may be bad.
            with self._faults_of("AGENTA_AI_GRPC_JWT_JWKS_FILE"):
                authenticator = JwtAuthenticator(config)
                self.starting.append(authenticator.start)
                return authenticator
        return None

    def _agenta(self, policy: AccessPolicy) -> Authenticator:
        from agenta_ai_server.auth.agenta import AgentaAuthConfig, AgentaAuthenticator

        settings = self._settings
        return AgentaAuthenticator(
            AgentaAuthConfig(
                api_url=_given(settings.api_url),
                permissions=policy.permissions,
                names=settings.agenta_permissions,
                allow_seconds=settings.agenta_auth_seconds,
                deny_seconds=min(settings.agenta_auth_seconds, 10.0),
                ca_file=settings.upstream_ca_file,
                proxy=_secret(settings.upstream_proxy),
            )
        )

    def _checked_redis_url(self) -> str | None:
        """Return where Redis is, if it is used and can be."""
        url = _secret(self._settings.redis_url)
        if url is None:
            return None
        with self._faults_of("AGENTA_AI_GRPC_REDIS_URL"):
            from agenta_ai_server.limits.redis import RedisLimiter

            RedisLimiter(url)
            return url
        return None

    def _limits(self, registry: Registry) -> RateLimits | None:
        settings = self._settings
        if settings.limits == "off":
            return None
        names = [tool.name for tool in registry.tools]
        policy = None
        if settings.limits_file:
            with self._faults_of("AGENTA_AI_GRPC_LIMITS_FILE"):
                policy = ReloadingFile(settings.limits_file, lambda content: LimitPolicy.parse(content, names))
        limiter = self._limiter()
        self.starting.append(limiter.connect)
        self.closing.append(limiter.aclose)
        return RateLimits(policy, limiter)

    def _replay_store(self) -> Store:
        settings = self._settings
        local = MemoryStore(settings.replay_seconds)
        store: Store = local
        if self._redis_url:
            from agenta_ai_server.idempotency.redis import RedisStore

            with self._faults_of("AGENTA_AI_GRPC_REDIS_URL"):
                shared = RedisStore(
                    self._redis_url,
                    replay_seconds=settings.replay_seconds,
                    timeout=settings.redis_timeout_seconds,
                )
                self.starting.append(shared.connect)
                self.closing.append(shared.aclose)
                store = shared if settings.replay_on_store_failure == "refuse" else LocalFallback(shared, local)
        return store

    def _limiter(self) -> RateLimiter:
        settings = self._settings
        if self._redis_url:
            from agenta_ai_server.limits.fallback import FallbackLimiter
            from agenta_ai_server.limits.redis import RedisLimiter

            with self._faults_of("AGENTA_AI_GRPC_REDIS_URL"):
                shared = RedisLimiter(self._redis_url, timeout=settings.redis_timeout_seconds)
                return FallbackLimiter(shared, MemoryLimiter(), on_failure=settings.limits_on_store_failure)
        return MemoryLimiter()

    def _certificates(self) -> Certificates | None:
        settings = self._settings
        if not (settings.tls_cert_file and settings.tls_key_file):
            return None
        from agenta_ai_server.rpc.tls import Certificates, TlsFiles, read_authorities, read_certificates, read_key

        found = len(self._faults)
        self._read_once("AGENTA_AI_GRPC_TLS_CERT_FILE", settings.tls_cert_file, read_certificates)
        self._read_once("AGENTA_AI_GRPC_TLS_KEY_FILE", settings.tls_key_file, read_key)
        self._read_once("AGENTA_AI_GRPC_TLS_CLIENT_CA_FILE", settings.tls_client_ca_file, read_authorities)
        if len(self._faults) > found:
            return None
        # Each for itself is good; they may still not fit together.
        with self._faults_of("AGENTA_AI_GRPC_TLS_CERT_FILE"):
            return Certificates(TlsFiles(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file))
        return None

    def _read_once(self, name: str, path: Path | None, read: Callable[[bytes], object]) -> None:
        """Note what is wrong with the file that the setting of this ``name`` names."""
        with self._faults_of(name):
            if path:
                ReloadingFile(path, read)


def agenta_config(settings: Settings) -> AgentaConfig | None:
    """Return how Agenta is asked; ``None`` if the settings don't say all of it."""
    if not (settings.api_url and settings.api_key and settings.environment_slug):
        return None
    return AgentaConfig(
        api_url=settings.api_url,
        api_key=settings.api_key.get_secret_value(),
        api_key_file=settings.api_key_file,
        environment=settings.environment_slug,
        ca_file=settings.upstream_ca_file,
        proxy=_secret(settings.upstream_proxy),
        max_seconds=settings.max_upstream_seconds,
        min_seconds=settings.min_upstream_seconds,
    )


async def _open(server: MetricsServer, address: str) -> None:
    try:
        await server.start()
    except OSError as error:
        raise ListenError(
            f"can't serve metrics on {address}: it is in use, or no address of this machine.",
            "AGENTA_AI_GRPC_METRICS_LISTEN",
        ) from error


def _reflection(
    settings: Settings, authentication: Authentication | Anonymous, listener: CallListener
) -> tuple[GenericHandler, ...]:
    if settings.reflection == "off":
        return ()
    return tuple(
        reflection.handlers(authentication.identify if settings.reflection == "authenticated" else None, listener)
    )


def _channelz(
    settings: Settings, authentication: Authentication | Anonymous, listener: CallListener
) -> tuple[GenericHandler, ...]:
    if settings.channelz == "off":
        return ()
    from agenta_ai_server.rpc import channelz

    return (channelz.handler(authentication.identify, listener),)


def _given(value: Value | None) -> Value:
    """Return what the settings have already been checked to hold."""
    if value is None:
        raise AssertionError("a setting is missing that others need")
    return value


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value else None
