"""Every setting: its name in the environment, default, unit and meaning."""

from __future__ import annotations

import difflib
import ipaddress
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)

from agenta_ai_server.agenta.completions import checked_key, completion_url
from agenta_ai_server.agenta.transport import checked_proxy, http_url
from agenta_ai_server.redis.url import check_redis_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic_core import ErrorDetails

PREFIX = "AGENTA_AI_GRPC_"
SERVICES_PREFIX = "AGENTA_AI_SERVICES_"
# The name that an earlier version of the feature had for the third of the four.
OLD_ENVIRONMENT = "AGENTA_AI_SERVICES_ENVIRONMENT"
ENVIRONMENT = "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG"
OTLP_PROTOCOL = "http/protobuf"
LOOPBACK = re.compile(r"(127(\.\d{1,3}){3}|\[::1\]):\d+|unix:.+")
ADDRESS = re.compile(r"(?P<host>[0-9.]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5})")

# What the settings are about, by the first one of each section.
SECTIONS = {
    "api_url": "Agenta",
    "listen": "The listener",
    "auth": "Who may call",
    "disabled_tools": "Tools, and the way to Agenta",
    "max_in_flight": "Load, and repeats of a request_id",
    "limits": "Rate limits",
    "max_connection_age_seconds": "Age of connections, stopping",
    "log_level": "Logs, metrics, traces",
}

# A caller may have a connection of its own, and its request to Agenta has one.
FILES_PER_CALL = 2
OTHER_FILES = 500

# What a call keeps back of its time, so that the answer still reaches its caller.
MARGIN_SECONDS = 0.25
AUTH_NEEDS = {
    "api_keys": ["api_keys_file"],
    "jwt": ["jwt_issuer", "jwt_audience"],
    "agenta": ["api_url"],
    "mtls": ["mtls_principals_file", "tls_client_ca_file"],
}


