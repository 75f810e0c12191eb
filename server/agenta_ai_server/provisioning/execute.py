"""Executes a planned change in Agenta."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.provisioning.plan import Step

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenta_ai_server.agenta.deployments import ApplicationState
    from agenta_ai_server.agenta.management import ManagementClient
    from agenta_ai_server.provisioning.plan import Plan
    from agenta_ai_server.provisioning.wanted import Wanted


async def execute(
    management: ManagementClient, wanted: Wanted, found: ApplicationState, plan: Plan, report: Callable[[str], None]
) -> None:
    """Make the change. If a step fails, the completed steps stay, and the next plan continues there.

    Args:
        management: Makes it.
        wanted: What the plan was made from.
        found: What the plan was made from.
        plan: The change.
        report: Takes a sentence for each step that has been done.

    Raises:
        ManagementError: Agenta can't be reached, refuses or fails.
    """
    slug, message = wanted.application, wanted.message
    revision = found.latest
    if Step.CREATE in plan.steps:
        await management.create_application(slug, wanted.name, wanted.description, wanted.uri, wanted.parameters)
        revision = await management.latest_revision(slug)
        report(f"Created the application {slug}.")
    if Step.COMMIT in plan.steps and found.application:
        revision = await management.commit(found.application, wanted.uri, wanted.parameters, message)
        report(f"Committed version {revision.version} of {slug}.")
    if Step.DEPLOY in plan.steps and revision:
        await management.deploy(slug, revision.version, wanted.environment, message)
        report(f"Deployed version {revision.version} of {slug} to {wanted.environment}.")
