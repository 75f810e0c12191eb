"""The tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.agenta.completion_service import Unconfigured
from agenta_ai_server.concurrency.limiter import ConcurrencyLimiter
from agenta_ai_server.domain.deadline import MARGIN_SECONDS
from agenta_ai_server.domain.tool import ToolSet
from agenta_ai_server.files.reloading import ReloadingDocument
from agenta_ai_server.tools.cases import NAME as REFINE_WITH_CASES
from agenta_ai_server.tools.cases.spending import Spending
from agenta_ai_server.tools.catalog import Catalog, Dependencies, check_disabled, discover, tool_set
from agenta_ai_server.tools.computing import Computing
from agenta_ai_server.tools.refine_prompt.guarantee import Guarantee
from agenta_ai_server.tools.tools_file.following import LOOK_SECONDS, ToolsFileFollower
from agenta_ai_server.tools.workers.pool import Workers
from agenta_ai_server.typed import lock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agenta_ai_server.agenta.completion_service import CompletionService
    from agenta_ai_server.assembly.resources import Resources
    from agenta_ai_server.domain.pace import Pace
    from agenta_ai_server.domain.tool import ToolSpec
    from agenta_ai_server.settings import Settings
    from agenta_ai_server.telemetry.metrics import Metrics


def build_tools(
    settings: Settings,
    resources: Resources,
    completions: CompletionService,
    metrics: Metrics | None = None,
    limiter: ConcurrencyLimiter | None = None,
    pace: Pace | None = None,
) -> Catalog:
    """Build the catalog of tools: the built-in ones, and those of the tools file, which is reloaded when it changes.

    Args:
        settings: The settings.
        resources: Notes what is wrong with the file, and starts and stops looking at it.
        completions: Runs prompts.
        metrics: Shows whether the file can be used; ``None`` if there are none.
        limiter: Gives the slots of calls, for tools that do several things at once; ``None`` for one of their own.
        pace: Paces checking long answers; ``None``: not paced.
    """
    computing = Computing()
    workers = Workers()
    resources.on_close(workers.aclose)
    dependencies = Dependencies(
        completions,
        {"refine_prompt": settings.refine_prompt_key or ""},
        limiter or ConcurrencyLimiter(),
        Guarantee(computing, workers),
        computing,
        workers,
        Spending(settings.cases_models, settings.cases_max_tokens),
        repairs=settings.repairs,
        cases_seconds=settings.cases_max_seconds,
    )
    known, off = discover(), switched_off(settings)
    # What is switched off isn't even loaded, so that the start is fast.
    built_in = [provide(dependencies) for name, provide in known.items() if name not in off]
    catalog = Catalog(ToolSet(), may_change=settings.tools_file is not None)
    available = built_in
    if settings.tools_file:
        file = None
        with resources.faults_of("AGENTA_AI_GRPC_TOOLS_FILE"):
            file = _file(settings, settings.tools_file, built_in, frozenset(known), completions, pace)
            available = file.content
            follower = ToolsFileFollower(
                file, catalog, available, lambda changed: tool_set(changed, settings.missing, off)
            )
            resources.on_start(follower.start)
            resources.on_close(follower.aclose)
            if metrics:
                metrics.watch_tools(lambda: len(catalog.current.tools), lambda: file.is_broken)
        if file is None:
            # What is wrong with the file has been noted; which tools are switched off can't be checked.
            return catalog
    with resources.faults_of("AGENTA_AI_GRPC_DISABLED_TOOLS"):
        check_disabled({*known, *(tool.name for tool in available)}, settings.disabled_tools)
        catalog.current = tool_set(available, settings.missing, off)
    return catalog


def switched_off(settings: Settings) -> tuple[str, ...]:
    """Return the names of the tools that the settings switch off: by name, or because nobody pays for them."""
    return (*settings.disabled_tools, *(() if settings.offers_cases else (REFINE_WITH_CASES,)))


def described_tools(tools_file: Path | None = None) -> list[ToolSpec]:
    """Return the built-in tools, and those of the file, to look at and not to run.

    Raises:
        ValueError: The file can't be used.
    """
    computing, workers = Computing(), Workers()
    dependencies = Dependencies(
        Unconfigured(),
        {"refine_prompt": ""},
        ConcurrencyLimiter(),
        Guarantee(computing, workers),
        computing,
        workers,
        Spending(),
    )
    built_in = [provide(dependencies) for provide in discover().values()]
    if tools_file is None:
        return built_in
    from agenta_ai_server.tools.prompt_tool import spec
    from agenta_ai_server.tools.tools_file.read import read

    return [*built_in, *(spec(definition, Unconfigured()) for definition in read(tools_file))]


def _file(
    settings: Settings,
    path: Path,
    built_in: list[ToolSpec],
    taken: frozenset[str],
    completions: CompletionService,
    pace: Pace | None,
) -> ReloadingDocument[list[ToolSpec]]:
    # Imported only if there is a file, so that the start is fast.
    from agenta_ai_server.tools.prompt_tool import spec
    from agenta_ai_server.tools.tools_file.contradictions import Limits
    from agenta_ai_server.tools.tools_file.read import parse

    limits = Limits(taken, settings.max_call_seconds, settings.min_remaining_seconds + MARGIN_SECONDS)

    def read(content: bytes, read_beside: Callable[[Path], bytes]) -> list[ToolSpec]:
        definitions = parse(content, path.parent, limits, read_beside=read_beside)
        specs = (spec(definition, completions, pace) for definition in definitions)
        return [*built_in, *lock.with_numbers(specs, lock.read_beside(path, read_beside))]

    # Only the follower looks at it, in a thread.
    return ReloadingDocument(path, read, every=0, patience=LOOK_SECONDS)
