"""Every setting: its name in the environment, default, unit and meaning."""

from __future__ import annotations

import difflib
import ipaddress
import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, field_validator

from agenta_ai_server.upstream.agenta import completion_url
from agenta_ai_server.upstream.transport import checked_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic_core import ErrorDetails

PREFIX = "AGENTA_AI_GRPC_"
SERVICES_PREFIX = "AGENTA_AI_SERVICES_"
# The name that an earlier version of the feature had for the third of the four.
OLD_ENVIRONMENT = "AGENTA_AI_SERVICES_ENVIRONMENT"
ENVIRONMENT = "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG"
LOOPBACK = re.compile(r"(127(\.\d{1,3}){3}|\[::1\]):\d+|unix:.+")
ADDRESS = re.compile(r"(?P<host>[0-9.]+|\[[0-9a-fA-F:.]+\]):(?P<port>[0-9]{1,5})|unix:.+")


class SettingsError(ValueError):
    """The settings are wrong. The message lists every fault by the setting's name, and no value of a secret."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def _names(value: object) -> object:
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


class Settings(BaseModel):
    """What the server is told by its environment. Fields are named by their environment variables."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    api_url: Annotated[
        str | None, Field(alias="AGENTA_AI_SERVICES_API_URL", description="Address of Agenta, https://cloud.agenta.ai.")
    ] = None
    api_key: Annotated[
        SecretStr | None, Field(alias="AGENTA_AI_SERVICES_API_KEY", description="This server's API key in Agenta.")
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
    auth: Annotated[
        Literal["none"] | None,
        Field(alias="AGENTA_AI_GRPC_AUTH", description="Who may call. 'none': everybody who can connect."),
    ] = None
    allow_no_auth: Annotated[
        bool,
        Field(
            alias="AGENTA_AI_GRPC_ALLOW_NO_AUTH",
            description="Allow AGENTA_AI_GRPC_AUTH=none on an address that other machines can reach.",
        ),
    ] = False
    reflection: Annotated[
        Literal["open", "authenticated", "off"],
        Field(alias="AGENTA_AI_GRPC_REFLECTION", description="Who may ask the server to describe its contract."),
    ] = "open"
    disabled_tools: Annotated[
        tuple[str, ...],
        BeforeValidator(_names),
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
        Field(alias="AGENTA_AI_GRPC_UPSTREAM_PROXY", description="HTTP proxy on the way to Agenta: http://host:port."),
    ] = None
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
    ] = 65
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
        Field(alias="AGENTA_AI_GRPC_LOG_LEVEL", description="The least severe messages that are logged."),
    ] = "info"

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the settings without which the feature is disabled; empty if it is enabled."""
        needed = ("api_url", "api_key", "environment_slug", "refine_prompt_key")
        return tuple(_alias(name) for name in needed if getattr(self, name) is None)

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
        # A name may mean several addresses, of which some could be taken without a word.
        address = re.sub(r"^localhost:", "127.0.0.1:", address)
        found = ADDRESS.fullmatch(address)
        try:
            if found and found["host"]:
                ipaddress.ip_address(found["host"].strip("[]"))
        except ValueError:
            found = None
        if not found or int(found["port"] or 0) > 65535:
            raise ValueError("must be an IP address and a port, 127.0.0.1:50051 or [::1]:50051, or unix:path")
        return address

    @field_validator("api_key")
    @classmethod
    def _is_header_value(cls, key: SecretStr | None) -> SecretStr | None:
        if key and not re.fullmatch(r"[!-~]+", key.get_secret_value()):
            raise ValueError("must be visible ASCII characters, without blanks and line ends")
        return key

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

    @field_validator("upstream_proxy")
    @classmethod
    def _is_proxy(cls, proxy: SecretStr | None) -> SecretStr | None:
        if proxy:
            checked_proxy(proxy.get_secret_value())
        return proxy


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


def _contradictions(settings: Settings) -> list[str]:
    faults = []
    if settings.auth is None:
        faults.append(
            "AGENTA_AI_GRPC_AUTH: must be set. 'none' lets in everybody who can connect; there is no other mode yet."
        )
    if settings.auth == "none" and not settings.is_loopback and not settings.allow_no_auth:
        faults.append(
            f"AGENTA_AI_GRPC_AUTH: 'none' on {settings.listen} would let other machines call. Listen on 127.0.0.1, or "
            "set AGENTA_AI_GRPC_ALLOW_NO_AUTH=true if something else keeps them out."
        )
    if settings.min_upstream_seconds > settings.max_upstream_seconds:
        faults.append(
            "AGENTA_AI_GRPC_MIN_UPSTREAM_SECONDS: must not exceed AGENTA_AI_GRPC_MAX_UPSTREAM_SECONDS, "
            f"which is {settings.max_upstream_seconds:g}."
        )
    return faults


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
    return [_alias(name) for name in Settings.model_fields] + [f"{name}_FILE" for name in _secrets()]


def _secrets() -> list[str]:
    return [_alias(name) for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)]


def _alias(name: str) -> str:
    return str(Settings.model_fields[name].alias)
