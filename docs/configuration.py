"""Prints the reference of all settings, docs/configuration.md, from the settings themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast, get_args

from agenta_ai_server.settings import GROUPS, fields_of, shown
from agenta_ai_server.settings.load import REMOVED, RENAMED
from agenta_ai_server.settings.schema import is_secret
from agenta_ai_server.telemetry.otel_environment import CHECKS

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

INTRODUCTION = """\
# Configuration

The server is configured by environment variables. An empty value counts as unset. Separate the values of a list with
commas. Each secret can be read from a file instead: append `_FILE` to its name and give the path, for example
`AGENTA_AI_SERVICES_API_KEY_FILE`. If settings are invalid, the server doesn't start, and one message lists all faults,
including those in the files that the settings name. Unknown names with the same prefixes cause a warning.

`agenta-ai-server config` prints the settings in effect and where each came from; `agenta-ai-server check` tests them.
`make docs` generates this page from [settings/schema.py](../server/agenta_ai_server/settings/schema.py)."""

TRACES = """
## Traces

The server sends traces by OTLP over HTTP if `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is
set, or if `OTEL_TRACES_EXPORTER=otlp` (to `http://localhost:4318`). This needs the extra `tracing`: in a clone,
`pip install '.[tracing]'`.

`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, the headers and the variables below are
[OpenTelemetry's own](https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/), read by its
SDK. The server checks them at start and doesn't start if a value is invalid."""

# What this page adds to the groups' titles.
NOTES = {
    "Authentication and authorization": ": [security.md](security.md)",
    "Rate limits and Redis": ": [limits.md](limits.md)",
}


def main() -> None:
    print(INTRODUCTION)
    for group in GROUPS:
        title = group.title.replace("request_ids", "`request_id`s") + NOTES.get(group.title, "")
        print(f"\n## {title}\n\n| setting | default | meaning | when to set it |\n| --- | --- | --- | --- |")
        for _, field in fields_of(group):
            secret = " (secret)" if is_secret(field) else ""
            meaning = f"{field.description}{bounds(field)}"
            print(f"| `{field.alias}`{secret} | {default(field)} | {meaning} | {when(field)} |")
    print(TRACES, "\n" + ", ".join(f"`{name}`" for name in CHECKS) + ".", sep="\n")
    print("\n## Renamed and removed\n\n| old | now |\n| --- | --- |")
    for old, new in RENAMED.items():
        print(f"| `{old}` | `{new}`; the old name is an error |")
    for old, instead in REMOVED.items():
        print(f"| `{old}` | removed: {instead} |")


def when(field: FieldInfo) -> str:
    return str(cast("dict[str, Any]", field.json_schema_extra)["when"])


def default(field: FieldInfo) -> str:
    value = shown(field.default)
    return f"`{value}`" if value else ""


def bounds(field: FieldInfo) -> str:
    """What values there are, where the type says it."""
    choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str)]
    if choices:
        return " One of " + ", ".join(f"`{choice}`" for choice in choices) + "."
    limits: dict[str, Any] = {
        name: getattr(rule, name) for rule in field.metadata for name in ("gt", "ge", "le") if hasattr(rule, name)
    }
    if not limits:
        return ""
    least = f"More than {limits['gt']:,}" if "gt" in limits else f"From {limits['ge']:,}"
    return f" {least}{' and at most' if 'gt' in limits else ' to'} {limits['le']:,}."


if __name__ == "__main__":
    main()