class SettingsError(ValueError):
    """The settings are wrong. The message lists every fault by the setting's name, and no value of a secret."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def _names(value: object) -> object:
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


def _pairs(value: object) -> object:
    if not isinstance(value, str):
        return value
    pairs = [pair.split("=") for pair in value.split(",") if pair.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("must be pairs such as name=value, separated by commas")
    return {name.strip(): content.strip() for name, content in pairs}


def _checked_by(check: Callable[[str], object]) -> AfterValidator:
    """Let ``check`` see a secret that is given, and raise ``ValueError`` without repeating it."""

    def validate(secret: SecretStr | None) -> SecretStr | None:
        if secret:
            check(secret.get_secret_value())
        return secret

    return AfterValidator(validate)


Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Pairs = Annotated[dict[str, str], BeforeValidator(_pairs)]
AuthMode = Literal["api_keys", "jwt", "agenta", "mtls", "none"]


class Settings(BaseModel):
    """What the server is told by its environment. Fields are named by their environment variables."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    api_url: Annotated[
        str | None, Field(alias="AGENTA_AI_SERVICES_API_URL", description="Address of Agenta, https://cloud.agenta.ai.")
    ] = None
    api_key: Annotated[
        SecretStr | None,
        _checked_by(checked_key),
        Field(alias="AGENTA_AI_SERVICES_API_KEY", description="This server's API key in Agenta."),
    ] = None
    api_key_file: Annotated[
        Path | None,
        Field(
            alias="AGENTA_AI_SERVICES_API_KEY_FILE",
            description="File that holds that key, in its place; read again when it changes.",
        ),
    ] = None
    environment_slug: Annotated[
        str | None, Field(alias=ENVIRONMENT, description="Slug of the environment where the prompts are deployed.")
    ] = None
    refine_prompt_key: Annotated[
        str | None,
        Field(
            alias="AGENTA_AI_SERVICES_REFINE_PROMPT_KEY",
            description="Slug of the application that holds the prompt which refines prompts.",
        ),
    ] = None

    listen: Annotated[
        str,
        Field(
            alias="AGENTA_AI_GRPC_LISTEN",
            description="Address to listen on: 127.0.0.1:50051, [::1]:50051 or unix:path.",
        ),
    ] = "127.0.0.1:50051"
    reuse_port: Annotated[
        bool,
        Field(
            alias="AGENTA_AI_GRPC_REUSE_PORT",
            description="Share the port with other processes that do so too; the system spreads connections over them.",
        ),
    ] = False
    tls_cert_file: Annotated[
        Path | None,
        Field(
            alias="AGENTA_AI_GRPC_TLS_CERT_FILE", description="PEM file with the server's certificate and its chain."
        ),
    ] = None
    tls_key_file: Annotated[
        Path | None, Field(alias="AGENTA_AI_GRPC_TLS_KEY_FILE", description="PEM file with the certificate's key.")
    ] = None
    tls_client_ca_file: Annotated[
        Path | None,
        Field(
            alias="AGENTA_AI_GRPC_TLS_CLIENT_CA_FILE",
            description="PEM file with the authorities of callers' certificates; every caller needs one then.",
        ),
    ] = None
    reflection: Annotated[
        Literal["open", "authenticated", "off"],
        Field(alias="AGENTA_AI_GRPC_REFLECTION", description="Who may ask the server to describe its contract."),
    ] = "open"
    channelz: Annotated[
        Literal["on", "off"],
        Field(
            alias="AGENTA_AI_GRPC_CHANNELZ",
            description="Whether authenticated callers may look at the state of all connections: for debugging.",
        ),
    ] = "off"
    auth: Annotated[
        tuple[AuthMode, ...],
        BeforeValidator(_names),
        Field(
            alias="AGENTA_AI_GRPC_AUTH",
            description="Who may call: any of api_keys, jwt, agenta, mtls, separated by commas; or none, which lets in "
            "everybody who can connect.",
        ),
    ] = ()
    allow_no_auth: Annotated[
        bool,
        Field(
            alias="AGENTA_AI_GRPC_ALLOW_NO_AUTH",
            description="Allow AGENTA_AI_GRPC_AUTH=none on an address that other machines can reach.",
        ),
    ] = False
    required_permissions: Annotated[
        tuple[Literal["view_ai_services", "run_ai_services"], ...],
        BeforeValidator(_names),
        Field(
            alias="AGENTA_AI_GRPC_REQUIRED_PERMISSIONS",
            description="Permissions for the service as a whole that callers need besides those of its tools: "
            "view_ai_services, run_ai_services.",
        ),
    ] = ()
    api_keys_file: Annotated[
        Path | None,
        Field(
            alias="AGENTA_AI_GRPC_API_KEYS_FILE",
            description="File with the hashes of the API keys that 'agenta-ai-server keys' makes.",
        ),
    ] = None
    jwt_issuer: Annotated[
        str | None, Field(alias="AGENTA_AI_GRPC_JWT_ISSUER", description="Who issues the tokens: their claim iss.")
    ] = None
    jwt_audience: Annotated[
        str | None,
        Field(alias="AGENTA_AI_GRPC_JWT_AUDIENCE", description="Whom the tokens are for: their claim aud."),
    ] = None
    jwt_jwks_url: Annotated[
        str | None,
        Field(alias="AGENTA_AI_GRPC_JWT_JWKS_URL", description="Where the issuer publishes its keys, https://…"),
    ] = None
    jwt_jwks_file: Annotated[
        Path | None,
        Field(alias="AGENTA_AI_GRPC_JWT_JWKS_FILE", description="File with the issuer's keys, in place of that."),
    ] = None
    jwt_algorithms: Annotated[
        Names, Field(alias="AGENTA_AI_GRPC_JWT_ALGORITHMS", description="Signatures that are accepted.")
    ] = ("RS256", "ES256", "EdDSA")
    jwt_leeway_seconds: Annotated[
        float,
        Field(
            alias="AGENTA_AI_GRPC_JWT_LEEWAY_SECONDS",
            ge=0,
            le=300,
            description="By how many seconds the issuer's clock may differ from ours.",
        ),
    ] = 30
    jwt_claims: Annotated[
        Pairs,
        Field(
            alias="AGENTA_AI_GRPC_JWT_CLAIMS",
            description="Claims that hold user, project, workspace, organization, plan and permissions, where they are "
            "named otherwise: organization=org_id,permissions=scope.",
        ),
    ] = {}
    agenta_permissions: Annotated[
        Pairs,
        Field(
            alias="AGENTA_AI_GRPC_AGENTA_PERMISSIONS",
            description="What Agenta calls a permission, where it has another name: run_ai_services=run_service.",
        ),
    ] = {}
    agenta_auth_seconds: Annotated[
        float,
        Field(
            alias="AGENTA_AI_GRPC_AGENTA_AUTH_SECONDS",
            ge=0,
            le=3600,
            description="Seconds for which Agenta's consent to a caller is remembered.",
        ),
    ] = 60
    mtls_principals_file: Annotated[
        Path | None,
        Field(
            alias="AGENTA_AI_GRPC_MTLS_PRINCIPALS_FILE",
            description="File that says who the names in callers' certificates are.",
        ),
    ] = None
    disabled_tools: Annotated[
        Names,
        Field(alias="AGENTA_AI_GRPC_DISABLED_TOOLS", description="Names of tools to switch off, separated by commas."),
    ] = ()
    repairs: Annotated[
        int,
        Field(
            alias="AGENTA_AI_GRPC_REPAIRS",
            ge=0,
            le=3,
            description="How often the model is asked once more when its answer would break the prompt; 0: never.",
        ),
    ] = 1
    upstream_ca_file: Annotated[
        Path | None,
        Field(
            alias="AGENTA_AI_GRPC_UPSTREAM_CA_FILE",
            description="PEM file with the authorities that Agenta's certificate is checked against, in place of the "
            "usual ones.",
        ),
    ] = None
    upstream_proxy: Annotated[
        SecretStr | None,
        _checked_by(checked_proxy),
        Field(alias="AGENTA_AI_GRPC_UPSTREAM_PROXY", description="HTTP proxy on the way to Agenta: http://host:port."),
    ] = None
    retries: Annotated[
        int,
        Field(
            alias="AGENTA_AI_GRPC_RETRIES",
            ge=0,
            le=5,
            description="How often a request to Agenta is sent again where nothing can have been bought; 0: never.",
        ),
    ] = 2
    retry_unsafe: Annotated[
        bool,
        Field(
            alias="AGENTA_AI_GRPC_RETRY_UNSAFE",
            description="Send again also after a time-out or a broken answer, and so maybe pay twice.",
        ),
    ] = False
    breaker: Annotated[
        Literal["on", "off"],
        Field(
            alias="AGENTA_AI_GRPC_BREAKER",
            description="Whether Agenta is left alone for a while when half of the requests to it fail.",
        ),
    ] = "on"
    max_upstream_seconds: Annotated[
        float,
        Field(
            alias="AGENTA_AI_GRPC_MAX_UPSTREAM_SECONDS", gt=0, le=60, description="Seconds to wait for Agenta at most."
        ),
    ] = 60
    min_upstream_seconds: Annotated[
        float,
        Field(
            alias="AGENTA_AI_GRPC_MIN_UPSTREAM_SECONDS",
            ge=0,
            le=60,
            description="A call with fewer seconds left than these is refused before it is paid for.",
        ),
    ] = 1
    max_call_seconds: Annotated[
        float,
        Field(
            alias="AGENTA_AI_GRPC_MAX_CALL_SECONDS",
            gt=0,
            le=600,
            description="Seconds that a call may take at most, retries and repairs included; also the deadline of "
            "callers who set none.",
        ),
    ] = 90
    max_in_flight: Annotated[
        int,
        Field(
            alias="AGENTA_AI_GRPC_MAX_IN_FLIGHT", ge=1, le=100_000, description="Tools that may run at the same time."
        ),
    ] = 4000
    max_waiting: Annotated[
        int,
        Field(
            alias="AGENTA_AI_GRPC_MAX_WAITING",
            ge=0,
            le=100_000,
            description="Calls that may wait for a place when as many run as may.",
        ),
    ] = 2000
    replay_seconds: Annotated[
        float,
        Field(
            alias="AGENTA_AI_GRPC_REPLAY_SECONDS",
            ge=0,
            le=86_400,
            description="Seconds for which results are kept for repeats of their request_id; 0 keeps none.",
        ),
    ] = 600
    replay_on_store_failure: Annotated[
        Literal["refuse", "local"],
        Field(
            alias="AGENTA_AI_GRPC_REPLAY_ON_STORE_FAILURE",
            description="What to do with a request_id while Redis doesn't answer: refuse the call, or know only what "
            "this process knows, and so maybe pay twice.",
        ),
    ] = "refuse"
    limits: Annotated[
        Literal["on", "off"],
        Field(alias="AGENTA_AI_GRPC_LIMITS", description="Whether callers are kept to rate limits."),
    ] = "on"
    limits_file: Annotated[
        Path | None,
        Field(
            alias="AGENTA_AI_GRPC_LIMITS_FILE",
            description="TOML file with the rate limits, read again when it changes; without it, 10 calls at once and "
            "30 a minute for each tool, organization and user.",
        ),
    ] = None
    limits_on_store_failure: Annotated[
        Literal["local", "refuse"],
        Field(
            alias="AGENTA_AI_GRPC_LIMITS_ON_STORE_FAILURE",
            description="What to do while Redis doesn't answer: count in each process, or refuse calls.",
        ),
    ] = "local"
    redis_url: Annotated[
        SecretStr | None,
        _checked_by(check_redis_url),
        Field(
            alias="AGENTA_AI_GRPC_REDIS_URL",
            description="Redis or Valkey that all replicas share: redis://host:port/0, or rediss:// for TLS.",
        ),
    ] = None
    redis_timeout_seconds: Annotated[
        float,
        Field(
            alias="AGENTA_AI_GRPC_REDIS_TIMEOUT_SECONDS",
            gt=0,
            le=10,
            description="Seconds to wait for Redis at most.",
        ),
    ] = 0.5
    max_connection_age_seconds: Annotated[
        float,
        Field(
            alias="AGENTA_AI_GRPC_MAX_CONNECTION_AGE_SECONDS",
            ge=0,
            le=86_400,
            description="Seconds after which callers are asked to connect anew, so that they find new replicas; "
            "0: never.",
        ),
    ] = 1800
    drain_seconds: Annotated[
        float,
        Field(
            alias="AGENTA_AI_GRPC_DRAIN_SECONDS",
            ge=0,
            le=3600,
            description="Seconds between being told to stop and accepting no more calls: for balancers to notice.",
        ),
    ] = 1
    shutdown_grace_seconds: Annotated[
        float,
        Field(
            alias="AGENTA_AI_GRPC_SHUTDOWN_GRACE_SECONDS",
            ge=0,
            le=3600,
            description="Seconds that running calls get to end when the server is told to stop.",
        ),
    ] = 95
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
        Field(alias="AGENTA_AI_GRPC_LOG_LEVEL", description="The least severe messages that are logged."),
    ] = "info"
    log_format: Annotated[
        Literal["auto", "json", "text"],
        Field(
            alias="AGENTA_AI_GRPC_LOG_FORMAT",
            description="How a log line looks; auto is text on a terminal, and JSON otherwise.",
        ),
    ] = "auto"
    log_sample: Annotated[
        float,
        Field(
            alias="AGENTA_AI_GRPC_LOG_SAMPLE",
            ge=0,
            le=1,
            description="Share of the successful calls that get a log line; failed ones always do.",
        ),
    ] = 1
    metrics_listen: Annotated[
        str | None,
        Field(
            alias="AGENTA_AI_GRPC_METRICS_LISTEN",
            description="Address that serves metrics for Prometheus, 127.0.0.1:9464; without it there are none. Each "
            "process needs its own.",
        ),
    ] = None
    otel_endpoint: Annotated[
        str | None,
        Field(
            alias="OTEL_EXPORTER_OTLP_ENDPOINT",
            description="Where traces are sent by OTLP over HTTP, http://collector:4318; without it there are none. "
            "OpenTelemetry's other variables, for headers, sampling and so on, are obeyed too.",
        ),
    ] = None
    otel_traces_endpoint: Annotated[
        str | None,
        Field(
            alias="OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            description="The same as a whole URL, path included, in place of that.",
        ),
    ] = None
    otel_protocol: Annotated[
        str,
        Field(alias="OTEL_EXPORTER_OTLP_PROTOCOL", description="How they are sent; no other way is known."),
    ] = OTLP_PROTOCOL
    otel_traces_protocol: Annotated[
        str | None,
        Field(alias="OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", description="The same for traces alone, in place of that."),
    ] = None
    otel_traces_exporter: Annotated[
        Literal["otlp", "none"] | None,
        Field(
            alias="OTEL_TRACES_EXPORTER",
            description="otlp sends traces also without an endpoint, to http://localhost:4318; none sends none.",
        ),
    ] = None
    otel_sdk_disabled: Annotated[
        bool, Field(alias="OTEL_SDK_DISABLED", description="Send no traces, whatever else is set.")
    ] = False
    otel_service_name: Annotated[
        str | None,
        Field(alias="OTEL_SERVICE_NAME", description="Name of this service in traces; agenta-ai-server if not set."),
    ] = None

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the settings without which the feature is disabled; empty if it is enabled."""
        needed = ("api_url", "api_key", "environment_slug", "refine_prompt_key")
        return tuple(_alias(name) for name in needed if getattr(self, name) is None)

    @property
    def traces_url(self) -> str | None:
        """Where traces are sent, path included; ``None`` if there are none."""
        if self.otel_sdk_disabled or self.otel_traces_exporter == "none":
            return None
        if self.otel_traces_endpoint:
            return self.otel_traces_endpoint
        base = self.otel_endpoint or ("http://localhost:4318" if self.otel_traces_exporter else None)
        return f"{base.rstrip('/')}/v1/traces" if base else None

    @property
    def open_files(self) -> int:
        """How many files may be open at once under the full load."""
        return FILES_PER_CALL * (self.max_in_flight + self.max_waiting) + OTHER_FILES

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return bool(LOOPBACK.fullmatch(self.listen))

    @field_validator("api_url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        if url is not None:
            completion_url(url)
        return url

    @field_validator("listen")
    @classmethod
    def _is_address(cls, address: str) -> str:
        checked = _ip_address(address)
        if not checked and not address.startswith("unix:"):
            raise ValueError("must be an IP address and a port, 127.0.0.1:50051 or [::1]:50051, or unix:path")
        return checked or address

    @field_validator("metrics_listen")
    @classmethod
    def _is_ip_address(cls, address: str | None) -> str | None:
        if address is not None and not (address := _ip_address(address)):
            raise ValueError("must be an IP address and a port, 127.0.0.1:9464 or [::1]:9464")
        return address

    @field_validator("otel_endpoint", "otel_traces_endpoint")
    @classmethod
    def _is_collector(cls, url: str | None) -> str | None:
        if url is not None and http_url(url).userinfo:
            raise ValueError("must not have credentials: put them into OTEL_EXPORTER_OTLP_HEADERS")
        return url

    @field_validator("upstream_ca_file")
    @classmethod
    def _has_certificates(cls, path: Path | None) -> Path | None:
        if path is not None:
            _read(path)
            try:
                ssl.create_default_context(cafile=path)
            except ssl.SSLError:
                raise ValueError(f"{path} holds no certificate in PEM form") from None
        return path


def _ip_address(address: str) -> str:
    """Return the address with its host as a number; nothing if it isn't ``host:port``."""
    # A name may mean several addresses, of which some could be taken without a word.
    address = re.sub(r"^localhost:", "127.0.0.1:", address)
    found = ADDRESS.fullmatch(address)
    if not found or int(found["port"]) > 65535:
        return ""
    try:
        ipaddress.ip_address(found["host"].strip("[]"))
    except ValueError:
        return ""
    return address


