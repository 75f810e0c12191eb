"""The tool: the checks before the first model call, and the steps from the arguments to the report."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any

from agenta_ai_server.agenta.completion_service import DeployedPrompt
from agenta_ai_server.domain.errors import Reason, Refused, Violation, invalid_fields
from agenta_ai_server.domain.tool import Hints, ToolSpec
from agenta_ai_server.tools.cases import NAME, budget
from agenta_ai_server.tools.cases.arguments import RefineWithCasesArguments
from agenta_ai_server.tools.cases.counting import CountingCompletions
from agenta_ai_server.tools.refine_prompt.refiner import Refiner
from agenta_ai_server.tools.refine_prompt.tool import NEEDS
from agenta_ai_server.tools.validation import input_schema, output_schema, validated
from agenta_ai_server.tools.workers.pool import FAILED, WorkerFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agenta_ai_server.domain.call import Principal
    from agenta_ai_server.domain.outcome import ToolOutcome
    from agenta_ai_server.domain.tool_call import ToolCall
    from agenta_ai_server.tools.cases.checker import Checker
    from agenta_ai_server.tools.cases.copied import Copied
    from agenta_ai_server.tools.cases.expectations import Expectation
    from agenta_ai_server.tools.catalog import Dependencies
    from agenta_ai_server.tools.refine_prompt.template import Template

DESCRIPTION = (
    "Runs a prompt template on test cases, refines it based on the cases that fail, and runs them again, until all "
    "pass or the rounds are used up. In the reported runs, the new prompt passes every case that the original passed. "
    "The maximum number of model calls is known before the first one."
)
MAX_VIOLATIONS = 10
# What it takes to compile a character of a pattern.
CHARACTERS_OF_COMPILING = 100
_ROOT = re.compile(r"[^.\[]+")


class RefineWithCases:
    """The tool.

    Args:
        dependencies: The parts that the tool uses.
    """

    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies
        self._prompt = DeployedPrompt(dependencies.apps["refine_prompt"])

    def admits(self, principal: Principal) -> bool:
        """Say whether somebody pays for this caller's runs."""
        return principal.is_known_to_agenta or bool(self._dependencies.spending.models)

    async def run(self, arguments: RefineWithCasesArguments, call: ToolCall) -> ToolOutcome:
        """Refine one prompt against its cases.

        Raises:
            Refused: ARGUMENTS_INVALID, for what can't be refined or isn't allowed; DEADLINE_TOO_SHORT; OVERLOADED;
                UPSTREAM_CIRCUIT_OPEN. Nothing was sent.
            ToolFailed: No run of the original prompt produced an output.
        """
        # Loaded only now: what checks outputs isn't needed for the start.
        from agenta_ai_server.tools.cases.checker import Checker
        from agenta_ai_server.tools.cases.copied import find_copied
        from agenta_ai_server.tools.cases.report import outcome
        from agenta_ai_server.tools.cases.runner import CaseRunner
        from agenta_ai_server.tools.cases.search import Search

        of = self._dependencies
        counted = CountingCompletions(of.completions)
        refiner = Refiner(counted, self._prompt, repairs=of.repairs, guarantee=of.guarantee, computing=of.computing)
        _refuse([budget.excess(arguments, of.repairs)])
        computing, key = of.computing, call.caller.key
        expectations = await computing.run(key, _compiled, _work(arguments), arguments)
        checkers = [Checker(each, computing, of.workers, key) for each in expectations]
        _refuse(await _violations(checkers))
        prompt = await refiner.read(arguments.prompt_template_json, call)
        work = len(prompt.source) * len(arguments.cases)
        _refuse(await computing.run(key, _missing_inputs, work, prompt, arguments))
        paying = _Paying(of, arguments, call)
        await paying.check(prompt.root)
        runner = CaseRunner(counted, of.limiter, arguments, checkers, paying.prepared, call)

        async def copied(old: Template, new: Template) -> list[Copied]:
            work = len(new.source) * sum(len(each.texts) for each in expectations)
            return await computing.run(key, find_copied, work, old, new, expectations)

        found = await Search(arguments, refiner, runner, paying.excess, copied, call).run(prompt)
        return outcome(arguments, found, counted)


