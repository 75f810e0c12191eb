"""The command ``agenta-ai-server provision``: deploys the refine prompt, or prompts of tools, to a user's Agenta."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agenta_ai_server.agenta.addresses import AgentaAddress
from agenta_ai_server.agenta.deployments import read_state
from agenta_ai_server.agenta.management import ManagementError
from agenta_ai_server.commands import stdout
from agenta_ai_server.commands.management import URL, open_management
from agenta_ai_server.commands.tools.source import FILE, read_tools
from agenta_ai_server.provisioning.execute import execute
from agenta_ai_server.provisioning.plan import CannotProvision, Step, plan, previous
from agenta_ai_server.provisioning.wanted import MADE_BY, PromptFileError, refine_prompt, tool_prompt
from agenta_ai_server.settings import ENVIRONMENT, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from agenta_ai_server.agenta.deployments import ApplicationState, Place
    from agenta_ai_server.agenta.management import Deployment, ManagementClient
    from agenta_ai_server.provisioning.plan import Plan
    from agenta_ai_server.provisioning.wanted import Wanted
    from agenta_ai_server.tools.tools_file.definition import ToolDefinition

APPLICATION = "AGENTA_AI_SERVICES_REFINE_PROMPT_KEY"
KEY_NEEDED = (
    "is missing. Set it to an API key of a user with the developer role or higher, or give a file that contains "
    "one with --api-key-file. The server's own key isn't used: it needs less"
)
EXIT_REFUSED = 1

CREDENTIAL_NOTE = (
    "Agenta also needs a credential for the model: if it has none yet, add your provider's key in Agenta under "
    "Settings > Providers & Models. This command can't do that."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command's options.

    Attributes:
        environment: Slug of the environment.
        application: Slug of the application; empty for the one that the server is set to, or else ``"ai-refine"``.
        model: Name of the model in Agenta; empty for a rollback, and for prompts of tools that name their own.
        tools: The tools file whose prompts are deployed, in place of the refine prompt.
        only: Names of the tools whose prompts matter; none for all.
        api_key_file: File with the key, in place of the variable.
        dry_run: Whether to print the change and make none.
        overwrite: Whether to replace a prompt that provision didn't make.
        rollback: Whether to deploy what was deployed before, in place of the shipped prompt.
    """

    environment: str
    application: str = ""
    model: str = ""
    tools: Path | None = None
    only: tuple[str, ...] = ()
    api_key_file: Path | None = None
    dry_run: bool = False
    overwrite: bool = False
    rollback: bool = False


async def run(environment: Mapping[str, str], options: Options) -> int:
    """Provision, and print the settings to export to standard output. Everything else goes to standard error.

    Args:
        environment: Holds the key and the address of Agenta.
        options: What to do.

    Returns:
        0 if it is done or there was nothing to do, 1 if Agenta or what is deployed there doesn't allow it.

    Raises:
        SettingsError: The key, the address, or the tools file is missing or has faults.
    """
    _check(options)
    if not options.application:
        options = replace(options, application=environment.get(APPLICATION, "").strip() or "ai-refine")
    tools = _tools_with_prompts(options)
    wanted = [] if options.rollback else _wanted(tools, options)
    places = [_place(tool, options) for tool in tools] or [(options.application, options.environment)]
    try:
        async with open_management(environment, options.api_key_file, KEY_NEEDED) as management:
            if options.rollback:
                refused = await _roll_back(management, places, options)
            else:
                refused = await _provision(management, wanted, options)
    except ManagementError as error:
        stdout.report(f"agenta-ai-server provision: {error} {error.remedy}")
        return EXIT_REFUSED
    for each in refused:
        if each.diff:
            for line in each.diff.split("\n"):
                stdout.report(line)
        stdout.report(f"agenta-ai-server provision: {each} {each.remedy}")
    if refused:
        return EXIT_REFUSED
    if not options.dry_run:
        stdout.say(_exports(environment, options))
    return 0


def _check(options: Options) -> None:
    faults = []
    if options.tools and options.application:
        faults.append("--application: a tools file names the applications itself. Leave it out.")
    if options.only and not options.tools:
        faults.append("--only: names tools of a tools file. Give the file with --tools.")
    if not options.rollback and not options.model and not options.tools:
        faults.append("--model: is missing. Give the model as Agenta names it, or --rollback.")
    if options.rollback and options.tools and not options.only:
        # The other prompts of the file may have been deployed at another time.
        faults.append("--only: is missing. Name each tool whose prompt is to be rolled back.")
    if faults:
        raise SettingsError(faults)


