"""Agenta's management API: the applications and environments of each project, with recorded responses."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import uuid4

from agenta_ai_server.standin import answers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agenta_ai_server.standin.answers import CannedResponse
    from agenta_ai_server.standin.permissions import Caller

COMPLETION = "agenta:builtin:completion:v0"
ENVIRONMENTS = ("development", "production", "staging")

_SLUG = re.compile(r"[A-Za-z0-9_.-]+")
_FLAGS = {
    "agenta:builtin:completion:v0": ("is_managed", "has_url"),
    "agenta:builtin:chat:v0": ("is_managed", "is_chat", "has_url"),
    "agenta:custom:hook:v0": ("is_managed", "is_custom", "is_hook", "has_url"),
    "agenta:custom:code:v0": ("is_managed", "is_custom", "is_code", "has_url", "has_script"),
    "": (),
}
_OUTPUTS = {
    "agenta:builtin:completion:v0": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": ["string", "object", "array"],
        "description": "Generated response, which may be text or structured data.",
    },
    "agenta:builtin:chat:v0": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "x-ag-type-ref": "message",
        "type": "object",
        "description": "Final chat message returned by the workflow.",
    },
}
_FORBIDDEN = {"detail": "You do not have access to perform this action. Please contact your organization admin."}
_UNAUTHORIZED = {"detail": {"message": "Unauthorized"}}
_NOTHING_DONE = {"count": 0}
_NOT_IN_ENVIRONMENT = {"detail": "Environment revision does not contain application references for the requested key."}

Body: TypeAlias = dict[str, Any]
Reply: TypeAlias = tuple[int, Body]


@dataclass(slots=True)
class Application:
    """An application with its revisions, the oldest first."""

    slug: str
    name: str
    description: str = ""
    revisions: list[Body] = field(default_factory=list)
    archived_at: str | None = None
    id: str = field(default_factory=lambda: str(uuid4()))
    variant_id: str = field(default_factory=lambda: str(uuid4()))

    def commit(self, data: Body, author: str, message: str = "") -> Body:
        """Add a revision, even if it equals the last one."""
        revision = {
            "application_id": self.id,
            "application_slug": self.slug,
            "application_variant_id": self.variant_id,
            "author": author,
            "date": _now(),
            **({"message": message} if message else {}),
            "flags": _flags(data.get("uri", "")),
            "version": str(len(self.revisions)),
            "slug": uuid4().hex[:12],
            "id": str(uuid4()),
            "data": data,
        }
        self.revisions.append(revision)
        return revision

    def shown(self) -> Body:
        """Return it as the simple routes show it."""
        latest = self.revisions[-1]
        deleted = {"deleted_at": self.archived_at} if self.archived_at else {}
        return {
            "flags": latest["flags"],
            **self._labels(),
            "slug": self.slug,
            "id": self.id,
            "data": _with_schemas(latest["data"]),
            "variant_id": self.variant_id,
            "revision_id": latest["id"],
            **deleted,
        }

    def revision_shown(self, revision: Body) -> Body:
        """Return one of its revisions as the routes show it."""
        return {**self._labels(), **revision, "data": _with_schemas(revision["data"])}

    def _labels(self) -> Body:
        return {"name": self.name} | ({"description": self.description} if self.description else {})


@dataclass(slots=True)
class Environment:
    """An environment with what it has held, the oldest first: for each revision, references by key."""

    slug: str
    revisions: list[Body] = field(default_factory=list)
    id: str = field(default_factory=lambda: str(uuid4()))
    variant_id: str = field(default_factory=lambda: str(uuid4()))

    @property
    def references(self) -> dict[str, Any]:
        """What it holds now, by key."""
        return dict(self.revisions[-1]["data"].get("references", {})) if self.revisions else {}

    def commit(self, references: Mapping[str, Any], author: str, message: str = "") -> Body:
        """Add a revision that holds these."""
        revision = {
            "environment_id": self.id,
            "environment_slug": self.slug,
            "environment_variant_id": self.variant_id,
            "author": author,
            "date": _now(),
            **({"message": message} if message else {}),
            "version": str(len(self.revisions)),
            "id": str(uuid4()),
            "data": {"references": dict(references)} if references else {},
        }
        self.revisions.append(revision)
        return revision


@dataclass(slots=True)
class Project:
    """What one project holds, by slug. The environments are those that every project begins with."""

    applications: dict[str, Application] = field(default_factory=dict)
    environments: dict[str, Environment] = field(
        default_factory=lambda: {slug: Environment(slug) for slug in ENVIRONMENTS}
    )

    def create(self, slug: str, name: str, data: Body, author: str, description: str = "") -> Application:
        """Make an application, with an empty revision and one that holds the data."""
        application = self.applications[slug] = Application(slug, name, description)
        application.commit({}, author, "Initial commit")
        application.commit(data, author)
        return application

    def deploy(
        self, application: Application, revision: Body, environment: Environment, author: str, message: str = ""
    ) -> None:
        """Put the revision into the environment, even if it is there already."""
        reference = {
            "application": {"id": application.id},
            "application_variant": {"id": application.variant_id},
            "application_revision": {name: revision[name] for name in ("version", "slug", "id")},
        }
        references = environment.references | {f"{application.slug}.revision": reference}
        environment.commit(references, author, message)

    def deployed(self, application: str, environment: str) -> Body | None:
        """Return the revision of the application that the environment holds."""
        found = self.environments.get(environment)
        reference = found.references.get(f"{application}.revision") if found else None
        if reference is None:
            return None
        revision_id = reference["application_revision"]["id"]
        revisions = self.applications[application].revisions
        return next(revision for revision in revisions if revision["id"] == revision_id)


class Management:
    """The API, with a project for each that its callers name.

    Attributes:
        projects: What they hold, by their ids.
    """

    def __init__(self) -> None:
        self.projects: defaultdict[str, Project] = defaultdict(Project)

    def answer(self, method: str, path: str, caller: Caller | None, body: bytes) -> CannedResponse | None:
        """Return what Agenta would answer; ``None`` if it is another API's route."""
        found = next((route for route in _ROUTES if method == "POST" and route.pattern.fullmatch(path)), None)
        if found is None:
            return None
        if caller is None:
            return answers.of_json(401, _UNAUTHORIZED)
        if found.action not in caller.actions:
            return answers.of_json(403, _FORBIDDEN)
        match = found.pattern.fullmatch(path)
        request = _Request(self.projects[caller.project_id], caller.user_id, json.loads(body or b"{}"), match)
        return answers.of_json(*found.run(request))


