"""Agenta's management API: applications, their revisions, and what the environments hold. Since Agenta v0.96.6."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agenta_ai_server.agenta.api import AgentaApi, ApiResponse

Read = TypeVar("Read")

OLDEST_RELEASE: Final = "v0.96.6"
# After an application's slug, what an environment calls the revision that it holds of it.
_REVISION: Final = ".revision"
MAX_SAID_CHARACTERS = 300


class Problem(Enum):
    """Why a request to the management API failed."""

    UNREACHABLE = auto()
    KEY_UNKNOWN = auto()
    ROLE_TOO_LOW = auto()
    SLUG_TAKEN = auto()
    INVALID = auto()
    NOT_FOUND = auto()
    NO_SUCH_ROUTE = auto()
    NO_EFFECT = auto()
    FAILED = auto()


_PROBLEMS = {
    401: Problem.KEY_UNKNOWN,
    403: Problem.ROLE_TOO_LOW,
    404: Problem.NOT_FOUND,
    409: Problem.SLUG_TAKEN,
    400: Problem.INVALID,
    422: Problem.INVALID,
}


class ManagementError(Exception):
    """A request to the management API failed. The text is a sentence for operators, without secrets.

    Attributes:
        problem: What kind of failure it is.
        remedy: What the operator can do about it, in a sentence.
    """

    def __init__(self, problem: Problem, text: str, remedy: str) -> None:
        super().__init__(text)
        self.problem = problem
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Application:
    """An application in the project of the key.

    Attributes:
        id: Its UUID.
        slug: Its name in requests.
        variant_id: UUID of the variant that new revisions belong to.
        is_archived: Whether it is archived. Archived applications still run.
        name: Its name for people; empty if it has none.
        description: What it is for; empty if it doesn't say.
    """

    id: str
    slug: str
    variant_id: str
    is_archived: bool = False
    name: str = ""
    description: str = ""


@dataclass(frozen=True, slots=True)
class Revision:
    """A revision of an application.

    Attributes:
        id: Its UUID.
        version: Its number within the application, ``"2"``.
        author: UUID of the user who committed it.
        date: When, in ISO 8601.
        message: The commit's message; empty if it has none.
        uri: The type of the application, ``"agenta:builtin:completion:v0"``; empty if the commit didn't name one.
        parameters: What was committed, the prompt under ``"prompt"``.
        flags: The properties that Agenta derives, such as ``"is_chat"``: those that hold.
        schemas: JSON Schemas of ``"inputs"`` and ``"outputs"``, as far as Agenta knows them.
    """

    id: str
    version: str
    author: str
    date: str
    message: str
    uri: str
    parameters: Mapping[str, Any] = field(repr=False)
    flags: frozenset[str]
    schemas: Mapping[str, Any] = field(repr=False, default_factory=dict)


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment in the project of the key.

    Attributes:
        id: Its UUID.
        slug: Its name in requests.
        variant_id: UUID of its variant.
    """

    id: str
    slug: str
    variant_id: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """The deployment of one application in one revision of an environment.

    Attributes:
        author: UUID of the user who made this revision of the environment.
        date: When, in ISO 8601.
        message: Its message; empty if it has none.
        revision_id: UUID of the application's revision; empty if the environment held none.
        version: The number of that revision; empty if there is none.
    """

    author: str
    date: str
    message: str
    revision_id: str
    version: str


