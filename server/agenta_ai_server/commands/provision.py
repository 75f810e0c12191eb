"""The command ``agenta-ai-server provision``: deploys the refine prompt to a user's Agenta."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agenta_ai_server.agenta.addresses import AgentaAddress
from agenta_ai_server.agenta.deployments import read_state
from agenta_ai_server.agenta.management import ManagementError
from agenta_ai_server.commands import stdout
from agenta_ai_server.commands.management import URL, open_management
from agenta_ai_server.provisioning.execute import execute
from agenta_ai_server.provisioning.plan import CannotProvision, Step, Wanted, plan, previous

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agenta_ai_server.agenta.management import ManagementClient

APPLICATION = "AGENTA_AI_SERVICES_REFINE_PROMPT_KEY"
KEY_NEEDED = (
    "is missing. Set it to an API key of a user with the role developer or above, or give a file that holds "
    "one with --api-key-file. The server's own key isn't used: it needs less"
)
EXIT_REFUSED = 1

CREDENTIAL_NOTE = (
    "Agenta also needs a credential for the model: if it has none yet, add your provider's key in Agenta under "
    "Settings > Providers & Models. This command can't do that."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says.

    Attributes:
        environment: Slug of the environment.
        application: Slug of the application; empty for the one that the server is set to, or else ``"ai-refine"``.
        model: Name of the model in Agenta; empty for a rollback.
        api_key_file: File with the key, in place of the variable.
        dry_run: Whether to print the change and make none.
        overwrite: Whether to replace a prompt that provision didn't make.
        rollback: Whether to deploy what was deployed before, in place of the shipped prompt.
    """

    environment: str
    application: str = ""
    model: str = ""
    api_key_file: Path | None = None
    dry_run: bool = False
    overwrite: bool = False
    rollback: bool = False


async def run(environment: Mapping[str, str], options: Options) -> int:
    """Provision, and print the settings to export on standard output. All else goes to standard error.

    Args:
        environment: Holds the key and the address of Agenta.
        options: What to do.

    Returns:
        0 if it is done or there was nothing to do, 1 if Agenta or what is deployed there doesn't allow it.

    Raises:
        SettingsError: The key or the address is missing or malformed.
    """
    if not options.application:
        options = replace(options, application=environment.get(APPLICATION, "").strip() or "ai-refine")
    try:
        async with open_management(environment, options.api_key_file, KEY_NEEDED) as management:
            if options.rollback:
                await _roll_back(management, options)
            else:
                await _provision(management, options)
    except (CannotProvision, ManagementError) as error:
        if isinstance(error, CannotProvision) and error.diff:
            _report(error.diff)
        _report(f"agenta-ai-server provision: {error} {error.remedy}")
        return EXIT_REFUSED
    if not options.dry_run:
        stdout.say(_exports(environment, options))
    return 0


async def _provision(management: ManagementClient, options: Options) -> None:
    wanted = Wanted(options.application, options.environment, options.model)
    found = await read_state(management, wanted.application, wanted.environment)
    change = plan(wanted, found, overwrite=options.overwrite)
    if not change.steps:
        _report(f"No change: {wanted.application} in {wanted.environment} is up to date.")
    elif options.dry_run:
        stdout.say(change.diff or f"Would deploy the newest version of {wanted.application} to {wanted.environment}.")
    else:
        await execute(management, wanted, found, change, _report)
        if Step.CREATE in change.steps:
            _report(CREDENTIAL_NOTE)


async def _roll_back(management: ManagementClient, options: Options) -> None:
    found = await read_state(management, options.application, options.environment)
    history = await management.history(found.environment, options.application) if found.environment else []
    version = previous(found, options.environment, history)
    where = f"version {version} of {options.application} to {options.environment}"
    if options.dry_run:
        stdout.say(f"Would deploy {where}.")
        return
    message = "agenta-ai-server provision: rollback"
    await management.deploy(options.application, version, options.environment, message)
    _report(f"Deployed {where}.")


def _exports(environment: Mapping[str, str], options: Options) -> str:
    settings = {
        URL: AgentaAddress.parse(environment[URL]).root,
        "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG": options.environment,
        APPLICATION: options.application,
    }
    lines = [f"export {name}={shlex.quote(value)}" for name, value in settings.items()]
    return "\n".join([*lines, "# And AGENTA_AI_SERVICES_API_KEY or its _FILE: a viewer's key is enough."])


def _report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
