"""The command ``agenta-ai-server config``: the settings in effect, and where each came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import SecretStr

from agenta_ai_server.settings import ENVIRONMENT, GROUPS, OLD_ENVIRONMENT, Settings, fields_of, shown
from agenta_ai_server.telemetry.otel_environment import SECRET

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

OTEL_SECTION = "Traces, by OpenTelemetry's own variables"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting in effect.

    Attributes:
        section: What it is about.
        name: Its name in the environment.
        value: As the environment would have it; a secret is masked.
        source: ``"environment"``, ``"file …"`` or ``"default"``.
    """

    section: str
    name: str
    value: str
    source: str


def described(settings: Settings, environment: Mapping[str, str]) -> Iterator[Setting]:
    """Describe the ``settings`` that were read from the ``environment``."""
    given = {name: value.strip() for name, value in environment.items() if value.strip()}
    for group in GROUPS:
        for field, information in fields_of(group):
            name, value = str(information.alias), getattr(settings, field)
            yield Setting(group.title, name, shown(value), _source(name, isinstance(value, SecretStr), given))
    for name, value in sorted(settings.otel.items()):
        yield Setting(OTEL_SECTION, name, shown(SecretStr(value) if name in SECRET else value), "environment")


def _source(name: str, is_secret: bool, given: Mapping[str, str]) -> str:
    if is_secret and (file := given.get(f"{name}_FILE")):
        return f"file {file}"
    if name in given:
        return "environment"
    if name == ENVIRONMENT and OLD_ENVIRONMENT in given:
        return f"environment, as {OLD_ENVIRONMENT}"
    return "default"


def table(settings: Iterable[Setting], width: int) -> str:
    """Return them for people, in lines of no more than ``width`` characters as far as values are short enough."""
    settings = list(settings)
    names = max(len(setting.name) for setting in settings)
    values = max(min(max(len(setting.value) for setting in settings), width - names - len("  default") - 4), 20)
    lines: list[str] = []
    section = ""
    for setting in settings:
        if setting.section != section:
            section = setting.section
            lines += ["", section]
        source = "" if setting.source == "default" and not setting.value else setting.source
        lines.append(f"  {setting.name:{names}}  {setting.value or '-':{values}}  {source or 'not set'}")
    return "\n".join(lines[1:])
