"""The command ``agenta-ai-server tools test``: runs the examples of the tools file."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from agenta_ai_server import settings
from agenta_ai_server.agenta.explanation import LastExplanation
from agenta_ai_server.assembly.resources import Resources
from agenta_ai_server.assembly.tools import build_tools
from agenta_ai_server.assembly.upstream import build_completions
from agenta_ai_server.commands import stdout
from agenta_ai_server.commands.tools.canned import canned_prompt
from agenta_ai_server.commands.tools.source import FILE, environment_of, file_of, read_tools
from agenta_ai_server.domain.arguments import already_read
from agenta_ai_server.domain.call import ANONYMOUS
from agenta_ai_server.domain.errors import Refused
from agenta_ai_server.domain.tool_call import ToolCall
from agenta_ai_server.pipeline.pipeline import run_tool
from agenta_ai_server.settings import ENVIRONMENT, SettingsError
from agenta_ai_server.standin.app import StandIn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from agenta_ai_server.domain.outcome import ToolOutcome
    from agenta_ai_server.settings import Settings
    from agenta_ai_server.tools.catalog import Catalog
    from agenta_ai_server.tools.tools_file.definition import Example, ToolDefinition

STANDIN_KEY = "standin-key"
DEFAULT_ENVIRONMENT = "production"
MAX_SHOWN = 300
EXIT_FAILED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command's options.

    Attributes:
        names: The tools whose examples are run; none for all.
        file: The tools file, in place of the server's.
        live: Whether to run the prompts that are deployed in Agenta, which is billed, in place of the stand-in.
        exact: Whether a live result must be the example's; otherwise it only has to be valid.
        as_json: Whether to print JSON.
    """

    names: tuple[str, ...] = ()
    file: Path | None = None
    live: bool = False
    exact: bool = False
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Tested:
    """The outcome of one example.

    Attributes:
        tool: Name of the tool.
        example: Number of the example, from 1.
        line: Where it stands in the file.
        passed: Whether it is as it should be.
        text: What went wrong, or how the result differs from the example's, in a sentence; empty for neither.
    """

    tool: str
    example: int
    line: int
    passed: bool
    text: str = ""


async def run(environment: Mapping[str, str], options: Options) -> int:
    """Run the examples one after the other, and print how each went.

    Args:
        environment: May name the file; for a live run, the settings of the server.
        options: What to do.

    Returns:
        0 if all pass, 1 if one doesn't.

    Raises:
        SettingsError: A setting or the file is missing or has faults, or there is no example.
    """
    path = file_of(environment, options.file)
    tools = read_tools(path, options.names)
    if not any(tool.examples for tool in tools):
        raise SettingsError([f"{path}: no tool has an example. Add one: docs/tools.md shows how."])
    tested = []
    async with _running({**environment, FILE: str(path)}, tools, options) as (loaded, catalog, explanations):
        if options.live:
            stdout.report(_cost(tools, loaded))
        for tool in tools:
            for number, example in enumerate(tool.examples, 1):
                explanations.last = ""
                passed, text = await _outcome(tool, example, catalog, loaded, options)
                if not passed and explanations.last:
                    text = f"{text} Agenta says: “{explanations.last}”"
                tested.append(Tested(tool.name, number, example.line, passed, text))
                if not options.as_json:
                    stdout.say(_line(tested[-1]))
    passes = sum(each.passed for each in tested)
    if options.as_json:
        ok = passes == len(tested)
        stdout.say(json.dumps({"ok": ok, "examples": [asdict(each) for each in tested]}, indent=2, ensure_ascii=False))
    else:
        without = [tool.name for tool in tools if not tool.examples]
        stdout.say("\n".join(["", f"{passes} of {len(tested)} examples pass.", *_without_examples(without)]))
    return 0 if passes == len(tested) else EXIT_FAILED