class ManagementClient:
    """Reads and writes in the project that an API key belongs to.

    Every method raises :class:`ManagementError` if Agenta can't be reached, refuses or fails.

    Args:
        api: Sends the requests. A viewer's key may read, an editor's create and commit, a developer's deploy.
    """

    def __init__(self, api: AgentaApi) -> None:
        self._api = api

    async def application(self, slug: str) -> Application | None:
        """Return the application, also if it is archived; ``None`` if there is none."""
        # Without include_archived, an archived one would look missing, but couldn't be created.
        query = {"application_refs": [{"slug": slug}], "include_archived": True}
        body = await self._post("simple/applications/query", query, "read applications")
        return _first(body, "applications", _application)

    async def create_application(
        self, slug: str, name: str, description: str, uri: str, parameters: Mapping[str, Any]
    ) -> Application:
        """Create an application with a first revision that holds the ``parameters``."""
        data = {"uri": uri, "parameters": parameters}
        application = {"slug": slug, "name": name, "description": description, "data": data}
        return await self._write("simple/applications/", {"application": application}, "application", _application)

    async def archive_application(self, application: Application) -> None:
        """Archive the application, which hides it and doesn't undeploy it."""
        path = f"simple/applications/{quote(application.id, safe='')}/archive"
        await self._write(path, {}, "application", _application, "archive an application")

    async def deployed_revision(self, environment: str, application: str) -> Revision | None:
        """Return the revision that runs in the environment.

        Returns:
            ``None`` if there is no such environment, no such application, or it isn't deployed there.
        """
        return await self._revision(
            {"environment_ref": {"slug": environment}, "application_ref": {"slug": application}}
        )

    async def latest_revision(self, application: str) -> Revision | None:
        """Return the newest revision of the application; ``None`` if there is no such application."""
        return await self._revision({"application_ref": {"slug": application}})

    async def commit(self, application: Application, uri: str, parameters: Mapping[str, Any], message: str) -> Revision:
        """Create a revision, even if it equals the newest one."""
        revision = {
            "application_id": application.id,
            # Without it, Agenta answers 200 and does nothing.
            "application_variant_id": application.variant_id,
            # Without the uri, the new revision would have none.
            "data": {"uri": uri, "parameters": parameters},
            "message": message,
        }
        path = "applications/revisions/commit"
        return await self._write(path, {"application_revision": revision}, "application_revision", _revision)

    async def deploy(self, application: str, version: str, environment: str, message: str) -> Revision:
        """Deploy a revision, even if it is deployed already."""
        deployment = {
            "application_ref": {"slug": application},
            "application_revision_ref": {"version": version},
            "environment_ref": {"slug": environment},
            "message": message,
        }
        path = "applications/revisions/deploy"
        return await self._write(path, deployment, "application_revision", _revision)

    async def environment(self, slug: str) -> Environment | None:
        """Return the environment; ``None`` if there is none."""
        query = {"environment_refs": [{"slug": slug}]}
        body = await self._post("simple/environments/query", query, "read environments")
        return _first(body, "environments", _environment)

    async def deployed_applications(self, environment: str) -> list[str]:
        """Return the slugs of the applications that the environment holds, sorted; none if there is no environment."""
        body = await self._retrieve("environments/revisions/retrieve", {"environment_ref": {"slug": environment}})
        references = _object(_object(_object(body, "environment_revision"), "data"), "references")
        return sorted(key.removesuffix(_REVISION) for key in references if key.endswith(_REVISION))

    async def history(self, environment: Environment, application: str) -> list[Deployment]:
        """Return what the environment has held of the application, the newest first."""
        query = {"environment_revisions": {"environment_id": environment.id}}
        body = await self._post("environments/revisions/log", query, "read environments")
        key = f"{application}{_REVISION}"
        return [_deployment(each, key) for each in _objects(body, "environment_revisions")]

    async def undeploy(self, environment: Environment, application: str, message: str) -> None:
        """Remove the application from the environment."""
        revision = {
            "environment_id": environment.id,
            "environment_variant_id": environment.variant_id,
            "message": message,
            "delta": {"remove": [f"{application}{_REVISION}"]},
        }
        path = "environments/revisions/commit"
        await self._write(path, {"environment_revision": revision}, "environment_revision", dict)

    async def _revision(self, reference: Mapping[str, Any]) -> Revision | None:
        body = await self._retrieve("applications/revisions/retrieve", reference)
        found = body.get("application_revision")
        return _revision(found) if isinstance(found, dict) else None

    async def _retrieve(self, path: str, reference: Mapping[str, Any]) -> dict[str, Any]:
        """Return the body of the response; empty if the resource doesn't exist."""
        try:
            return await self._post(path, reference, f"read {path.partition('/')[0]}")
        except ManagementError as error:
            if error.problem is Problem.NOT_FOUND:
                return {}
            raise

    async def _write(
        self, path: str, content: Mapping[str, Any], name: str, read: Callable[[dict[str, Any]], Read], doing: str = ""
    ) -> Read:
        doing = doing or _DOING[path]
        found = (await self._post(path, content, doing)).get(name)
        if not isinstance(found, dict):
            raise ManagementError(
                Problem.NO_EFFECT,
                f"Agenta answered 200 to the request to {doing}, but did nothing (count: 0).",
                "Check the slug, the application and the environment in Agenta's web interface, then try again.",
            )
        return read(found)

    async def _post(self, path: str, content: Mapping[str, Any], doing: str) -> dict[str, Any]:
        try:
            response = await self._api.post(path, content)
        except httpx.TransportError as error:
            raise ManagementError(
                Problem.UNREACHABLE,
                f"Agenta can't be reached: {error}.",
                "Check that it is running, and that its address is correct.",
            ) from None
        except ValueError as error:
            raise ManagementError(Problem.FAILED, str(error), "Check the proxy in front of Agenta.") from None
        if response.status != httpx.codes.OK:
            raise _refusal(response, doing)
        if not isinstance(response.document, dict):
            raise ManagementError(
                Problem.NO_SUCH_ROUTE,
                f"The request to {doing} was answered by something other than Agenta's API.",
                "Correct the address of Agenta.",
            )
        return response.document


