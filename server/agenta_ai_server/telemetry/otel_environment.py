"""OpenTelemetry's own environment variables: finds those that concern traces, and their faults.

The SDK reads them itself. Some wrong values end it with a traceback, others it ignores silently, so they are checked
here first: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/. Needs no SDK.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agenta_ai_server.domain.http_url import check_http_url, has_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PREFIX = "OTEL_"
OTLP = "OTEL_EXPORTER_OTLP_"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
EXPORTER = "OTEL_TRACES_EXPORTER"
DISABLED = "OTEL_SDK_DISABLED"
QUEUE = "OTEL_BSP_MAX_QUEUE_SIZE"
BATCH = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
SAMPLER = "OTEL_TRACES_SAMPLER"
SAMPLER_ARGUMENT = "OTEL_TRACES_SAMPLER_ARG"

PROTOCOL = "http/protobuf"
DEFAULT_ENDPOINT = "http://localhost:4318"
DEFAULT_QUEUE = 2048
DEFAULT_BATCH = 512
SAMPLERS = ("always_on", "always_off", "traceidratio")
# They may hold credentials.
SECRET = frozenset({"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"})


def traces_url(variables: Mapping[str, str]) -> str | None:
    """Return the URL that spans are sent to, path included; ``None`` if there are no traces.

    Args:
        variables: Those of the environment that begin with ``OTEL_``. An empty value counts as absent.
    """
    if variables.get(DISABLED, "").lower() == "true" or variables.get(EXPORTER) == "none":
        return None
    if endpoint := variables.get(TRACES_ENDPOINT):
        return endpoint
    base = variables.get(ENDPOINT) or (DEFAULT_ENDPOINT if variables.get(EXPORTER) else None)
    return f"{base.rstrip('/')}/v1/traces" if base else None


def find_faults(variables: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each wrong value, beginning with the variable's name; nothing if there are no traces.

    Args:
        variables: As for :func:`traces_url`.
    """
    if traces_url(variables) is None:
        return
    for name, check in CHECKS.items():
        value = variables.get(name)
        if value and not _is_overridden(name, variables):
            try:
                check(value)
            except ValueError as error:
                yield f"{name}: {error}."
    try:
        queue, batch = int(variables.get(QUEUE, DEFAULT_QUEUE)), int(variables.get(BATCH, DEFAULT_BATCH))
    except ValueError:
        return
    if 0 < queue < batch:
        yield (
            f"{QUEUE}: must be at least {BATCH}, which is {batch}{'' if BATCH in variables else ' by default'}. "
            "Raise it, or lower the other."
        )
    if variables.get(SAMPLER, "").lower().endswith("traceidratio") and SAMPLER_ARGUMENT in variables:
        try:
            _check_ratio(variables[SAMPLER_ARGUMENT])
        except ValueError as error:
            yield f"{SAMPLER_ARGUMENT}: {error}."


def _is_overridden(name: str, variables: Mapping[str, str]) -> bool:
    """Whether the variable for traces alone is set, so that the one for all signals has no effect on them."""
    return name.startswith(OTLP) and bool(variables.get(name.replace(OTLP, f"{OTLP}TRACES_")))


def _check_endpoint(url: str) -> None:
    if has_credentials(check_http_url(url)):
        raise ValueError("must not have credentials: put them into OTEL_EXPORTER_OTLP_HEADERS")


def _check_ratio(value: str) -> None:
    try:
        ratio = float(value)
    except ValueError:
        ratio = -1
    if not 0 <= ratio <= 1:
        raise ValueError("must be a number from 0 to 1")


def _check_seconds(value: str) -> None:
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0
    if not 0 < seconds < 1e6:
        raise ValueError("must be a number of seconds, more than 0")


def _at_least(least: int) -> Callable[[str], None]:
    def check(value: str) -> None:
        if not (value.isascii() and value.isdigit() and int(value) >= least):
            raise ValueError(f"must be a whole number, {least} or more")

    return check


def _one_of(*choices: str) -> Callable[[str], None]:
    def check(value: str) -> None:
        if value.lower() not in choices:
            raise ValueError(f"must be {' or '.join(choices)}")

    return check


def _check_protocol(value: str) -> None:
    if value != PROTOCOL:
        raise ValueError(f"must be {PROTOCOL}, which collectors accept on port 4318")


def _check_file(path: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise ValueError(f"can't read {path}: {error.strerror}") from None


def _exporter(name: str, check: Callable[[str], None]) -> dict[str, Callable[[str], None]]:
    """Return the check for all signals and the one for traces alone."""
    return {f"{OTLP}{name}": check, f"{OTLP}TRACES_{name}": check}


LIMITS = (
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
)
CHECKS: Mapping[str, Callable[[str], None]] = {
    EXPORTER: _one_of("otlp", "none"),
    **_exporter("ENDPOINT", _check_endpoint),
    **_exporter("PROTOCOL", _check_protocol),
    **_exporter("COMPRESSION", _one_of("none", "gzip", "deflate")),
    **_exporter("TIMEOUT", _check_seconds),
    **_exporter("CERTIFICATE", _check_file),
    **_exporter("CLIENT_CERTIFICATE", _check_file),
    **_exporter("CLIENT_KEY", _check_file),
    SAMPLER: _one_of(*SAMPLERS, *(f"parentbased_{each}" for each in SAMPLERS)),
    QUEUE: _at_least(1),
    BATCH: _at_least(1),
    "OTEL_BSP_SCHEDULE_DELAY": _at_least(1),
    "OTEL_BSP_EXPORT_TIMEOUT": _at_least(1),
    **dict.fromkeys(LIMITS, _at_least(0)),
}
"""The variables that take effect on traces and can be wrong, and what raises ``ValueError`` for a wrong value."""
