"""Deployed applications as they were recorded of Agenta v0.113, and tools that fit them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenta_ai_server.agenta.management import Revision
from agenta_ai_server.standin.permissions import Caller
from agenta_ai_server.tools.tools_file.read import parse

if TYPE_CHECKING:
    from agenta_ai_server.standin.app import StandIn
    from agenta_ai_server.standin.management import Application, Project
    from agenta_ai_server.tools.tools_file.definition import ToolDefinition

RECORDED: dict[str, dict[str, Any]] = {
    each["case"].removeprefix("retrieve_"): each["answer"]["application_revision"]
    for each in json.loads(Path("tests/data/deployed_apps.json").read_text("utf-8"))
    if each["case"].startswith("retrieve_")
}
"""Revisions as Agenta answers with them, by the slugs of their applications."""


def revision(recorded: dict[str, Any]) -> Revision:
    """A recorded revision, read."""
    return Revision(
        id=recorded["id"],
        version=recorded["version"],
        author="",
        date="",
        message="",
        uri=recorded["data"]["uri"],
        parameters=recorded["data"].get("parameters", {}),
        flags=frozenset(name for name, holds in recorded["flags"].items() if holds),
        schemas=recorded["data"].get("schemas", {}),
    )


def prompt_revision(prompt: dict[str, Any], uri: str = "agenta:builtin:completion:v0") -> Revision:
    """A revision that holds this prompt."""
    return Revision("1", "1", "", "", "", uri, {"prompt": prompt}, frozenset())


def project(standin: StandIn) -> Project:
    """What the owner of the stand-in's key has in Agenta."""
    return standin.management.projects[Caller().project_id]


def deploy(standin: StandIn, slug: str, data: dict[str, Any] | None = None, environment: str = "production") -> None:
    """Deploy to the stand-in what was recorded of an application, or other data in a new revision of it."""
    here = project(standin)
    if slug not in here.applications:
        found = RECORDED.get(slug, {"name": slug, "data": {}})
        here.create(slug, found["name"], data or found["data"], "ada", found.get("description", ""))
    elif data is not None:
        here.applications[slug].commit(data, "ada")
    application: Application = here.applications[slug]
    here.deploy(application, application.revisions[-1], here.environments[environment], "ada")


def tool(text: str) -> ToolDefinition:
    """The only tool that a file says."""
    (found,) = parse(text.encode(), Path())
    return found