@asynccontextmanager
async def _running(
    environment: Mapping[str, str], tools: Sequence[ToolDefinition], options: Options
) -> AsyncIterator[tuple[Settings, Catalog, LastExplanation]]:
    """Build the tools as the server has them."""
    explanations = LastExplanation()
    # No one can connect, so callers needn't be distinguished.
    source = (
        nullcontext({"AGENTA_AI_GRPC_AUTH": "none", **environment}) if options.live else _offline(environment, tools)
    )
    async with source as chosen, Resources() as resources:
        loaded, _ = settings.load(chosen)
        completions = build_completions(loaded, resources, explanations)
        if completions is None:
            raise SettingsError([f"{name}: is missing. A live run needs it." for name in _missing(loaded)])
        catalog = build_tools(loaded, resources, completions)
        if resources.faults:
            raise SettingsError(resources.faults)
        yield loaded, catalog, explanations


@asynccontextmanager
async def _offline(environment: Mapping[str, str], tools: Sequence[ToolDefinition]) -> AsyncIterator[Mapping[str, str]]:
    """Run a stand-in that has the prompts of the tools; what it yields are the settings that lead there."""
    slug = environment_of(environment, "") or DEFAULT_ENVIRONMENT
    async with StandIn(api_key=STANDIN_KEY, app="", environment=slug) as standin:
        standin.offer([canned_prompt(tool, slug) for tool in tools])
        yield {
            FILE: environment[FILE],
            "AGENTA_AI_SERVICES_API_URL": standin.url,
            "AGENTA_AI_SERVICES_API_KEY": STANDIN_KEY,
            ENVIRONMENT: slug,
            "AGENTA_AI_GRPC_AUTH": "none",
        }


def _missing(loaded: Settings) -> list[str]:
    return [name for name in loaded.missing if name != "AGENTA_AI_SERVICES_REFINE_PROMPT_KEY"]


async def _outcome(
    tool: ToolDefinition, example: Example, catalog: Catalog, loaded: Settings, options: Options
) -> tuple[bool, str]:
    """Run one example. Return whether it passes, and a sentence about it."""
    seconds = tool.timeout_seconds or loaded.max_call_seconds
    deadline = asyncio.get_running_loop().time() + seconds
    arguments = already_read(dict(example.arguments))
    call = ToolCall(tool.name, ANONYMOUS, deadline, seconds, catalog.current, arguments)
    try:
        async with asyncio.timeout(seconds):
            outcome = await run_tool(call)
    except Refused as refused:
        return False, f"{refused.reason}: {refused.message}"
    except TimeoutError:
        return False, f"It took more than {seconds:g} seconds."
    if outcome.failure:
        return False, f"{outcome.failure.reason}: {outcome.text}"
    result = _result(tool, outcome)
    if example.result is None or result == example.result:
        return True, ""
    shown = json.dumps(result, ensure_ascii=False)
    shown = shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}…"
    must_equal = options.exact or not options.live
    return not must_equal, f"The result is {shown}, not the example's."


def _result(tool: ToolDefinition, outcome: ToolOutcome) -> object:
    return outcome.structured if tool.result is not None else outcome.text


def _cost(tools: Sequence[ToolDefinition], loaded: Settings) -> str:
    least = sum(len(tool.examples) for tool in tools)
    most = sum(len(tool.examples) * (1 + tool.repairs) for tool in tools)
    calls = f"{least}" if least == most else f"{least} to {most}"
    examples = "1 example" if least == 1 else f"{least} examples"
    return (
        f"Running {examples} with the prompts that are deployed in Agenta at {loaded.api_url}. "
        f"This costs {calls} {'call' if most == 1 else 'calls'} of a model, which its provider bills."
    )


def _line(tested: Tested) -> str:
    state = "ok    " if tested.passed else "failed"
    text = f": {tested.text}" if tested.text else ""
    return f"{state}  {tested.tool}, example {tested.example} (line {tested.line}){text}"


def _without_examples(names: Sequence[str]) -> list[str]:
    return [f"Without an example: {', '.join(names)}."] if names else []
