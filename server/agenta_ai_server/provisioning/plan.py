"""Plans the change in Agenta, from the wanted and the existing state. Pure functions, without I/O."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agenta_ai_server.agenta.deployments import ApplicationState
    from agenta_ai_server.agenta.management import Deployment, Revision
    from agenta_ai_server.provisioning.wanted import Wanted


class Step(Enum):
    """A change in Agenta."""

    CREATE = auto()
    COMMIT = auto()
    DEPLOY = auto()


class CannotProvision(Exception):
    """The change can't be made, or needs an explicit option. The text is a sentence.

    Attributes:
        remedy: What to do about it, in a sentence.
        diff: What the change would be; empty if that doesn't matter.
    """

    def __init__(self, text: str, remedy: str, diff: str = "") -> None:
        super().__init__(text)
        self.remedy = remedy
        self.diff = diff


@dataclass(frozen=True, slots=True)
class Plan:
    """The change.

    Attributes:
        steps: In their order; none if nothing has to change.
        diff: The change of the deployed prompt, as a unified diff; empty if there is none.
    """

    steps: tuple[Step, ...]
    diff: str = ""


def plan(
    wanted: Wanted, found: ApplicationState, history: Sequence[Deployment] = (), *, overwrite: bool = False
) -> Plan:
    """Return the plan.

    Args:
        wanted: What is to be deployed.
        found: What there is.
        history: What the environment has held of the application, the newest first.
        overwrite: Whether a prompt that provision didn't make may be replaced.

    Raises:
        CannotProvision: There is no such environment, the application is archived, or the prompt isn't ours.
    """
    _check_environment(wanted.environment, found)
    _check_application(wanted.application, found)
    base = found.deployed or found.latest
    diff = _diff(wanted, found, base)
    if not overwrite and base and _is_theirs(base, wanted, history):
        raise CannotProvision(
            f"The prompt in {wanted.application}, version {base.version}, wasn't made by agenta-ai-server provision.",
            "Pass --overwrite to replace it (--rollback undoes that), or deploy under another slug.",
            diff,
        )
    if found.application is None:
        return Plan((Step.CREATE, Step.DEPLOY), diff)
    if _is_wanted(found.deployed, wanted):
        return Plan(())
    # Agenta makes a new version with every commit, also if nothing has changed.
    return Plan((Step.DEPLOY,) if _is_wanted(found.latest, wanted) else (Step.COMMIT, Step.DEPLOY), diff)


def previous(found: ApplicationState, wanted_environment: str, history: Sequence[Deployment]) -> str:
    """Return the version that was deployed before the one that is.

    Args:
        found: What there is.
        wanted_environment: Slug of the environment.
        history: What the environment has held of the application, the newest first.

    Raises:
        CannotProvision: There is no such environment, or nothing else was deployed there before.
    """
    _check_environment(wanted_environment, found)
    current = found.deployed.id if found.deployed else ""
    for deployment in history:
        if deployment.revision_id and deployment.revision_id != current:
            return deployment.version
    raise CannotProvision(
        f"No other version was deployed to {wanted_environment} before.", "Deploy the one you want in Agenta."
    )


def _check_environment(slug: str, found: ApplicationState) -> None:
    if found.environment is None:
        raise CannotProvision(
            f"The project of this API key has no environment {slug!r}.",
            "Correct --environment, create the environment in Agenta, or use a key of the project that has it.",
        )


def _check_application(slug: str, found: ApplicationState) -> None:
    if found.application and found.application.is_archived:
        raise CannotProvision(f"The application {slug!r} is archived.", "Restore it in Agenta, or choose another slug.")


def _is_theirs(base: Revision, wanted: Wanted, history: Sequence[Deployment]) -> bool:
    is_something = base.parameters and base.parameters != wanted.parameters
    return bool(is_something) and not wanted.is_ours(base, history)


def _is_wanted(revision: Revision | None, wanted: Wanted) -> bool:
    # A revision that was committed without its type has no uri.
    return revision is not None and revision.uri == wanted.uri and revision.parameters == wanted.parameters


def _diff(wanted: Wanted, found: ApplicationState, base: Revision | None) -> str:
    state = "deployed" if found.deployed else "not deployed"
    old = f"{wanted.application} version {base.version} ({state})" if base else "nothing"
    lines = difflib.unified_diff(
        _lines(base.parameters) if base else [],
        _lines(wanted.parameters),
        old,
        wanted.label,
        lineterm="",
    )
    return "\n".join(lines)


def _lines(parameters: Mapping[str, Any]) -> list[str]:
    return json.dumps(_with_lists_of_lines(parameters), indent=2, sort_keys=True, ensure_ascii=False).splitlines()


def _with_lists_of_lines(value: Any) -> Any:
    """Show each text of several lines as a list of lines, so that a change within it can be read."""
    if isinstance(value, dict):
        return {name: _with_lists_of_lines(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_with_lists_of_lines(each) for each in value]
    return value.split("\n") if isinstance(value, str) and "\n" in value else value