class _Paying:
    """What is run, and at whose expense."""

    def __init__(self, dependencies: Dependencies, arguments: RefineWithCasesArguments, call: ToolCall) -> None:
        self._spending = dependencies.spending
        self._computing = dependencies.computing
        self._arguments = arguments
        self._caller = call.caller.key
        self._uses_caller_credential = call.credential is not None

    async def check(self, root: Mapping[str, Any]) -> None:
        """Refuse a template that names another model or may need too many tokens."""
        if self._uses_caller_credential:
            return
        _refuse(await self._computing.in_thread(self._caller, self._spending.violations, root))
        if why := await self.excess(root):
            _refuse([Violation("arguments.cases", why)])

    async def excess(self, root: Mapping[str, Any]) -> str:
        """Return why a template may not be run; empty if it may."""
        if self._uses_caller_credential:
            return ""
        inputs = [case.inputs for case in self._arguments.cases]
        runs, passes = self._arguments.repeat, self._arguments.max_rounds + 1
        # Measuring large inputs, or a template of many strings, takes a tenth of a second.
        return await self._computing.in_thread(self._caller, self._spending.excess, root, inputs, runs, passes)

    def prepared(self, root: Mapping[str, Any]) -> dict[str, Any]:
        """Return the template as it is run."""
        return dict(root) if self._uses_caller_credential else self._spending.prepared(root)


def provide(dependencies: Dependencies) -> ToolSpec:
    """Make the tool."""
    from agenta_ai_server.tools.cases.report import RefineWithCasesResult

    refine = RefineWithCases(dependencies)
    return ToolSpec(
        name=NAME,
        title="Refine a prompt against test cases",
        description=DESCRIPTION,
        permission="edit_workflows",
        input_schema=input_schema(RefineWithCasesArguments),
        output_schema=output_schema(RefineWithCasesResult),
        run=validated(RefineWithCasesArguments, RefineWithCasesResult, refine.run),
        hints=Hints(read_only=True, destructive=False, idempotent=False, open_world=True),
        needs=NEEDS,
        max_seconds=dependencies.cases_seconds,
        admits=refine.admits,
    )


def _refuse(violations: Iterable[Violation | None]) -> None:
    """Refuse the call if anything is wrong.

    Raises:
        Refused: ARGUMENTS_INVALID.
    """
    found = list(islice(filter(None, violations), MAX_VIOLATIONS))
    if found:
        raise invalid_fields(Reason.ARGUMENTS_INVALID, *found)


def _work(arguments: RefineWithCasesArguments) -> int:
    """Return the cost of compiling the expectations, in characters that are examined once: 20 patterns take seconds."""
    return sum(CHARACTERS_OF_COMPILING * len(case.expected.pattern or "") for case in arguments.cases)


def _compiled(arguments: RefineWithCasesArguments) -> list[Expectation]:
    from agenta_ai_server.tools.cases.expectations import Expectation, ExpectationError

    compiled, violations = [], []
    for index, case in enumerate(arguments.cases):
        try:
            compiled.append(Expectation(case.expected))
        except ExpectationError as error:
            violations.append(_of_case(index, error.violation))
            if len(violations) >= MAX_VIOLATIONS:
                break
    _refuse(violations)
    return compiled


async def _violations(checkers: Sequence[Checker]) -> list[Violation]:
    """Return what outputs can't be checked for as JSON.

    Raises:
        Refused: OVERLOADED.
    """
    from agenta_ai_server.tools.cases.checker import UNCHECKABLE

    found: list[Violation] = []
    try:
        for index, checker in enumerate(checkers):
            found += [_of_case(index, each) for each in await checker.violations()]
            # One that takes too much CPU time is enough.
            if len(found) >= MAX_VIOLATIONS or any(each.description.startswith(UNCHECKABLE) for each in found):
                break
    except WorkerFailed:
        message = f"The cases can't be checked: {FAILED}. Nothing was sent to the model. Retry later."
        raise Refused(Reason.OVERLOADED, message, retry_delay=1.0) from None
    return found


def _of_case(index: int, violation: Violation) -> Violation:
    return Violation(f"arguments.cases[{index}].expected.{violation.field}", violation.description)


def _missing_inputs(prompt: Template, arguments: RefineWithCasesArguments) -> list[Violation]:
    """Return the variables for which a case has no value. In formats that are rendered, Agenta checks them."""
    keys = prompt.root.get("input_keys")
    declared = {key for key in keys if isinstance(key, str)} if isinstance(keys, list) else set()
    used = {str(name) for name in prompt.variables or () if type(name) is str and name[:1] not in "$/"}
    # A path needs the input that it begins with.
    roots = {name: found[0] for name in used - declared if (found := _ROOT.match(name))}
    variables = sorted(declared | used)
    missing = (
        Violation(f"arguments.cases[{index}].inputs.{name[:100]}", "Required: the prompt has this variable.")
        for index, case in enumerate(arguments.cases)
        for name in variables
        if name not in case.inputs and roots.get(name) not in case.inputs
    )
    return list(islice(missing, MAX_VIOLATIONS))
