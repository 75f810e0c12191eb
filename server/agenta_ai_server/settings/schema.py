"""Every setting: its name in the environment, default, bounds, meaning, and when to set it.

One class for each group. To add a setting, add a field to its group; ``make docs`` writes docs/configuration.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping  # noqa: TC003  # pydantic looks it up
from pathlib import Path  # noqa: TC003
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from agenta_ai_server.domain.agenta_url import check_agenta_url, check_key
from agenta_ai_server.domain.http_url import check_no_credentials, check_proxy_url
from agenta_ai_server.redis.url import check_redis_url
from agenta_ai_server.settings.values import (
    AllowedIds,
    CaFile,
    IpAddress,
    ListenAddress,
    Names,
    Pairs,
    checked_by,
    split_names,
)
from agenta_ai_server.telemetry import otel_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

AuthMode: TypeAlias = Literal["api_keys", "jwt", "agenta", "mtls", "none"]
OnOff: TypeAlias = Literal["on", "off"]

LOOPBACK = re.compile(r"(127(\.\d{1,3}){3}|\[::1\]):\d+|unix:.+")
# A caller may have a connection of its own, and its request to Agenta has one.
FILES_PER_CALL = 2
OTHER_FILES = 500
# The largest value of an option of grpc.
MAX_INT = 2**31 - 1
# No deployed prompt is waited for longer: Agenta's own REST endpoint ends here, too.
MAX_UPSTREAM_SECONDS = 60.0


def setting(name: str, meaning: str, when: str, *, default: Any = None, **bounds: float) -> Any:
    """Declare a setting.

    Args:
        name: Its name in the environment.
        meaning: What it is, in a sentence.
        when: When to set it, in a sentence.
        default: Its value if it isn't set.
        bounds: ``ge``, ``gt`` and ``le``, as pydantic takes them.
    """
    return Field(default, alias=name, description=meaning, json_schema_extra={"when": when}, **bounds)  # type: ignore[call-overload]


class Group(BaseModel):
    """Settings that belong together.

    Attributes:
        title: What they are about, for people.
    """

    # Only the settings as a whole are validated, so that no validator of a single group is ever needed.
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True, defer_build=True)
    title: ClassVar[str]


class Agenta(Group):
    """The address of Agenta, and the refine prompt there."""

    title = "Agenta"

    api_url: Annotated[str | None, checked_by(check_agenta_url)] = setting(
        "AGENTA_AI_SERVICES_API_URL",
        "URL of Agenta, for example https://cloud.agenta.ai.",
        "Always: without it, prompts can't be run.",
    )
    api_key: Annotated[SecretStr | None, checked_by(check_key)] = setting(
        "AGENTA_AI_SERVICES_API_KEY",
        "The server's API key in Agenta. A file is reloaded when it changes.",
        "Always. A viewer's key is enough. A key in a file can be rotated without a restart.",
    )
    environment_slug: str | None = setting(
        "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG",
        "Slug of the environment in Agenta in which the prompts are deployed.",
        "Always: it separates staging from production.",
    )
    refine_prompt_key: str | None = setting(
        "AGENTA_AI_SERVICES_REFINE_PROMPT_KEY",
        "Slug of the application in Agenta with the prompt that refines prompts.",
        "To offer refine_prompt; without it, that tool is disabled.",
    )
    # Given as AGENTA_AI_SERVICES_API_KEY_FILE, which every secret has.
    api_key_file: Path | None = None


class Listener(Group):
    """The port."""

    title = "Listener"

    listen: ListenAddress = setting(
        "AGENTA_AI_GRPC_LISTEN",
        "Address to listen on: 127.0.0.1:50051, [::1]:50051 or unix:path.",
        "To serve other machines (0.0.0.0:50051) or a local proxy.",
        default="127.0.0.1:50051",
    )
    reuse_port: bool = setting(
        "AGENTA_AI_GRPC_REUSE_PORT",
        "Share the port with other processes that also set this. The kernel distributes connections among them.",
        "To run a process per core without a load balancer.",
        default=False,
    )
    tls_cert_file: Path | None = setting(
        "AGENTA_AI_GRPC_TLS_CERT_FILE",
        "PEM file with the server's certificate and its chain.",
        "If callers connect over a network and no proxy terminates TLS.",
    )
    tls_key_file: Path | None = setting(
        "AGENTA_AI_GRPC_TLS_KEY_FILE", "PEM file with the certificate's private key.", "Together with the certificate."
    )
    tls_client_ca_file: Path | None = setting(
        "AGENTA_AI_GRPC_TLS_CLIENT_CA_FILE",
        "PEM file with the certificate authorities of callers. Every caller then needs a certificate.",
        "For mutual TLS.",
    )
    reflection: OnOff = setting(
        "AGENTA_AI_GRPC_REFLECTION",
        "Whether the server describes its contract to anyone who can connect, as grpcurl needs.",
        "To turn reflection off, for example because a security scanner reports it.",
        default="on",
    )


class Authentication(Group):
    """Who may call."""

    title = "Authentication and authorization"

    auth: Annotated[tuple[AuthMode, ...], BeforeValidator(split_names)] = setting(
        "AGENTA_AI_GRPC_AUTH",
        "How callers are authenticated: any of api_keys, jwt, agenta, mtls; or none, which admits anyone who can "
        "connect.",
        "Always: there is no default.",
        default=(),
    )
    allow_no_auth: bool = setting(
        "AGENTA_AI_GRPC_ALLOW_NO_AUTH",
        "Allow AGENTA_AI_GRPC_AUTH=none on an address that other machines can reach.",
        "If a service mesh authenticates callers.",
        default=False,
    )
    required_permissions: Annotated[
        tuple[Literal["view_ai_services", "run_ai_services"], ...], BeforeValidator(split_names)
    ] = setting(
        "AGENTA_AI_GRPC_REQUIRED_PERMISSIONS",
        "Permissions that every caller needs in addition to those of the tools: view_ai_services, run_ai_services.",
        "To admit only some of the callers who have a tool's permission.",
        default=(),
    )
    api_keys_file: Path | None = setting(
        "AGENTA_AI_GRPC_API_KEYS_FILE",
        "File with the hashes of the API keys that 'agenta-ai-server keys' creates.",
        "For api_keys.",
    )
    jwt_issuer: str | None = setting("AGENTA_AI_GRPC_JWT_ISSUER", "Issuer of the tokens: their claim iss.", "For jwt.")
    jwt_audience: str | None = setting(
        "AGENTA_AI_GRPC_JWT_AUDIENCE", "Audience of the tokens: their claim aud.", "For jwt."
    )
    jwt_jwks_url: Annotated[str | None, checked_by(check_no_credentials)] = setting(
        "AGENTA_AI_GRPC_JWT_JWKS_URL",
        "URL of the issuer's key set, https://…",
        "For jwt, unless the keys are in a file.",
    )
    jwt_jwks_file: Path | None = setting(
        "AGENTA_AI_GRPC_JWT_JWKS_FILE",
        "File with the issuer's key set, reloaded when it changes.",
        "If the server can't reach the issuer.",
    )
    jwt_claims: Pairs = setting(
        "AGENTA_AI_GRPC_JWT_CLAIMS",
        "Names of the claims for user, project, workspace, organization, plan and permissions, if they "
        "differ from these, for example organization=org_id,permissions=scope.",
        "If the issuer uses other names.",
        default={},
    )
    agenta_allow: AllowedIds = setting(
        "AGENTA_AI_GRPC_AGENTA_ALLOW",
        "Ids of the organizations, projects or workspaces in Agenta whose members may call; or * for all of them.",
        "For agenta: otherwise every organization of a shared Agenta could call at this service's expense.",
        default=(),
    )
    agenta_auth_seconds: float = setting(
        "AGENTA_AI_GRPC_AGENTA_AUTH_SECONDS",
        "Seconds for which Agenta's approval of a caller is cached.",
        "To make revocation take effect sooner, or to ask Agenta less often.",
        default=60,
        ge=0,
        le=3600,
    )
    mtls_principals_file: Path | None = setting(
        "AGENTA_AI_GRPC_MTLS_PRINCIPALS_FILE",
        "File that maps the names in callers' certificates to principals.",
        "For mtls.",
    )


class Tools(Group):
    """Tools, and the requests to Agenta."""

    title = "Tools and requests to Agenta"

    tools_file: Path | None = setting(
        "AGENTA_AI_GRPC_TOOLS_FILE",
        "TOML file that defines which deployed prompts are tools, reloaded when it changes: docs/tools.md.",
        "To offer prompts of your own.",
    )
    disabled_tools: Names = setting(
        "AGENTA_AI_GRPC_DISABLED_TOOLS",
        "Names of tools to disable.",
        "To turn off a tool in an incident, or permanently.",
        default=(),
    )
    repairs: int = setting(
        "AGENTA_AI_GRPC_REPAIRS",
        "How many times the model is asked again if its answer would break the prompt.",
        "Each repair is billed; 0 turns them off.",
        default=1,
        ge=0,
        le=3,
    )
    upstream_ca_file: CaFile | None = setting(
        "AGENTA_AI_GRPC_UPSTREAM_CA_FILE",
        "PEM file with the certificate authorities for Agenta's certificate, in place of the public ones.",
        "If Agenta's certificate is from a private authority.",
    )
    upstream_proxy: Annotated[SecretStr | None, checked_by(check_proxy_url)] = setting(
        "AGENTA_AI_GRPC_UPSTREAM_PROXY",
        "HTTP proxy for requests to Agenta: http://host:port.",
        "If the network reaches Agenta only through a proxy.",
    )
    upstream_route: Literal["auto", "invoke", "run"] = setting(
        "AGENTA_AI_GRPC_UPSTREAM_ROUTE",
        "Route that runs prompts. invoke needs Agenta v0.96.0; run exists in all versions; auto uses invoke if "
        "it exists.",
        "If a proxy allows only one of the routes.",
        default="auto",
    )
    upstream_keepalive: OnOff = setting(
        "AGENTA_AI_GRPC_UPSTREAM_KEEPALIVE",
        "Whether connections to Agenta are reused.",
        "Set it to off behind a proxy that may answer a request twice, so that a late response can't reach another "
        "call.",
        default="on",
    )
    retries: int = setting(
        "AGENTA_AI_GRPC_RETRIES",
        "How many times a request to Agenta is retried if nothing can have been billed.",
        "Set it to 0 if something else retries, such as a service mesh.",
        default=2,
        ge=0,
        le=5,
    )
    retry_unsafe: bool = setting(
        "AGENTA_AI_GRPC_RETRY_UNSAFE",
        "Also retry after a timeout or a broken response, when the request may have been billed.",
        "If paying twice is better than failing.",
        default=False,
    )
    breaker: OnOff = setting(
        "AGENTA_AI_GRPC_BREAKER",
        "Whether a circuit breaker stops requests to Agenta for a while when half of them fail.",
        "Set it to off to see each failure in development, or if another breaker is in front of Agenta.",
        default="on",
    )


class Cases(Group):
    """The tool that refines a prompt against test cases."""

    title = "Refining against test cases"

    cases_models: Names = setting(
        "AGENTA_AI_GRPC_CASES_MODELS",
        "Models that callers without Agenta's credentials may use for test cases, for example gpt-4o-mini,gpt-4o. "
        "The server's key pays for them. Without this setting, only callers who authenticate through "
        "AGENTA_AI_GRPC_AUTH=agenta can use refine_prompt_with_cases.",
        "If this service pays for the test cases of all callers.",
        default=(),
    )
    cases_max_tokens: int = setting(
        "AGENTA_AI_GRPC_CASES_MAX_TOKENS",
        "Maximum tokens (prompts and answers) for the runs of one call, if the server's key pays for them. A call "
        "that could need more is refused before anything is billed. Each byte of a prompt counts as a token.",
        "To limit what a call can cost, together with AGENTA_AI_GRPC_CASES_MODELS.",
        default=200_000,
        ge=1000,
        le=100_000_000,
    )
    cases_max_seconds: float = setting(
        "AGENTA_AI_GRPC_CASES_MAX_SECONDS",
        "Maximum duration of a call of refine_prompt_with_cases, in place of AGENTA_AI_GRPC_MAX_CALL_SECONDS; also "
        "the deadline of calls without one.",
        "If models are slow, or a proxy gives up earlier.",
        default=300,
        gt=0,
        le=3600,
    )


class Calls(Group):
    """The duration and number of calls, and repeats of a request_id."""

    title = "Time, load and request_ids"

    max_call_seconds: float = setting(
        "AGENTA_AI_GRPC_MAX_CALL_SECONDS",
        "Maximum duration of a call, including retries and repairs; also the deadline of calls without one. A single "
        "request to Agenta takes at most 60 seconds.",
        "If proxies or callers give up earlier, or prompts take longer.",
        default=90,
        gt=0,
        le=600,
    )
    min_remaining_seconds: float = setting(
        "AGENTA_AI_GRPC_MIN_REMAINING_SECONDS",
        "A call with less time left before its deadline is refused before anything is billed.",
        "Set it to the shortest time that your model needs to answer.",
        default=1,
        ge=0,
        le=60,
    )
    max_in_flight: int = setting(
        "AGENTA_AI_GRPC_MAX_IN_FLIGHT",
        "Tool calls that run at the same time. Half as many more are queued; the rest are refused.",
        "To fit the machine's memory, or the load that Agenta can take.",
        default=4000,
        ge=1,
        le=100_000,
    )
    result_ttl_seconds: float = setting(
        "AGENTA_AI_GRPC_RESULT_TTL_SECONDS",
        "Seconds for which results are stored, so that repeats of a request_id get them; 0 stores none.",
        "If callers repeat calls after more than ten minutes, or results must not be stored.",
        default=600,
        ge=0,
        le=86_400,
    )
    idempotency_file: Path | None = setting(
        "AGENTA_AI_GRPC_IDEMPOTENCY_FILE",
        "SQLite file that stores request_ids for all processes of one machine, so that they survive a crash. Without "
        "it, they are stored in Redis; without either, in the memory of each process.",
        "On a single machine, so that calls aren't billed twice.",
    )
    idempotency_durable: OnOff = setting(
        "AGENTA_AI_GRPC_IDEMPOTENCY_DURABLE",
        "Whether the file also survives a power failure. Calls then wait for the disk.",
        "If the machine has no backup power.",
        default="off",
    )
    result_storage: Literal["plain", "encrypted", "off"] = setting(
        "AGENTA_AI_GRPC_RESULT_STORAGE",
        "How results are stored for repeats: as they are, encrypted, or not at all. If a result isn't stored, a "
        "repeat of the finished call gets OUTCOME_UNKNOWN.",
        "If results must not be in Redis or on a disk in clear text.",
        default="plain",
    )
    result_keys_file: Path | None = setting(
        "AGENTA_AI_GRPC_RESULT_KEYS_FILE",
        "Keys of encrypted results: 32 random bytes in base64, one key per line, the newest first.",
        "For encrypted results.",
    )
    idempotency_on_store_failure: Literal["refuse", "local"] = setting(
        "AGENTA_AI_GRPC_IDEMPOTENCY_ON_STORE_FAILURE",
        "What happens while the store of request_ids is failing: refuse calls that have one, or let each process use "
        "only the ids that it knows; a repeat that reaches another replica is then billed twice.",
        "Set it to local if availability matters more than being billed once.",
        default="refuse",
    )


class RateLimits(Group):
    """How many calls each caller may make."""

    title = "Rate limits and Redis"

    limits: OnOff = setting(
        "AGENTA_AI_GRPC_LIMITS",
        "Whether calls are rate limited.",
        "Set it to off if a gateway limits them.",
        default="on",
    )
    limits_file: Path | None = setting(
        "AGENTA_AI_GRPC_LIMITS_FILE",
        "TOML file with the rate limits, reloaded when it changes. Without it, each user of an organization has "
        "a burst of 10 calls, and 30 calls a minute, for each tool.",
        "If there are plans, or callers that need more.",
    )
    limits_on_store_failure: Literal["local", "refuse"] = setting(
        "AGENTA_AI_GRPC_LIMITS_ON_STORE_FAILURE",
        "What happens while Redis is failing: each process limits calls separately, or calls are refused.",
        "Set it to refuse if exceeding a limit is worse than an outage.",
        default="local",
    )
    redis_url: Annotated[SecretStr | None, checked_by(check_redis_url)] = setting(
        "AGENTA_AI_GRPC_REDIS_URL",
        "Redis or Valkey that all replicas share: redis://host:port/0, or rediss:// for TLS.",
        "With more than one replica, to share rate limits and results.",
    )


class Lifetime(Group):
    """The age of connections, and shutdown."""

    title = "Connections and shutdown"

    max_connection_age_seconds: float = setting(
        "AGENTA_AI_GRPC_MAX_CONNECTION_AGE_SECONDS",
        "Seconds after which a connection is closed gracefully, so that callers reconnect and find new replicas; "
        "0 means never.",
        "If you scale often, or want connections with revoked client certificates to close sooner.",
        default=1800,
        ge=0,
        le=86_400,
    )
    drain_seconds: float = setting(
        "AGENTA_AI_GRPC_DRAIN_SECONDS",
        "On shutdown, seconds during which the server reports NOT_SERVING but still accepts calls.",
        "If the load balancer takes longer to notice the shutdown.",
        default=1,
        ge=0,
        le=3600,
    )
    shutdown_grace_seconds: float = setting(
        "AGENTA_AI_GRPC_SHUTDOWN_GRACE_SECONDS",
        "On shutdown, seconds that running calls have to finish.",
        "If the platform kills the process sooner.",
        default=95,
        ge=0,
        le=3600,
    )


class Telemetry(Group):
    """Logs and metrics."""

    title = "Logs and metrics"

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
    ] = setting(
        "AGENTA_AI_GRPC_LOG_LEVEL",
        "Lowest level that is logged. Successful and refused calls are logged at info, failed calls at warning, "
        "bugs at error.",
        "Set it to warning to log only failures.",
        default="info",
    )
    log_format: Literal["auto", "json", "text"] = setting(
        "AGENTA_AI_GRPC_LOG_FORMAT",
        "Format of the log. auto is text on a terminal and JSON otherwise.",
        "Set it to text if people read the log directly.",
        default="auto",
    )
    metrics_listen: IpAddress | None = setting(
        "AGENTA_AI_GRPC_METRICS_LISTEN",
        "Address of the metrics for Prometheus, for example 127.0.0.1:9464; without it there are none. Each "
        "process needs its own.",
        "To monitor with Prometheus.",
    )
    usage_metrics: OnOff = setting(
        "AGENTA_AI_GRPC_USAGE_METRICS",
        "Whether metrics include tokens and cost, which the server reads from Agenta's trace after each call.",
        "To divide the cost of models among organizations. It costs one more request to Agenta per call.",
        default="off",
    )
    # OpenTelemetry's own variables, as they are given: the SDK reads them itself.
    otel: Mapping[str, str] = Field({}, repr=False)


GROUPS: tuple[type[Group], ...] = (
    Agenta, Listener, Authentication, Tools, Cases, Calls, RateLimits, Lifetime, Telemetry
)  # fmt: skip
"""In the order in which they are shown."""


# In the opposite order, because pydantic collects the fields from the last base on.
class Settings(Telemetry, Lifetime, RateLimits, Calls, Cases, Tools, Authentication, Listener, Agenta):
    """The server's configuration. Made by :func:`~agenta_ai_server.settings.load`."""

    title = "All"

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the settings without which the feature is disabled; empty if it is enabled."""
        needed = ("api_url", "api_key", "environment_slug", "refine_prompt_key")
        return tuple(name_of(field) for field in needed if getattr(self, field) is None)

    @property
    def offers_cases(self) -> bool:
        """Whether anybody may refine a prompt against test cases."""
        return bool(self.cases_models) or "agenta" in self.auth

    @property
    def longest_call_seconds(self) -> float:
        """What a call of any tool may take at most, in seconds."""
        return max(self.max_call_seconds, self.cases_max_seconds if self.offers_cases else 0)

    @property
    def max_upstream_seconds(self) -> float:
        """The longest time of one request to Agenta, in seconds."""
        return min(MAX_UPSTREAM_SECONDS, self.max_call_seconds)

    @property
    def max_queued(self) -> int:
        """How many calls are queued while ``max_in_flight`` run."""
        return self.max_in_flight // 2

    @property
    def traces_url(self) -> str | None:
        """URL that traces are sent to, path included; ``None`` if there are none."""
        return otel_environment.traces_url(self.otel)

    @property
    def open_files(self) -> int:
        """How many files may be open at once under full load."""
        return FILES_PER_CALL * (self.max_in_flight + self.max_queued) + OTHER_FILES

    def max_connections(self, file_limit: int) -> int:
        """Return how many connections callers may hold, so that files are left for everything else.

        Args:
            file_limit: How many files the process may open; 0 or less for no limit.
        """
        if file_limit <= 0:
            return MAX_INT
        return min(file_limit - min(self.max_in_flight + OTHER_FILES, file_limit // 2), MAX_INT)

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return bool(LOOPBACK.fullmatch(self.listen))

    @property
    def takes_credentials_in_plaintext(self) -> bool:
        """Whether other machines can send credentials here that anybody on the way can read."""
        return not self.is_loopback and self.auth != ("none",) and self.tls_cert_file is None


def fields_of(group: type[Group]) -> Iterator[tuple[str, FieldInfo]]:
    """Yield the settings of a group, each by the name of its field."""
    for name, field in group.model_fields.items():
        if field.alias:
            yield name, field


def name_of(field: str) -> str:
    """Return the name in the environment of the setting with this field."""
    return str(Settings.model_fields[field].alias)


def names() -> list[str]:
    """Return the names in the environment of all settings, in their order."""
    return [str(field.alias) for group in GROUPS for _, field in fields_of(group)]


def secrets() -> list[str]:
    """Return the names of those that hold a secret, and can be given as a file."""
    return [str(field.alias) for group in GROUPS for _, field in fields_of(group) if is_secret(field)]


def is_secret(field: FieldInfo) -> bool:
    """Whether the setting holds a secret."""
    return "SecretStr" in str(field.annotation)


def shown(value: object) -> str:
    """Return a value as it would be written in the environment; a secret is masked, ``None`` is the empty string."""
    match value:
        case SecretStr():
            return "********"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case tuple():
            return ",".join(value)
        case dict():
            return ",".join(f"{name}={content}" for name, content in value.items())
    return "" if value is None else str(value)
