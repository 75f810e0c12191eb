"""Compares a tool of the file with its deployed prompt. Pure functions, without I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from agenta_ai_server.tools.drift.deployed import JSON_OBJECT, read_deployed
from agenta_ai_server.tools.drift.schemas import schema_changes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agenta_ai_server.agenta.deployments import ApplicationState
    from agenta_ai_server.tools.drift.deployed import PromptInterface
    from agenta_ai_server.tools.drift.schemas import SchemaChange
    from agenta_ai_server.tools.tools_file.definition import ToolDefinition


class Drift(StrEnum):
    """The kinds of differences between a tool and its prompt."""

    NO_APPLICATION = "no_application"
    NO_ENVIRONMENT = "no_environment"
    NOT_DEPLOYED = "not_deployed"
    ARCHIVED = "archived"
    KIND_CHANGED = "kind_changed"
    CANNOT_RUN = "cannot_run"
    INPUT_ADDED = "input_added"
    INPUT_REMOVED = "input_removed"
    INPUT_RENAMED = "input_renamed"
    RESULT_ADDED = "result_added"
    RESULT_REMOVED = "result_removed"
    RESULT_CHANGED = "result_changed"


FATAL: Final = frozenset(
    {Drift.NO_APPLICATION, Drift.NO_ENVIRONMENT, Drift.NOT_DEPLOYED, Drift.KIND_CHANGED, Drift.CANNOT_RUN}
)
"""With these, every call of the tool fails."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between a tool of the file and its deployed prompt.

    Attributes:
        drift: Which.
        text: What is so, in a sentence.
        remedy: What to do about it, in a sentence.
        name: The input that it is about; empty if it is about none.
        new_name: What the input is called now, if it was renamed.
        change: The change of the result's schema, if it is about that.
    """

    drift: Drift
    text: str
    remedy: str
    name: str = ""
    new_name: str = ""
    change: SchemaChange | None = None


def differences(tool: ToolDefinition, deployed: PromptInterface) -> list[Difference]:
    """Return the differences between a deployed prompt and its tool in the file."""
    if tool.kind != deployed.kind:
        return [_other_kind(tool, deployed)]
    if deployed.fault:
        return [Difference(Drift.CANNOT_RUN, deployed.fault, "Correct the prompt in Agenta.")]
    return [*_inputs(tool, deployed), *_result(tool.result, deployed.result)]


def state_differences(tool: ToolDefinition, state: ApplicationState, environment: str) -> list[Difference]:
    """Return the differences between the state in Agenta and a tool in the file.

    Args:
        tool: The tool.
        state: Its application and environment.
        environment: Slug of the environment.
    """
    slug = tool.application
    if state.environment is None:
        text = f"The project of this key has no environment {environment}."
        return [Difference(Drift.NO_ENVIRONMENT, text, "Correct the environment, or use the key of another project.")]
    if state.application is None:
        text = f"There is no application {slug} in the project of this key."
        return [Difference(Drift.NO_APPLICATION, text, "Correct the tool's application, or use another key.")]
    found = []
    if state.application.is_archived:
        text = f"{slug} is archived. Agenta's web interface doesn't show it."
        found.append(Difference(Drift.ARCHIVED, text, "Restore it in Agenta, or remove the tool."))
    if state.deployed is None:
        newest = f"; its newest version is {state.latest.version}" if state.latest else ""
        text = f"{slug} isn't deployed to {environment}{newest}."
        return [*found, Difference(Drift.NOT_DEPLOYED, text, "Deploy it in Agenta, or remove the tool.")]
    return [*found, *differences(tool, read_deployed(state.deployed))]


def argument_names(tool: ToolDefinition) -> tuple[str, ...]:
    """Return the names of a tool's arguments, in the order of the file."""
    properties = tool.arguments.get("properties")
    return tuple(properties) if isinstance(properties, dict) else ()


def _other_kind(tool: ToolDefinition, deployed: PromptInterface) -> Difference:
    if deployed.kind == "other":
        which = f"the type {deployed.uri}" if deployed.uri else "no type"
        text = f"The application holds no prompt: it has {which}."
        return Difference(Drift.KIND_CHANGED, text, "Deploy a completion or chat application, or remove the tool.")
    text = f"The application is a {deployed.kind} application now, but the tool has the kind {tool.kind}."
    return Difference(Drift.KIND_CHANGED, text, f'Set kind = "{deployed.kind}", and review the arguments.')


def _inputs(tool: ToolDefinition, deployed: PromptInterface) -> Iterator[Difference]:
    arguments = argument_names(tool)
    known = {*deployed.inputs, *deployed.possible}
    gained = [name for name in deployed.inputs if name not in (*arguments, tool.feedback)]
    lost = [name for name in arguments if name not in known]
    if len(gained) == len(lost) == 1:
        text = f"The input {lost[0]} is now called {gained[0]}."
        remedy = f"Rename the argument, or rename the input in Agenta back to {lost[0]}."
        yield Difference(Drift.INPUT_RENAMED, text, remedy, lost[0], gained[0])
        return
    for name in gained:
        text = f"The input {name} is new, and the tool has no argument for it."
        yield Difference(Drift.INPUT_ADDED, text, "Add the argument: agenta-ai-server tools pull does so.", name)
    for name in lost:
        text = f"The input {name} is gone, so the argument has no effect."
        yield Difference(Drift.INPUT_REMOVED, text, "Remove the argument, or put the input back in Agenta.", name)
    if tool.feedback and tool.feedback not in known:
        text = f"The input {tool.feedback}, which receives what was wrong with an answer, is gone."
        yield Difference(Drift.INPUT_REMOVED, text, "Correct feedback, or put the input back in Agenta.", tool.feedback)


def _result(ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None) -> Iterator[Difference]:
    # JSON without a schema may well be meant as text.
    if ours is None and theirs in (None, JSON_OBJECT):
        return
    if theirs is None:
        text = "The prompt answers with text now: it has no response_format, but the tool has a result."
        remedy = "Set the response_format in Agenta again, or remove the result."
        yield Difference(Drift.RESULT_REMOVED, text, remedy)
    elif ours is None:
        text = "The prompt answers with JSON, but the tool has no result, so the JSON is passed on as text."
        yield Difference(Drift.RESULT_ADDED, text, "Add the result: agenta-ai-server tools pull --widen writes it.")
    elif theirs != JSON_OBJECT:
        for change in schema_changes(ours, theirs):
            subject = f"result.{change.place}".replace(".[", "[").rstrip(".")
            text = f"{subject} {change.text}."
            remedy = "Change the result, or the response_format in Agenta."
            yield Difference(Drift.RESULT_CHANGED, text, remedy, change=change)
