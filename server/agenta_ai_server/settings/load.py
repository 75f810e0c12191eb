"""Reads the settings from the environment, and reports all their faults at once."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from agenta_ai_server.settings.schema import Settings, names, secrets
from agenta_ai_server.settings.validate import find_contradictions
from agenta_ai_server.settings.values import read_text
from agenta_ai_server.telemetry import otel_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence, Set

    from pydantic_core import ErrorDetails

PREFIX = "AGENTA_AI_GRPC_"
SERVICES_PREFIX = "AGENTA_AI_SERVICES_"
KEY_FILE = "AGENTA_AI_SERVICES_API_KEY_FILE"
# The name that an earlier version of the feature had for the third of the four.
OLD_ENVIRONMENT = "AGENTA_AI_SERVICES_ENVIRONMENT"
ENVIRONMENT = "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG"

RENAMED = {
    "AGENTA_AI_GRPC_MIN_UPSTREAM_SECONDS": "AGENTA_AI_GRPC_MIN_REMAINING_SECONDS",
    "AGENTA_AI_GRPC_REPLAY_SECONDS": "AGENTA_AI_GRPC_RESULT_TTL_SECONDS",
    "AGENTA_AI_GRPC_REPLAY_ON_STORE_FAILURE": "AGENTA_AI_GRPC_IDEMPOTENCY_ON_STORE_FAILURE",
}
"""Old names, which are faults, because ignoring one silently could cost money."""
REMOVED = {
    "AGENTA_AI_GRPC_AGENTA_PERMISSIONS": "the server itself maps its permissions to those of Agenta.",
    "AGENTA_AI_GRPC_CHANNELZ": "to see connections, use the metrics or 'ss -tnp'.",
    "AGENTA_AI_GRPC_JWT_ALGORITHMS": "the server accepts every asymmetric algorithm that the issuer's key supports.",
    "AGENTA_AI_GRPC_JWT_LEEWAY_SECONDS": "clocks may always differ by up to 30 seconds.",
    "AGENTA_AI_GRPC_LOG_SAMPLE": "to omit the lines of calls that didn't fail, set AGENTA_AI_GRPC_LOG_LEVEL=warning.",
    "AGENTA_AI_GRPC_MAX_UPSTREAM_SECONDS": (
        "a request to Agenta may take AGENTA_AI_GRPC_MAX_CALL_SECONDS, but at most 60 seconds."
    ),
    "AGENTA_AI_GRPC_MAX_WAITING": "the queue always holds half as many calls as AGENTA_AI_GRPC_MAX_IN_FLIGHT.",
    "AGENTA_AI_GRPC_REDIS_TIMEOUT_SECONDS": "the timeout is always half a second.",
}
"""Settings that no longer exist, which cause warnings, and what applies instead."""


class SettingsError(ValueError):
    """The settings are wrong. The message lists every fault by the setting's name, and no value of a secret.

    Attributes:
        faults: Sentences, each beginning with the name of a setting.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = list(faults)


@dataclass(frozen=True, slots=True)
class Reading:
    """The settings that were read from the environment.

    Attributes:
        settings: The settings; those that are wrong have their defaults.
        faults: What is wrong with them, a sentence each, beginning with the name of a setting. If anything is, what
            there is to say about names is among them: a misspelt one may be why another is missing.
        warnings: Sentences about names that are deprecated, removed or unknown, and about risks.
    """

    settings: Settings
    faults: list[str]
    warnings: list[str]


def load(environment: Mapping[str, str]) -> tuple[Settings, list[str]]:
    """Return the settings, and the warnings of :class:`Reading`.

    Args:
        environment: As for :func:`read`.

    Raises:
        SettingsError: With every fault, not only the first.
    """
    reading = read(environment)
    if reading.faults:
        raise SettingsError(reading.faults)
    return reading.settings, reading.warnings


