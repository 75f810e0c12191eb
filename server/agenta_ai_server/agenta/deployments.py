"""Reads the state of an application: itself, its environment, and the revision that is deployed there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from agenta_ai_server.agenta.management import ManagementError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from agenta_ai_server.agenta.management import Application, Environment, ManagementClient, Revision

_AT_A_TIME = 8

Place: TypeAlias = tuple[str, str]
"""Slugs of an application and of an environment."""


@dataclass(frozen=True, slots=True)
class ApplicationState:
    """An application in the project of a key, as far as one environment is concerned.

    Attributes:
        application: The application; ``None`` if there is none.
        environment: The environment; ``None`` if there is none.
        deployed: The application's revision that the environment holds, if any.
        latest: The application's newest revision, if any.
    """

    application: Application | None
    environment: Environment | None
    deployed: Revision | None
    latest: Revision | None


async def read_state(management: ManagementClient, application: str, environment: str) -> ApplicationState:
    """Return the state of one application. A viewer's key is enough.

    Args:
        management: Reads it.
        application: Slug of the application.
        environment: Slug of the environment.

    Raises:
        ManagementError: Agenta can't be reached, refuses or fails.
    """
    found = await management.application(application)
    return ApplicationState(
        application=found,
        environment=await management.environment(environment),
        # Without an application, neither would explain why there is no revision.
        deployed=await management.deployed_revision(environment, application) if found else None,
        latest=await management.latest_revision(application) if found else None,
    )


async def read_states(management: ManagementClient, places: Collection[Place]) -> Mapping[Place, ApplicationState]:
    """Return the states of several applications, a few at a time.

    The newest revision is read only where none is deployed, because it takes a request for each.

    Raises:
        ManagementError: As above.
    """
    free = asyncio.Semaphore(_AT_A_TIME)
    environments = {slug: await management.environment(slug) for slug in {environment for _, environment in places}}

    async def read(application: str, environment: str) -> ApplicationState:
        async with free:
            found = await management.application(application)
            deployed = await management.deployed_revision(environment, application) if found else None
            latest = await management.latest_revision(application) if found and deployed is None else None
            return ApplicationState(found, environments[environment], deployed, latest)

    try:
        async with asyncio.TaskGroup() as group:
            reading = {place: group.create_task(read(*place)) for place in places}
    except* ManagementError as failed:
        # The first is as good as the others, which are mostly the same.
        raise failed.exceptions[0] from None
    return {place: task.result() for place, task in reading.items()}