_DOING = {
    "simple/applications/": "create an application",
    "applications/revisions/commit": "commit a revision",
    "applications/revisions/deploy": "deploy to an environment",
    "environments/revisions/commit": "change an environment",
}


def _refusal(response: ApiResponse, doing: str) -> ManagementError:
    status, said = response.status, _said(response.document)
    problem = _PROBLEMS.get(status, Problem.FAILED)
    if status == httpx.codes.NOT_FOUND and said in ("", "Not Found"):
        return ManagementError(
            Problem.NO_SUCH_ROUTE,
            f"This Agenta has no management API that can {doing}.",
            f"Correct the address, or update Agenta to {OLDEST_RELEASE} or newer.",
        )
    match problem:
        case Problem.KEY_UNKNOWN:
            text = "Agenta doesn't know this API key."
            remedy = "Check the key for typos, or create a new one in Agenta under Settings > API Keys."
        case Problem.ROLE_TOO_LOW:
            text = f"The owner of this API key may not {doing}: the role in the project is too low."
            role = "viewer" if doing.startswith("read") else "developer"
            remedy = f"Use a key of a user with the {role} role or higher, or have the user's role raised."
        case Problem.SLUG_TAKEN:
            text = f"Agenta refused to {doing} (HTTP {status}){_quoted(said)}."
            remedy = "Choose another slug, or find out in Agenta which resource has this one; it may be archived."
        case Problem.FAILED:
            text = f"Agenta failed to {doing} (HTTP {status}){_quoted(said)}."
            remedy = "Try again; if it fails again, look at the logs of Agenta."
        case _:
            text = f"Agenta refused to {doing} (HTTP {status}){_quoted(said)}."
            remedy = "Correct what Agenta's message names, then try again."
    return ManagementError(problem, text, remedy)


def _quoted(said: str) -> str:
    return f": {said.rstrip('.')}" if said else ""


def _said(document: object) -> str:
    """Return Agenta's own sentence, for operators only."""
    detail = document.get("detail") if isinstance(document, dict) else None
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        detail = detail[0].get("msg")
    elif isinstance(detail, dict):
        detail = detail.get("message")
    text = " ".join(detail.split()) if isinstance(detail, str) else ""
    return "".join(filter(str.isprintable, text))[:MAX_SAID_CHARACTERS]


def _first(body: Mapping[str, Any], name: str, read: Callable[[dict[str, Any]], Read]) -> Read | None:
    found = _objects(body, name)
    return read(found[0]) if found else None


def _objects(body: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = body.get(name)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    return value if isinstance(value, str) else ""


def _object(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = found.get(name)
    return value if isinstance(value, dict) else {}


def _application(found: Mapping[str, Any]) -> Application:
    return Application(
        id=_text(found, "id"),
        slug=_text(found, "slug"),
        variant_id=_text(found, "variant_id"),
        is_archived=found.get("deleted_at") is not None,
        name=_text(found, "name"),
        description=_text(found, "description"),
    )


def _environment(found: Mapping[str, Any]) -> Environment:
    return Environment(_text(found, "id"), _text(found, "slug"), _text(found, "variant_id"))


def _revision(found: Mapping[str, Any]) -> Revision:
    data = _object(found, "data")
    return Revision(
        id=_text(found, "id"),
        version=_text(found, "version"),
        author=_text(found, "author"),
        date=_text(found, "date"),
        message=_text(found, "message"),
        uri=_text(data, "uri"),
        parameters=_object(data, "parameters"),
        flags=frozenset(name for name, holds in _object(found, "flags").items() if holds is True),
        schemas=_object(data, "schemas"),
    )


def _deployment(found: Mapping[str, Any], key: str) -> Deployment:
    reference = _object(_object(_object(found, "data"), "references"), key)
    revision = _object(reference, "application_revision")
    return Deployment(
        author=_text(found, "author"),
        date=_text(found, "date"),
        message=_text(found, "message"),
        revision_id=_text(revision, "id"),
        version=_text(revision, "version"),
    )