def _tools_with_prompts(options: Options) -> list[ToolDefinition]:
    if options.tools is None:
        return []
    tools = read_tools(options.tools, options.only)
    found = [tool for tool in tools if tool.prompt is not None]
    if lacking := [tool.name for tool in tools if tool.prompt is None and options.only]:
        raise SettingsError([f"{options.tools}: {name} names no prompt file. Add prompt." for name in lacking])
    if not found:
        raise SettingsError([f"{options.tools}: no tool names a prompt file. Add prompt to one."])
    return found


def _wanted(tools: Iterable[ToolDefinition], options: Options) -> list[Wanted]:
    """Return what is to be deployed, once for each application and environment."""
    if options.tools is None:
        return [refine_prompt(options.application, options.environment, options.model)]
    found: dict[Place, Wanted] = {}
    faults = []
    for tool in tools:
        try:
            wanted = tool_prompt(tool, options.environment, options.model)
        except PromptFileError as error:
            faults.append(f"{tool.name}: {error}")
            continue
        other = found.setdefault(_place(tool, options), wanted)
        if other.parameters != wanted.parameters:
            faults.append(
                f"{tool.name}: {other.label} has a different prompt for "
                f"{tool.application}. Use the same prompt for both."
            )
    if faults:
        raise SettingsError(faults)
    return list(found.values())


def _place(tool: ToolDefinition, options: Options) -> Place:
    return tool.application, tool.environment or options.environment


async def _provision(
    management: ManagementClient, wanted: Sequence[Wanted], options: Options
) -> Sequence[CannotProvision]:
    """Make all changes, or none if one of them can't be made. Return why it can't."""
    changes: list[tuple[Wanted, ApplicationState, Plan]] = []
    refused = []
    for each in wanted:
        try:
            changes.append((each, *await _planned(management, each, options)))
        except CannotProvision as error:
            refused.append(error)
    if refused:
        return refused
    created: set[str] = set()
    for each, found, change in changes:
        if options.dry_run and change.steps:
            where = f"{each.application} to {each.environment}"
            stdout.say(change.diff or f"Would deploy the newest version of {where}.")
            continue
        if each.application in created:
            # For another environment, a moment ago.
            found, change = await _planned(management, each, options)
        if not change.steps:
            stdout.report(f"No change: {each.application} in {each.environment} is up to date.")
        else:
            await execute(management, each, found, change, stdout.report)
            created |= {each.application} if Step.CREATE in change.steps else set()
    if created:
        stdout.report(CREDENTIAL_NOTE)
    return []


async def _planned(management: ManagementClient, wanted: Wanted, options: Options) -> tuple[ApplicationState, Plan]:
    found, history = await _read(management, (wanted.application, wanted.environment))
    return found, plan(wanted, found, history, overwrite=options.overwrite)


async def _roll_back(
    management: ManagementClient, places: Iterable[Place], options: Options
) -> Sequence[CannotProvision]:
    refused = []
    for application, environment in dict.fromkeys(places):
        found, history = await _read(management, (application, environment))
        try:
            version = previous(found, environment, history)
        except CannotProvision as error:
            refused.append(error)
            continue
        where = f"version {version} of {application} to {environment}"
        if options.dry_run:
            stdout.say(f"Would deploy {where}.")
            continue
        await management.deploy(application, version, environment, f"{MADE_BY}rollback")
        stdout.report(f"Deployed {where}.")
    return refused


async def _read(management: ManagementClient, place: Place) -> tuple[ApplicationState, list[Deployment]]:
    application, environment = place
    found = await read_state(management, application, environment)
    history = await management.history(found.environment, application) if found.environment else []
    return found, history


def _exports(environment: Mapping[str, str], options: Options) -> str:
    settings = {URL: AgentaAddress.parse(environment[URL]).root, ENVIRONMENT: options.environment}
    settings |= {FILE: str(options.tools)} if options.tools else {APPLICATION: options.application}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in settings.items()]
    return "\n".join([*lines, "# And AGENTA_AI_SERVICES_API_KEY or its _FILE: a viewer's key is enough."])