@dataclass(frozen=True, slots=True)
class _Request:
    project: Project
    user: str
    content: Body
    path: Any

    def slug(self, name: str) -> str | None:
        reference = self.content.get(name) or {}
        slug: str | None = reference.get("slug")
        return slug

    def by_id(self, application_id: str | None) -> Application | None:
        every = self.project.applications.values()
        return next((each for each in every if each.id == application_id), None)


def _query_applications(request: _Request) -> Reply:
    wanted = [reference.get("slug") for reference in request.content.get("application_refs", [])]
    every = request.project.applications.values()
    found = [
        each.shown()
        for each in every
        if (not wanted or each.slug in wanted) and (not each.archived_at or request.content.get("include_archived"))
    ]
    return 200, {"count": len(found), "applications": found}


def _create_application(request: _Request) -> Reply:
    application = request.content["application"]
    slug = application.get("slug")
    if slug is None:
        return 200, _NOTHING_DONE
    if not _SLUG.fullmatch(slug):
        where = ["body", "application", "slug"]
        error = {"type": "value_error", "loc": where, "msg": "Value error, 'slug' must be URL-safe.", "input": slug}
        return 422, {"detail": [error]}
    if slug in request.project.applications:
        message = f"A resource with slug '{slug}' already exists in this project."
        return 409, {"detail": {"message": message, "conflict": {"slug": slug}}}
    data = application.get("data", {})
    if data.get("uri", "") not in _FLAGS:
        return 500, _unexpected("create_simple_application")
    name, description = application.get("name", ""), application.get("description", "")
    created = request.project.create(slug, name, data, request.user, description)
    return 200, {"count": 1, "application": created.shown()}


def _archive(request: _Request) -> Reply:
    application = request.by_id(request.path["id"])
    if application is None:
        return 200, _NOTHING_DONE
    application.archived_at = _now() if request.path["verb"] == "archive" else None
    return 200, {"count": 1, "application": application.shown()}


def _retrieve(request: _Request) -> Reply:
    slug, environment = request.slug("application_ref") or "", request.slug("environment_ref")
    application = request.project.applications.get(slug)
    if environment is not None:
        revision = request.project.deployed(slug, environment)
        if application is None or revision is None:
            return 404, _NOT_IN_ENVIRONMENT
    elif application is None:
        return 200, _NOTHING_DONE
    else:
        revision = application.revisions[-1]
    return 200, {"count": 1, "application_revision": application.revision_shown(revision)}


