"""Checks of the prompts behind a tools file: whether they are deployed and still match."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.agenta.api import AgentaApi
from agenta_ai_server.agenta.credential import ServerKey
from agenta_ai_server.agenta.deployments import read_states
from agenta_ai_server.agenta.management import OLDEST_RELEASE, ManagementClient, ManagementError, Problem
from agenta_ai_server.checks.shared import HTTP_SECONDS, Found, failed, ok, open_agenta, warning

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agenta_ai_server.settings import Settings


async def deployments(settings: Settings) -> AsyncIterator[Found]:
    """Whether what is deployed fits the file. What is wrong with the file, Agenta or its key, other parts say."""
    if settings.tools_file is None or not (settings.api_url and settings.api_key):
        return
    # Imported only if there is a file, so that the start is fast.
    from agenta_ai_server.tools.drift.comparison import FATAL, state_differences
    from agenta_ai_server.tools.tools_file.read import ToolsFileError, read

    slug = settings.environment_slug or ""
    try:
        tools = [tool for tool in read(settings.tools_file) if tool.environment or slug]
    except ToolsFileError:
        return
    places = {tool.name: (tool.application, tool.environment or slug) for tool in tools}
    try:
        async with open_agenta(settings) as (http, address, key):
            management = ManagementClient(AgentaApi(http, address, ServerKey(key), seconds=HTTP_SECONDS))
            states = await read_states(management, set(places.values()))
    except ManagementError as error:
        if error.problem is Problem.NO_SUCH_ROUTE:
            yield ok(f"What is deployed can't be read from Agenta before {OLDEST_RELEASE}.")
        elif error.problem not in (Problem.UNREACHABLE, Problem.KEY_UNKNOWN):
            yield failed(str(error), error.remedy)
        return
    is_fine = True
    for tool in tools:
        place = places[tool.name]
        for difference in state_differences(tool, states[place], place[1]):
            is_fine = False
            say = failed if difference.drift in FATAL else warning
            yield say(f"{tool.name}: {difference.text}", difference.remedy)
    if is_fine and tools:
        yield ok(f"What is deployed fits the tools file: {len(tools)} compared.")
