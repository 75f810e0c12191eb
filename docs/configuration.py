"""Prints the reference of all settings, docs/configuration.md, from the settings themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from pydantic import SecretStr

from agenta_ai_server.settings import SECTIONS, Settings, shown

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

INTRODUCTION = """\
# Configuration

Made by `make docs` from [settings.py](../server/agenta_ai_server/settings.py): change it there.

The server is configured by its environment. An empty value counts as absent. Lists are separated by commas. Each
secret can be given as a file, under its name with `_FILE` added. Wrong settings stop the start with one message that
lists all faults; what they name, such as files and tools, is looked at once they fit together. An unknown name that
begins like these gives a warning. `agenta-ai-server config` prints what is in force, and where it came from."""

# What this page adds to the sections' names.
NOTES = {
    "api_url": ". Without one of these the server runs with the feature disabled",
    "auth": ": [security.md](security.md)",
    "limits": ": [limits.md](limits.md)",
}


def main() -> None:
    print(INTRODUCTION)
    for name, field in Settings.model_fields.items():
        if name in SECTIONS:
            title = SECTIONS[name].replace("request_id", "`request_id`") + NOTES.get(name, "")
            print(f"\n## {title}\n\n| setting | default | meaning |\n| --- | --- | --- |")
        print(f"| `{field.alias}`{secret(field)} | {default(field)} | {field.description}{bounds(field)} |")


def secret(field: FieldInfo) -> str:
    return " (secret)" if SecretStr in (field.annotation, *get_args(field.annotation)) else ""


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