def load(environment: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """Read the settings.

    Args:
        environment: Names and values, as a process has them. An empty value counts as absent. A secret may be given as
            the path of a file that holds it, under its name with ``_FILE`` added.

    Returns:
        The settings, and warnings about names that are deprecated or unknown.

    Raises:
        SettingsError: With every fault, not only the first.
    """
    values = {name: value.strip() for name, value in environment.items() if value.strip()}
    warnings = [warning for name in sorted(values) if name not in _known() for warning in _unknown(name)]
    if old := values.get(OLD_ENVIRONMENT):
        warnings.append(f"{OLD_ENVIRONMENT} is deprecated: name it {ENVIRONMENT}.")
        values.setdefault(ENVIRONMENT, old)
    faults = _read_secret_files(values)
    known = {name: value for name, value in values.items() if name in _known()}
    try:
        settings = Settings.model_validate(known)
    except ValidationError as error:
        wrong = {str(details["loc"][0]): _sentence(details) for details in error.errors(include_url=False)}
        faults += [f"{name}: {sentence}" for name, sentence in wrong.items()]
        # The rest may contradict itself, which is told in the same message.
        settings = Settings.model_validate({name: value for name, value in known.items() if name not in wrong})
        faults += [fault for fault in _contradictions(settings) if fault.partition(":")[0] not in wrong]
    else:
        faults += _contradictions(settings)
    if faults:
        raise SettingsError(faults)
    return settings, warnings


def shown(value: object) -> str:
    """Return a setting's value as the environment would have it; a secret is masked, nothing is the empty string."""
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


def _contradictions(settings: Settings) -> list[str]:
    faults = [*_auth_faults(settings), *_tls_faults(settings)]
    if settings.min_upstream_seconds + MARGIN_SECONDS >= settings.max_call_seconds:
        faults.append(
            "AGENTA_AI_GRPC_MIN_UPSTREAM_SECONDS: must be less than AGENTA_AI_GRPC_MAX_CALL_SECONDS, which is "
            f"{settings.max_call_seconds:g}, by more than {MARGIN_SECONDS:g}, or every call would be refused."
        )
    if settings.min_upstream_seconds > settings.max_upstream_seconds:
        faults.append(
            "AGENTA_AI_GRPC_MIN_UPSTREAM_SECONDS: must not exceed AGENTA_AI_GRPC_MAX_UPSTREAM_SECONDS, "
            f"which is {settings.max_upstream_seconds:g}."
        )
    if settings.traces_url and (settings.otel_traces_protocol or settings.otel_protocol) != OTLP_PROTOCOL:
        name = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL" if settings.otel_traces_protocol else "OTEL_EXPORTER_OTLP_PROTOCOL"
        faults.append(f"{name}: must be {OTLP_PROTOCOL}, for which collectors listen on port 4318 as a rule.")
    return faults


def _auth_faults(settings: Settings) -> Iterator[str]:
    name = "AGENTA_AI_GRPC_AUTH"
    if not settings.auth:
        yield f"{name}: must be set: any of api_keys, jwt, agenta, mtls, or none to let in everybody who can connect."
    if "none" in settings.auth and len(settings.auth) > 1:
        yield f"{name}: 'none' lets in everybody, so no other mode can stand beside it."
    if settings.auth == ("none",) and not settings.is_loopback and not settings.allow_no_auth:
        yield (
            f"{name}: 'none' on {settings.listen} would let other machines call. Choose another mode, listen on "
            "127.0.0.1, or set AGENTA_AI_GRPC_ALLOW_NO_AUTH=true if something else keeps them out."
        )
    for mode, needed in AUTH_NEEDS.items():
        missing = [_alias(field) for field in needed if getattr(settings, field) is None]
        if mode in settings.auth and missing:
            yield f"{name}: '{mode}' needs {' and '.join(missing)}."
    if "jwt" in settings.auth and (settings.jwt_jwks_url is None) == (settings.jwt_jwks_file is None):
        yield f"{name}: 'jwt' needs either AGENTA_AI_GRPC_JWT_JWKS_URL or AGENTA_AI_GRPC_JWT_JWKS_FILE."
    unmapped = [each for each in settings.required_permissions if each not in settings.agenta_permissions]
    if "agenta" in settings.auth and unmapped:
        yield (
            f"AGENTA_AI_GRPC_AGENTA_PERMISSIONS: must say what {' and '.join(unmapped)} mean in Agenta, which doesn't "
            f"know them: {unmapped[0]}=view_workflows, for example."
        )


def _tls_faults(settings: Settings) -> Iterator[str]:
    if (settings.tls_cert_file is None) != (settings.tls_key_file is None):
        yield "AGENTA_AI_GRPC_TLS_CERT_FILE and AGENTA_AI_GRPC_TLS_KEY_FILE: each needs the other."
    elif settings.tls_client_ca_file and not settings.tls_cert_file:
        yield "AGENTA_AI_GRPC_TLS_CLIENT_CA_FILE: needs AGENTA_AI_GRPC_TLS_CERT_FILE and AGENTA_AI_GRPC_TLS_KEY_FILE."


def _read_secret_files(values: dict[str, str]) -> list[str]:
    """Put the contents of the files named by ``..._FILE`` under the secrets' own names; return what is wrong."""
    faults = []
    for name in _secrets():
        file = values.get(name + "_FILE")
        if file is None:
            continue
        if name in values:
            faults.append(f"{name} and {name}_FILE are both set: remove one.")
            continue
        try:
            values[name] = _read(Path(file))
        except ValueError as error:
            faults.append(f"{name}_FILE: {error}.")
    return faults


def _read(path: Path) -> str:
    try:
        text = path.read_text().strip()
    except OSError as error:
        raise ValueError(f"can't read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path} is no text") from None
    if not text:
        raise ValueError(f"{path} is empty")
    return text


def _sentence(details: ErrorDetails) -> str:
    return details["msg"].removeprefix("Value error, ").replace("Input should", "must").rstrip(".") + "."


def _unknown(name: str) -> Iterator[str]:
    near = difflib.get_close_matches(name, _known(), n=1, cutoff=0.8)
    # Names that begin otherwise may belong to the rest of Agenta, unless they are nearly one of ours.
    if near and name.startswith((PREFIX, SERVICES_PREFIX)) and name != OLD_ENVIRONMENT:
        yield f"{name} is unknown and has no effect: did you mean {near[0]}?"
    elif name.startswith(PREFIX):
        yield f"{name} is unknown and has no effect."


def _known() -> list[str]:
    return [*map(_alias, Settings.model_fields), *(f"{name}_FILE" for name in _secrets())]


def _secrets() -> list[str]:
    return [_alias(name) for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]


def _alias(name: str) -> str:
    return str(Settings.model_fields[name].alias)
