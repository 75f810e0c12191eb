"""The command ``agenta-ai-server tools diff``: compares the tools file with what is deployed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agenta_ai_server.agenta.deployments import read_states
from agenta_ai_server.agenta.management import ManagementError
from agenta_ai_server.commands import stdout
from agenta_ai_server.commands.management import open_management
from agenta_ai_server.commands.tools.proto import typed_changes
from agenta_ai_server.commands.tools.source import check_environment, environment_of, file_of, read_tools
from agenta_ai_server.tools.drift.comparison import Drift, state_differences

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from agenta_ai_server.agenta.deployments import ApplicationState
    from agenta_ai_server.tools.drift.comparison import Difference
    from agenta_ai_server.tools.tools_file.definition import ToolDefinition
    from agenta_ai_server.typed.compatibility import Change

EXIT_DIFFERENT, EXIT_TROUBLE = 1, 2
SIGNS = {
    Drift.INPUT_ADDED: "+",
    Drift.RESULT_ADDED: "+",
    Drift.INPUT_REMOVED: "-",
    Drift.RESULT_REMOVED: "-",
    Drift.INPUT_RENAMED: "~",
    Drift.RESULT_CHANGED: "~",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command's options.

    Attributes:
        names: The tools to compare; none for all.
        file: The tools file, in place of the server's.
        environment: Slug of the environment of tools that name none, in place of the server's.
        api_key_file: File with the key, in place of the variables.
        as_json: Whether to print JSON.
    """

    names: tuple[str, ...] = ()
    file: Path | None = None
    environment: str = ""
    api_key_file: Path | None = None
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Compared:
    """A tool and what is deployed for it.

    Attributes:
        tool: The tool.
        environment: Slug of its environment.
        state: What there is in Agenta.
        differences: How both differ.
    """

    tool: ToolDefinition
    environment: str
    state: ApplicationState
    differences: list[Difference]

    @property
    def version(self) -> str:
        """The deployed version; empty if none is deployed."""
        return self.state.deployed.version if self.state.deployed else ""


async def run(environment: Mapping[str, str], options: Options) -> int:
    """Compare, and print the differences.

    Args:
        environment: Holds the address of Agenta and a key, and may name the file and the environment.
        options: What to do.

    Returns:
        0 if there are none, 1 if there are, 2 if Agenta can't be read.

    Raises:
        SettingsError: A setting or the file is missing or has faults.
    """
    path = file_of(environment, options.file)
    tools = read_tools(path, options.names)
    typed = typed_changes(path, options.names)
    slug = environment_of(environment, options.environment)
    if not all(tool.environment for tool in tools):
        check_environment(slug)
    places = {tool.name: (tool.application, tool.environment or slug) for tool in tools}
    try:
        async with open_management(environment, options.api_key_file) as management:
            states = await read_states(management, set(places.values()))
    except ManagementError as error:
        stdout.report(f"agenta-ai-server tools diff: {error} {error.remedy}")
        return EXIT_TROUBLE
    compared = []
    for tool in tools:
        place = places[tool.name]
        compared.append(Compared(tool, place[1], states[place], state_differences(tool, states[place], place[1])))
    stdout.say(_json(compared, typed) if options.as_json else _text(compared, typed))
    return EXIT_DIFFERENT if typed or any(each.differences for each in compared) else 0


def _text(compared: Sequence[Compared], typed: Sequence[Change]) -> str:
    lines = []
    if typed:
        lines += ["Typed methods differ from the lock file; ! marks changes that break callers with older stubs:"]
        lines += [f"  {'!' if change.breaking else '+'} {change}" for change in typed]
        lines += ["    → 'agenta-ai-server tools proto' brings the lock file up to date.", ""]
    for each in compared:
        if not each.differences:
            continue
        version = f", version {each.version}" if each.version else ""
        lines.append(f"{each.tool.name}: {each.tool.application} in {each.environment}{version}")
        for difference in each.differences:
            sign = SIGNS.get(difference.drift, "!")
            lines += [f"  {sign} {difference.text}", f"    → {difference.remedy}"]
        lines.append("")
    different = sum(bool(each.differences) for each in compared)
    total = "1 tool" if len(compared) == 1 else f"{len(compared)} tools"
    lines.append(
        f"{different} of {total} {'differs' if different == 1 else 'differ'} from what is deployed."
        if different
        else f"No differences: {total} compared."
    )
    return "\n".join(lines)


def _json(compared: Sequence[Compared], typed: Sequence[Change]) -> str:
    tools = [
        {
            "name": each.tool.name,
            "application": each.tool.application,
            "environment": each.environment,
            "version": each.version or None,
            "differences": [
                {"drift": difference.drift, "text": difference.text, "remedy": difference.remedy}
                for difference in each.differences
            ],
        }
        for each in compared
    ]
    changed = [{"path": change.path, "text": change.description, "breaking": change.breaking} for change in typed]
    ok = not typed and not any(each.differences for each in compared)
    return json.dumps({"ok": ok, "tools": tools, "typed": changed}, indent=2)