def read(environment: Mapping[str, str]) -> Reading:
    """Read the settings, without raising for what is wrong with them.

    Args:
        environment: Names and values, as a process has them. An empty value counts as absent. A secret may be given as
            the path of a file that holds it, under its name with ``_FILE`` added.
    """
    values = {name: value.strip() for name, value in environment.items() if value.strip()}
    known_names = {*names(), *(f"{secret}_FILE" for secret in secrets())}
    ours = sorted(name for name in values if name.startswith((PREFIX, SERVICES_PREFIX)))
    about_names = [sentence for name in ours for sentence in _about_name(name, known_names)]
    faults = [f"{old}: is now called {new}: rename it." for old, new in RENAMED.items() if old in values]
    if old := values.get(OLD_ENVIRONMENT):
        values.setdefault(ENVIRONMENT, old)
    faults += _read_secret_files(values)
    known: dict[str, object] = {name: values[name] for name in names() if name in values}
    otel = {name: value for name, value in values.items() if name.startswith(otel_environment.PREFIX)}
    otel_faults = list(otel_environment.find_faults(otel))
    known["otel"] = {} if otel_faults else otel
    known["api_key_file"] = values.get(KEY_FILE)
    try:
        settings = Settings.model_validate(known)
        wrong = {}
    except ValidationError as error:
        wrong = {str(details["loc"][0]): _sentence(details) for details in error.errors(include_url=False)}
        settings = Settings.model_validate({name: value for name, value in known.items() if name not in wrong})
    for name, sentence in wrong.items():
        is_from_file = name in secrets() and f"{name}_FILE" in values
        faults.append(f"{name}_FILE: {sentence}" if is_from_file else f"{name}: {sentence}")
    # What is right by itself may contradict the rest.
    faults += [fault for fault in find_contradictions(settings) if fault.partition(":")[0] not in wrong]
    faults += otel_faults
    if faults:
        return Reading(settings, [*faults, *about_names], [])
    warnings = about_names
    if settings.takes_credentials_in_plaintext:
        warnings.append(
            f"AGENTA_AI_GRPC_LISTEN: {settings.listen} accepts credentials from other machines without TLS, so they "
            "can be read on the network. Set AGENTA_AI_GRPC_TLS_CERT_FILE and AGENTA_AI_GRPC_TLS_KEY_FILE, or let only "
            "a proxy with TLS connect to it."
        )
    return Reading(settings, faults, warnings)


def _read_secret_files(values: dict[str, str]) -> Iterator[str]:
    """Put the contents of the files named by ``..._FILE`` under the secrets' own names; yield what is wrong."""
    for name in secrets():
        file = values.get(name + "_FILE")
        if file is None:
            continue
        if name in values:
            yield f"{name} and {name}_FILE are both set: remove one."
            continue
        try:
            values[name] = read_text(Path(file))
        except ValueError as error:
            yield f"{name}_FILE: {error}."


def _sentence(details: ErrorDetails) -> str:
    text = details["msg"].removeprefix("Value error, ").replace("Input should", "must")
    return text.partition(", unable to parse")[0].rstrip(".") + "."


def _about_name(name: str, known: Set[str]) -> Iterator[str]:
    """Yield warnings about a name that isn't a setting.

    Args:
        name: Begins with one of our prefixes.
        known: The names of all settings.
    """
    if name in known or name in RENAMED:
        return
    if name == OLD_ENVIRONMENT:
        yield f"{OLD_ENVIRONMENT} is deprecated: use {ENVIRONMENT} instead."
    elif name in REMOVED:
        yield f"{name} no longer has an effect: {REMOVED[name]}"
    # Names with the second prefix may belong to the rest of Agenta, unless they are nearly one of ours.
    elif near := difflib.get_close_matches(name, known, n=1, cutoff=0.8):
        yield f"{name} is unknown and has no effect: did you mean {near[0]}?"
    elif name.startswith(PREFIX):
        yield f"{name} is unknown and has no effect: remove it."
