"""The prompt behind refine_prompt: what is deployed, and whether it works."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

from agenta_ai_server.agenta import failures
from agenta_ai_server.agenta.api import AgentaApi
from agenta_ai_server.agenta.credential import ServerKey
from agenta_ai_server.agenta.deployments import read_state
from agenta_ai_server.agenta.explanation import LastExplanation
from agenta_ai_server.agenta.http import HttpClient, TransportError
from agenta_ai_server.agenta.management import OLDEST_RELEASE, ManagementClient, ManagementError, Problem
from agenta_ai_server.agenta.permissions import Grant, PermissionChecks
from agenta_ai_server.assembly.resources import Resources
from agenta_ai_server.assembly.tools import build_tools
from agenta_ai_server.assembly.upstream import build_completions
from agenta_ai_server.checks.shared import HTTP_SECONDS, Found, failed, ok, open_agenta, warning
from agenta_ai_server.domain.arguments import already_read
from agenta_ai_server.domain.call import ANONYMOUS
from agenta_ai_server.domain.errors import Refused
from agenta_ai_server.domain.tool_call import ToolCall
from agenta_ai_server.pipeline.pipeline import run_tool
from agenta_ai_server.tools.refine_prompt import prompt
from agenta_ai_server.tools.refine_prompt.suitability import flaws

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from agenta_ai_server.agenta.addresses import AgentaAddress
    from agenta_ai_server.agenta.deployments import ApplicationState
    from agenta_ai_server.agenta.management import Deployment, Revision
    from agenta_ai_server.domain.outcome import ToolOutcome
    from agenta_ai_server.domain.values import Json
    from agenta_ai_server.settings import Settings

KEY, ENVIRONMENT = "AGENTA_AI_SERVICES_REFINE_PROMPT_KEY", "AGENTA_AI_SERVICES_ENVIRONMENT_SLUG"
REFINE = "tools.agenta.api.refine_prompt"
# What shows in the refinement only if both arrive.
TEMPLATE = json.dumps({"messages": [{"role": "user", "content": "Please translate {{text}}"}]})
GUIDELINES = "Mention the word kestrel, and also the code word that the context names."
CONTEXT = "The code word is marlin."
TRACES = {"guidelines": "kestrel", "context": "marlin"}

_PROVIDERS = "in Agenta under Settings > Providers & Models"
_DEPLOY = f"Follow the remedy for the prompt above; if the prompt can't be read, correct {KEY} or {ENVIRONMENT}."
# By the sentence for callers, which names the cause.
REMEDIES = {
    failures.NOT_DEPLOYED.message: _DEPLOY,
    failures.WRONG_INPUTS.message: _DEPLOY,
    failures.UNFILLED_VARIABLES.message: _DEPLOY,
    failures.NO_MODEL_CREDENTIAL.message: f"Add the key of the model's provider {_PROVIDERS}, or choose another model "
    "with agenta-ai-server provision --model.",
    failures.UNKNOWN_MODEL.message: "Choose another model with agenta-ai-server provision --model.",
    failures.MODEL_CREDENTIAL_REJECTED.message: f"Renew the key of the model's provider {_PROVIDERS}.",
    failures.QUOTA_EXHAUSTED.message: "Raise the quota at the model's provider.",
}


async def deployment(settings: Settings) -> AsyncIterator[Found]:
    """Check which prompt is deployed, and whether it fits. Other checks report faults of Agenta or its key."""
    if settings.missing:
        return
    slug, environment = settings.refine_prompt_key or "", settings.environment_slug or ""
    async with open_agenta(settings) as (http, address, key):
        management = ManagementClient(AgentaApi(http, address, ServerKey(key), seconds=HTTP_SECONDS))
        try:
            state = await read_state(management, slug, environment)
            history = await management.history(state.environment, slug) if state.environment else []
        except ManagementError as error:
            if error.problem is Problem.NO_SUCH_ROUTE:
                yield ok(f"What is deployed can't be read from Agenta before {OLDEST_RELEASE}; --call tests it.")
            elif error.problem not in (Problem.UNREACHABLE, Problem.KEY_UNKNOWN):
                yield failed(str(error), error.remedy)
            return
        if state.deployed is None:
            yield _not_deployed(
                state, slug, environment, "" if state.application else await _project(http, address, key)
            )
            return
    if state.application and state.application.is_archived:
        yield warning(
            f"{slug} is archived. It still runs, but Agenta's web interface doesn't show it.", "Restore it in Agenta."
        )
    revision = state.deployed
    found = flaws(revision.uri, revision.flags, revision.parameters)
    for flaw in found:
        yield (failed if flaw.is_fatal else warning)(flaw.text, flaw.remedy)
    if not found:
        yield ok(_described(slug, environment, revision, history))


def _not_deployed(state: ApplicationState, slug: str, environment: str, project: str) -> Found:
    if state.environment is None:
        return failed(
            f"The project of this key has no environment {environment!r}.",
            f"Correct {ENVIRONMENT}, or use a key of the project that has it.",
        )
    provision = f"agenta-ai-server provision --environment {environment} --application {slug} --model MODEL"
    if state.application is None:
        return failed(
            f"There is no application {slug!r} in the project of this key{project}.",
            f"Correct {KEY}, use a key of the project that has it, or create it: {provision}",
        )
    if state.application.is_archived:
        return failed(
            f"{slug} is archived, and isn't deployed to {environment}.", f"Restore it in Agenta, or correct {KEY}."
        )
    newest = state.latest.version if state.latest else "?"
    return failed(
        f"{slug} isn't deployed to {environment}; its newest version is {newest}.",
        f"Deploy it in Agenta, correct {ENVIRONMENT}, or deploy ours: {provision}",
    )


def _described(slug: str, environment: str, revision: Revision, history: Sequence[Deployment]) -> str:
    shipped = prompt.shipped_version(revision.parameters)
    which = f"the shipped prompt {shipped}" if shipped else "a prompt other than the shipped one"
    if shipped and shipped < prompt.version():
        which += f", of which there is a newer version {prompt.version()}"
    model = prompt.model_of(revision.parameters) or "Agenta's default"
    return (
        f"{environment} runs {slug} version {revision.version}, {which}, with the model {model}"
        f"{_deployed_by(revision, history)}."
    )


def _deployed_by(revision: Revision, history: Sequence[Deployment]) -> str:
    """Say who deployed it, and when: the oldest of the newest entries that hold this revision."""
    entry = None
    for each in history:
        if each.revision_id != revision.id:
            break
        entry = each
    return f"; deployed at {entry.date[:16].replace('T', ' ')} UTC by the user {entry.author}" if entry else ""


async def _project(http: HttpClient, address: AgentaAddress, key: str) -> str:
    """Say which project the key belongs to, so that a key of another one is recognized."""
    try:
        owner = await PermissionChecks(http, address, HTTP_SECONDS).ask(f"ApiKey {key}", "run_service")
    except (TransportError, ValueError):
        return ""
    if not isinstance(owner, Grant) or not owner.project:
        return ""
    return f" ({owner.project} of the organization {owner.organization})"


async def refinement(settings: Settings) -> AsyncIterator[Found]:
    """Check that a tiny prompt is refined as its guidelines and context say. This is billed."""
    explanations = LastExplanation()
    async with Resources() as resources:
        completions = build_completions(settings, resources, explanations)
        if completions is None or settings.refine_prompt_key is None:
            return
        tools = build_tools(settings, resources, completions).current
        arguments: dict[str, Json] = {"prompt_template_json": TEMPLATE, "guidelines": GUIDELINES, "context": CONTEXT}
        seconds = settings.max_call_seconds
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            outcome = await run_tool(ToolCall(REFINE, ANONYMOUS, deadline, seconds, tools, already_read(arguments)))
        except Refused as refused:
            yield failed(f"{refused.reason}: {refused.message}", _remedy(refused.reason, refused.message))
            return
    for found in _effect(outcome, explanations.last):
        yield found


def _effect(outcome: ToolOutcome, explanation: str) -> list[Found]:
    if outcome.failure:
        said = f" Agenta says: “{explanation}”" if explanation else ""
        reason = outcome.failure.reason
        # The rest of the text tells callers to ask the operator.
        cause = outcome.text.partition(". ")[0].rstrip(".")
        return [failed(f"{reason}: {cause}.{said}", _remedy(reason, outcome.text))]
    written = json.dumps(outcome.structured, ensure_ascii=False).lower()
    return [
        warning(
            f"A prompt was refined, and its {name} had no effect.",
            f"Check that the deployed prompt has the input __ag_{name} in a message; a weak model may also ignore it.",
        )
        for name, word in TRACES.items()
        if word not in written
    ] or [ok("A prompt was refined, and its guidelines and context had an effect.")]


def _remedy(reason: str, message: str) -> str:
    return REMEDIES.get(message, f"docs/errors.md says what to do about {reason}.")
