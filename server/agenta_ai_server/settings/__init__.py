"""The server's configuration, read from its environment."""

from __future__ import annotations

from agenta_ai_server.settings.load import ENVIRONMENT, OLD_ENVIRONMENT, PREFIX, Reading, SettingsError, load, read
from agenta_ai_server.settings.schema import GROUPS, AuthMode, Settings, fields_of, shown

__all__ = [
    "ENVIRONMENT",
    "GROUPS",
    "OLD_ENVIRONMENT",
    "PREFIX",
    "AuthMode",
    "Reading",
    "Settings",
    "SettingsError",
    "fields_of",
    "load",
    "read",
    "shown",
]
