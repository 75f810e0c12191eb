"""What ``make live`` does, with the stand-in in place of a real Agenta."""

from __future__ import annotations

import asyncio
import os
import sys

from agenta_ai_server.standin.app import StandIn
from agenta_ai_server.standin.permissions import Caller


async def test_it_passes_and_leaves_nothing_deployed() -> None:
    async with StandIn(app="", models={"gpt-4o-mini"}) as standin:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "pytest", "-q", "--live", "-p", "no:cacheprovider", "tests/live",
            env={**os.environ, "AGENTA_AI_SERVICES_API_URL": standin.url, "AGENTA_API_KEY": "standin-key"},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        project = standin.management.projects[Caller().project_id]
    assert len(project.applications) == 2
    assert all(application.archived_at for application in project.applications.values())
    assert project.environments["development"].references == {}
