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

Made by `make docs` from [settings/schema.py](../server/agenta_ai_server/settings/schema.py): change it there.

The server is configured by its environment. An empty value counts as absent. Lists are separated by commas. Each
secret can also be given as a file: its path under the setting's name with `_FILE` added, for example
`AGENTA_AI_SERVICES_API_KEY_FILE`. Wrong settings stop the start with one message that lists all faults, those of the
files that they name included. An unknown name that begins like these is warned about. `agenta-ai-server config` prints
the settings in effect and where each came from; `agenta-ai-server check` tests them."""

TRACES = """
## Traces

Traces are sent by OTLP over HTTP when `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set, or
`OTEL_TRACES_EXPORTER=otlp` (to `http://localhost:4318`). They need the extra `tracing`: in a
clone, `pip install '.[tracing]'`.
`OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, the headers and all of the following are
[OpenTelemetry's own variables](https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/),
which its SDK reads. The server checks them at the start: a wrong value is a fault like that of any setting."""

# What this page adds to the groups' titles.
NOTES = {
    "Who may call": ": [security.md](security.md)",
    "Rate limits, Redis": ": [limits.md](limits.md)",
}


def main() -> None:
    print(INTRODUCTION)
    for group in GROUPS:
        title = group.title.replace("request_id", "`request_id`") + NOTES.get(group.title, "")
        print(f"\n## {title}\n\n| setting | default | meaning | who sets it and why |\n| --- | --- | --- | --- |")
        for _, field in fields_of(group):
            secret = " (secret)" if is_secret(field) else ""
            meaning = f"{field.description}{bounds(field)}"
            print(f"| `{field.alias}`{secret} | {default(field)} | {meaning} | {why(field)} |")
    print(TRACES, "\n" + ", ".join(f"`{name}`" for name in CHECKS) + ".", sep="\n")
    print("\n## Renamed and removed\n\n| old | now |\n| --- | --- |")
    for old, new in RENAMED.items():
        print(f"| `{old}` | `{new}`; the old name is a fault |")
    for old, instead in REMOVED.items():
        print(f"| `{old}` | removed: {instead} |")


def why(field: FieldInfo) -> str:
    return str(cast("dict[str, Any]", field.json_schema_extra)["why"])


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
