"""The command ``agenta-ai-server check``: checks each part of the set-up, and names a remedy for each fault."""

from __future__ import annotations

import asyncio
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agenta_ai_server.assembly.service import find_faults
from agenta_ai_server.checks import files, machine, refine_prompt, remote, tools_file
from agenta_ai_server.checks.redis import redis
from agenta_ai_server.checks.request_ids import request_ids
from agenta_ai_server.checks.shared import failed
from agenta_ai_server.settings import Settings, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agenta_ai_server.checks.shared import Found, Probe, State

# Seconds that one part may take.
MAX_SECONDS = 15.0
# In the order in which they are printed.
PROBES: dict[str, Probe] = {
    "tools": files.tools,
    "API keys": files.api_keys,
    "principals": files.principals,
    "limits": files.limits,
    "certificates": files.certificates,
    "address": machine.address,
    "metrics": machine.metrics,
    "Redis": redis,
    "request ids": request_ids,
    "token keys": remote.token_keys,
    "Agenta": remote.agenta,
    "Agenta key": remote.agenta_key,
    "prompt": refine_prompt.deployment,
    "tool prompts": tools_file.deployments,
    "traces": remote.traces,
    "open files": machine.open_files,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """The finding of one check.

    Attributes:
        part: Its name.
        state: ``"ok"``; ``"warning"``: it works, and won't do so for long or in every case; ``"failed"``;
            ``"skipped"``: it wasn't asked.
        said: What is so, in a sentence.
        remedy: What to do about it; empty if it is fine.
    """

    part: str
    state: State
    said: str
    remedy: str = ""


async def run(environment: Mapping[str, str], *, call: bool = False) -> list[Finding]:
    """Run all checks at the same time.

    Args:
        environment: As :func:`~agenta_ai_server.settings.read` takes it.
        call: Whether to refine a prompt as well, which is billed.
    """
    reading = read(environment)
    settings = reading.settings
    if reading.faults:
        faults = await find_faults(settings, reading.faults)
        found = [Finding("settings", "failed", fault, _remedy(fault)) for fault in faults]
        return [*found, Finding("the rest", "skipped", "Not checked.", "Correct the settings first.")]
    found = [Finding("settings", "ok", "They are valid and consistent.")]
    found += [Finding("settings", "warning", each) for each in reading.warnings]
    asked = PROBES | ({"refinement": refine_prompt.refinement} if call else {})
    answers = await asyncio.gather(*(_asked(part, probe, settings) for part, probe in asked.items()))
    return [*found, *(finding for answer in answers for finding in answer)]


async def _asked(part: str, probe: Probe, settings: Settings) -> list[Finding]:
    found: list[Found] = []
    seconds = settings.max_call_seconds if probe is refine_prompt.refinement else MAX_SECONDS
    try:
        async with asyncio.timeout(seconds):
            async for each in probe(settings):
                found.append(each)  # noqa: PERF401  # report what was found before the time-out
    except TimeoutError:
        found.append(failed(f"It took more than {seconds:g} seconds.", "Check the network, then run check again."))
    except Exception as error:
        # Without its text, which may hold a secret. The other checks are still reported.
        bug = f"The check itself failed because of a bug: {type(error).__name__}."
        found.append(failed(bug, "Report it with the version that 'agenta-ai-server --version' prints."))
    return [Finding(part, each.state, each.said, each.remedy) for each in found]


def _remedy(fault: str) -> str:
    name, colon, _ = fault.partition(":")
    if not colon or " is unknown " in name:
        return ""  # the sentence says it
    name = name.partition(" ")[0]
    return f"Correct {name}: docs/configuration.md describes its valid values."


def table(findings: Iterable[Finding], width: int) -> str:
    """Return them for people, in lines of no more than ``width`` characters."""
    findings = list(findings)
    parts = max(len(finding.part) for finding in findings)
    lines = []
    for finding in findings:
        margin = f"{finding.state:7}  {finding.part:{parts}}  "
        lines.append(_wrapped(finding.said, width, margin))
        if finding.remedy:
            lines.append(_wrapped(f"→ {finding.remedy}", width, " " * len(margin)))
    wrong = sum(finding.state in ("warning", "failed") for finding in findings)
    return "\n".join([*lines, "", f"{wrong} to be looked at." if wrong else "All is fine."])


def _wrapped(text: str, width: int, margin: str) -> str:
    return textwrap.fill(
        text,
        width,
        initial_indent=margin,
        subsequent_indent=" " * len(margin),
        break_long_words=False,
        break_on_hyphens=False,
    )