def _commit(request: _Request) -> Reply:
    revision = request.content["application_revision"]
    application = request.by_id(revision.get("application_id"))
    if application is None or revision.get("application_variant_id") != application.variant_id:
        return 200, _NOTHING_DONE
    committed = application.commit(revision.get("data", {}), request.user, revision.get("message", ""))
    return 200, {"count": 1, "application_revision": committed}


def _deploy(request: _Request) -> Reply:
    if request.slug("environment_ref") is None:
        return 400, {"detail": "Application deploy requires environment refs."}
    application = request.project.applications.get(request.slug("application_ref") or "")
    version = (request.content.get("application_revision_ref") or {}).get("version")
    revisions = application.revisions if application else []
    found = [each for each in revisions if version in (None, each["version"])]
    if application is None or not found:
        return 404, {"detail": "Application revision not found."}
    environment = request.project.environments.get(request.slug("environment_ref") or "")
    if environment is None:
        return 404, {"detail": "Environment revision not found."}
    request.project.deploy(application, found[-1], environment, request.user, request.content.get("message", ""))
    return 200, {"count": 1, "application_revision": found[-1]}


def _retrieve_environment(request: _Request) -> Reply:
    environment = request.project.environments.get(request.slug("environment_ref") or "")
    if environment is None:
        return 404, {"detail": "Environment revision not found."}
    if not environment.revisions:
        return 200, _NOTHING_DONE
    return 200, {"count": 1, "environment_revision": environment.revisions[-1]}


def _query_environments(request: _Request) -> Reply:
    wanted = [reference.get("slug") for reference in request.content.get("environment_refs", [])]
    found = [
        {"name": each.slug, "slug": each.slug, "id": each.id, "variant_id": each.variant_id}
        for each in request.project.environments.values()
        if not wanted or each.slug in wanted
    ]
    return 200, {"count": len(found), "environments": found}


def _environment_log(request: _Request) -> Reply:
    wanted = request.content["environment_revisions"]["environment_id"]
    found = [each for each in request.project.environments.values() if each.id == wanted]
    revisions = [revision for each in found for revision in reversed(each.revisions)]
    return 200, {"count": len(revisions), "environment_revisions": revisions}


def _commit_environment(request: _Request) -> Reply:
    revision = request.content["environment_revision"]
    every = request.project.environments.values()
    found = next((each for each in every if each.id == revision.get("environment_id")), None)
    if found is None or revision.get("environment_variant_id") != found.variant_id:
        return 200, _NOTHING_DONE
    removed = revision.get("delta", {}).get("remove", [])
    left = {key: reference for key, reference in found.references.items() if key not in removed}
    return 200, {"count": 1, "environment_revision": found.commit(left, request.user, revision.get("message", ""))}


@dataclass(frozen=True, slots=True)
class _Route:
    pattern: re.Pattern[str]
    action: str
    run: Callable[[_Request], Reply]


_ROUTES = [
    _Route(re.compile(f"/api/{path}"), action, run)
    for path, action, run in [
        ("simple/applications/query", "view_applications", _query_applications),
        ("simple/applications/", "edit_applications", _create_application),
        ("simple/applications/(?P<id>[^/]+)/(?P<verb>archive|unarchive)", "edit_applications", _archive),
        ("applications/revisions/retrieve", "view_applications", _retrieve),
        ("applications/revisions/commit", "edit_applications", _commit),
        ("applications/revisions/deploy", "deploy_environments", _deploy),
        ("simple/environments/query", "view_environments", _query_environments),
        ("environments/revisions/retrieve", "view_environments", _retrieve_environment),
        ("environments/revisions/log", "view_environments", _environment_log),
        ("environments/revisions/commit", "deploy_environments", _commit_environment),
    ]
]


def _with_schemas(data: Body) -> Body:
    """Add the schema of the answer, as Agenta derives it where the creator gave none."""
    kind = _OUTPUTS.get(data.get("uri", ""))
    if kind is None:
        return data
    config = data.get("parameters", {}).get("prompt", {}).get("llm_config", {})
    chosen = (config.get("response_format") or {}).get("json_schema", {}).get("schema")
    return data | {"schemas": {"outputs": chosen or kind} | data.get("schemas", {})}


def _flags(uri: str) -> Body:
    held = ("is_application", *_FLAGS.get(uri, ()))
    names = {name for flags in _FLAGS.values() for name in flags} | {"is_application"}
    return {name: name in held for name in sorted(names)}


def _unexpected(operation: str) -> Body:
    message = "An unexpected error occurred. Please try again later or contact support."
    return {"detail": {"message": message, "operation_id": operation}}


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")
