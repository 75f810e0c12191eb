"""The tools file and the environment of a command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agenta_ai_server.settings import ENVIRONMENT, OLD_ENVIRONMENT, SettingsError
from agenta_ai_server.tools.tools_file.read import ToolsFileError, read

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from agenta_ai_server.tools.tools_file.definition import ToolDefinition

FILE = "AGENTA_AI_GRPC_TOOLS_FILE"


def file_of(environment: Mapping[str, str], given: Path | None) -> Path:
    """Return the path of the tools file: the given one, or else that of the server.

    Raises:
        SettingsError: Neither is there.
    """
    if given is not None:
        return given
    if path := environment.get(FILE, "").strip():
        return Path(path)
    raise SettingsError([f"{FILE}: is missing. Set it to the path of the tools file, or give one with --file."])


def environment_of(environment: Mapping[str, str], given: str) -> str:
    """Return the slug of the environment: the given one, or else that of the server; empty if there is neither."""
    return given or environment.get(ENVIRONMENT, "").strip() or environment.get(OLD_ENVIRONMENT, "").strip()


def read_tools(path: Path, names: Collection[str] = ()) -> tuple[ToolDefinition, ...]:
    """Return the tools of a file.

    Args:
        path: The file.
        names: Names of those that matter; none for all.

    Raises:
        SettingsError: The file can't be read or has faults, or has no tool of one of the names.
    """
    try:
        tools = read(path)
    except ToolsFileError as error:
        faults = [fault if str(path) in fault else f"{path}: {fault}" for fault in error.faults]
        raise SettingsError(faults) from None
    known = {tool.name for tool in tools}
    if unknown := sorted(set(names) - known):
        raise SettingsError(
            [f"{path} has no tool {name}. 'agenta-ai-server tools list' lists them." for name in unknown]
        )
    return tuple(tool for tool in tools if not names or tool.name in names)


def check_environment(slug: str) -> None:
    """Raise SettingsError if no environment is given."""
    if not slug:
        raise SettingsError([f"{ENVIRONMENT}: is missing. Set it, or give the environment's slug with --environment."])
