"""Makes the change in Agenta that was planned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.provisioning.plan import Step
from agenta_ai_server.tools.refine_prompt import prompt

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenta_ai_server.agenta.deployments import ApplicationState
    from agenta_ai_server.agenta.management import ManagementClient
    from agenta_ai_server.provisioning.plan import Plan, Wanted

NAME = "AI refine"
DESCRIPTION = "Refines prompts for the Agenta AI services. Made by agenta-ai-server provision."


async def execute(
    management: ManagementClient, wanted: Wanted, found: ApplicationState, plan: Plan, report: Callable[[str], None]
) -> None:
    """Make the change. What was done when a step fails stays, and the next plan continues there.

    Args:
        management: Makes it.
        wanted: What the plan was made from.
        found: What the plan was made from.
        plan: The change.
        report: Takes a sentence for each step that has been done.

    Raises:
        ManagementError: Agenta can't be reached, refuses or fails.
    """
    message = f"agenta-ai-server provision: refine prompt {prompt.version()}"
    revision = found.latest
    if Step.CREATE in plan.steps:
        await management.create_application(wanted.application, NAME, DESCRIPTION, prompt.URI, wanted.parameters)
        revision = await management.latest_revision(wanted.application)
        report(f"Created the application {wanted.application}.")
    if Step.COMMIT in plan.steps and found.application:
        revision = await management.commit(found.application, prompt.URI, wanted.parameters, message)
        report(f"Committed version {revision.version} of {wanted.application}.")
    if Step.DEPLOY in plan.steps and revision:
        await management.deploy(wanted.application, revision.version, wanted.environment, message)
        report(f"Deployed version {revision.version} of {wanted.application} to {wanted.environment}.")
