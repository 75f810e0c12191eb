"""Rounds, verdicts and deadlines, on a clock of their own."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from cases.prompts import CASES, HOPELESS, ONE_WORD, PROMPT, SENTENCE, Model, arguments, outcome_of
from concurrency.virtual_time import virtual_time
from upstream.fakes import circuit_open, failed

from agenta_ai_server.agenta.completion_service import InlinePrompt
from agenta_ai_server.concurrency.limiter import ConcurrencyLimiter
from agenta_ai_server.domain.errors import Reason, Refused, ToolFailed
from agenta_ai_server.tools.cases import copied
from agenta_ai_server.tools.cases.feedback import MAX_CONTEXT_CHARACTERS
from agenta_ai_server.tools.cases.runner import REPORT_SECONDS, CaseRunner
from agenta_ai_server.tools.cases.spending import Spending
from agenta_ai_server.tools.computing import Computing
from agenta_ai_server.tools.refine_prompt import answer, refiner, template

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from agenta_ai_server.agenta.completion_service import AnyPrompt
    from agenta_ai_server.tools.cases.trial import Trial


def verdicts(result: Any, when: str = "after") -> list[str]:
    return [case[when]["verdict"] for case in result["cases"]]


def is_original(prompt: AnyPrompt) -> bool:
    return isinstance(prompt, InlinePrompt) and json.dumps(prompt.parameters).count("all topics") == 0


@virtual_time
async def test_a_prompt_that_fails_two_cases_passes_all() -> None:
    model = Model()
    outcome = await outcome_of(model, arguments())
    result: Any = outcome.structured
    assert (result["passed_before"], result["passed_after"], result["improved"]) == (3, 5, True)
    assert result["stopped"] == "all_pass"
    assert [each["end"] for each in result["rounds"]] == ["taken"]
    assert result["model_calls"] == len(outcome.attempts) == model.answers == 11
    assert outcome.warnings == ()


@virtual_time
async def test_where_all_pass_nothing_is_changed_and_nothing_refined() -> None:
    model = Model()
    result: Any = (await outcome_of(model, arguments(CASES[:3]))).structured
    assert (result["improved"], result["stopped"], result["rounds"]) == (False, "all_pass", [])
    assert result["prompt_template_json"] == PROMPT
    assert result["summary"] == "All 3 cases pass already. The prompt is unchanged."
    assert model.answers == 3


@virtual_time
async def test_a_refinement_that_makes_a_case_fail_is_not_taken_and_the_next_is_told_why() -> None:
    model = Model()
    result: Any = (await outcome_of(model, arguments([SENTENCE, ONE_WORD]))).structured
    assert (result["improved"], result["passed_before"], result["passed_after"]) == (False, 1, 1)
    assert result["prompt_template_json"] == PROMPT
    assert [each["end"] for each in result["rounds"]] == ["made_worse", "made_worse"]
    assert (
        result["rounds"][0]["why"] == 'Cases that passed before failed with it: "sentence". Must contain "The topic".'
    )
    assert result["stopped"] == "rounds_used"
    first, second = model.contexts
    assert "rejected" not in first
    assert second.endswith("Refinements that were rejected:\n- " + result["rounds"][0]["why"])
    assert verdicts(result) == verdicts(result, "before") == ["passed", "failed"]


@virtual_time
async def test_a_prompt_that_cannot_be_improved_comes_back_as_it_was() -> None:
    result: Any = (await outcome_of(Model(), arguments([SENTENCE, HOPELESS], max_rounds=3))).structured
    assert result["prompt_template_json"] == PROMPT
    assert [each["end"] for each in result["rounds"]] == ["not_better"] * 3
    assert result["rounds"][0]["why"] == "The refinement changed nothing."
    assert result["model_calls"] == 5, "what changed nothing isn't run again"


@virtual_time
async def test_the_best_prompt_wins_and_goes_on() -> None:
    """The first round mends one case of two; the second begins with that."""
    told = {**ONE_WORD, "expected": {"contains_all": ["billing"], "contains_none": ["topic"]}}
    result: Any = (await outcome_of(Model(), arguments([told, HOPELESS, CASES[0]]))).structured
    assert [each["end"] for each in result["rounds"]] == ["taken", "not_better"]
    assert (result["improved"], result["passed_before"], result["passed_after"]) == (True, 1, 2)
    assert result["stopped"] == "rounds_used"
    assert "Answer with one word." in result["prompt_template_json"]


@virtual_time
async def test_expectations_that_were_copied_are_flagged() -> None:
    remark = "Answer with one word. For refunds, that is billing"
    case = {**ONE_WORD, "remark": remark}
    for prompt, texts in ((PROMPT.replace("billing, ", ""), [{"case": "one word", "text": "billing"}]), (PROMPT, [])):
        outcome = await outcome_of(Model(), arguments([case], prompt))
        result: Any = outcome.structured
        assert result["improved"]
        assert result["copied_texts"] == texts, "what stood there before wasn't copied"
        assert [("copied" in warning) for warning in outcome.warnings] == [True] * len(texts)


@pytest.mark.parametrize(
    ("passes", "needed", "verdict"),
    [(3, 3, "passed"), (2, 3, "failed"), (2, 2, "passed"), (0, 1, "failed"), (1, 1, "passed")],
)
def test_a_case_passes_at_k_of_n(passes: int, needed: int, verdict: str) -> None:
    outputs = 0

    def disturb(prompt: AnyPrompt, _: Mapping[str, Any], __: int) -> None:
        nonlocal outputs
        outputs += 1
        if outputs > passes and isinstance(prompt, InlinePrompt):
            messages: Any = prompt.parameters["prompt"]
            messages["messages"][0]["content"] = "Answer with one word."

    @virtual_time
    async def run() -> Any:
        given = arguments([SENTENCE], repeat=3, pass_at_least=needed, max_rounds=1)
        result: Any = (await outcome_of(Model(disturb=disturb), given)).structured
        case = result["cases"][0]["before"]
        assert (case["passes"], len(case["runs"]), case["verdict"]) == (passes, 3, verdict)

    run()


@pytest.mark.parametrize(("lost", "verdict"), [(1, "passed"), (2, "unknown"), (3, None)])
def test_runs_without_an_output_are_neither(lost: int, verdict: str | None) -> None:
    def disturb(_: AnyPrompt, __: Mapping[str, Any], ___: int) -> None:
        nonlocal lost
        if lost:
            lost -= 1
            raise failed(Reason.UPSTREAM_TIMEOUT)

    @virtual_time
    async def run() -> None:
        given = arguments([SENTENCE], repeat=3, pass_at_least=2)
        if verdict is None:
            with pytest.raises(ToolFailed) as failure:
                await outcome_of(Model(disturb=disturb), given)
            assert failure.value.reason is Reason.UPSTREAM_TIMEOUT
            assert not failure.value.retryable
            assert len(failure.value.attempts) == 3
            return
        outcome = await outcome_of(Model(disturb=disturb), given)
        result: Any = outcome.structured
        assert verdicts(result) == [verdict]
        assert result["stopped"] == ("all_pass" if verdict == "passed" else "none_fails")
        assert (outcome.warnings != ()) == (verdict == "unknown")

    run()


@virtual_time
async def test_what_was_refused_before_anything_was_sent_is_refused() -> None:
    def disturb(*_: Any) -> None:
        raise circuit_open(3)

    with pytest.raises(Refused) as refused:
        await outcome_of(Model(disturb=disturb), arguments())
    assert refused.value.reason is Reason.UPSTREAM_CIRCUIT_OPEN


@virtual_time
async def test_a_case_that_times_out_does_not_hold_up_the_others() -> None:
    def disturb(_: AnyPrompt, inputs: Mapping[str, Any], __: int) -> None:
        if inputs.get("message") == CASES[0]["inputs"]["message"]:
            raise failed(Reason.UPSTREAM_TIMEOUT)

    outcome = await outcome_of(Model(disturb=disturb), arguments())
    result: Any = outcome.structured
    assert verdicts(result) == ["unknown", *["passed"] * 4]
    assert (result["improved"], result["passed_before"], result["passed_after"]) == (True, 2, 4)
    assert result["cases"][0]["after"]["runs"][0]["failure"] == "UPSTREAM_TIMEOUT: It failed."
    assert result["stopped"] == "none_fails"


@virtual_time
async def test_agenta_down_in_the_second_round_leaves_what_the_first_found() -> None:
    def disturb(_: AnyPrompt, __: Mapping[str, Any], answers: int) -> None:
        if answers >= 2 * 3 + 1:
            raise failed(Reason.UPSTREAM_UNREACHABLE)

    outcome = await outcome_of(Model(disturb=disturb), arguments([CASES[3], HOPELESS, CASES[0]]))
    result: Any = outcome.structured
    assert (result["improved"], result["stopped"], len(result["rounds"])) == (True, "upstream_failed", 1)
    assert outcome.warnings[0] == "There was no further round because of a failure. It failed."


@virtual_time
async def test_agenta_down_while_the_cases_are_run_again_takes_nothing() -> None:
    def disturb(prompt: AnyPrompt, _: Mapping[str, Any], __: int) -> None:
        if isinstance(prompt, InlinePrompt) and not is_original(prompt):
            raise failed(Reason.UPSTREAM_UNREACHABLE)

    result: Any = (await outcome_of(Model(disturb=disturb), arguments())).structured
    assert (result["improved"], result["stopped"]) == (False, "upstream_failed")
    assert [each["end"] for each in result["rounds"]] == ["incomplete"]
    assert result["prompt_template_json"] == PROMPT
    assert verdicts(result) == verdicts(result, "before")


@virtual_time
async def test_one_run_that_is_lost_is_enough_to_leave_a_refinement() -> None:
    """Whether the case still passes isn't known, and so it can't be promised."""

    def disturb(prompt: AnyPrompt, inputs: Mapping[str, Any], _: int) -> None:
        if isinstance(prompt, InlinePrompt) and not is_original(prompt) and inputs == CASES[1]["inputs"]:
            raise failed(Reason.UPSTREAM_BROKEN)

    result: Any = (await outcome_of(Model(disturb=disturb), arguments(max_rounds=1))).structured
    assert [each["end"] for each in result["rounds"]] == ["incomplete"]
    assert result["rounds"][0]["why"] == (
        'It is unknown whether these cases, which passed before, still pass: "locked out".'
    )
    assert not result["improved"]


@pytest.mark.parametrize(
    ("deadline", "rounds", "took"),
    [
        # Two trials of a second each, and a refinement of five; before the first one, it counts as a second.
        (1.6, 0, 1.0),
        (3.4, 0, 1.0),
        (3.6, None, None),
        (7.6, 1, 7.0),
        (13.4, 1, 7.0),
    ],
)
def test_no_round_begins_that_cannot_end_in_time(deadline: float, rounds: int | None, took: float | None) -> None:
    @virtual_time
    async def run() -> None:
        given = arguments([CASES[3], HOPELESS, CASES[0]], max_rounds=3)
        loop = asyncio.get_running_loop()

        class Bounded(Model):
            async def complete(self, prompt: AnyPrompt, inputs: Any, call: Any) -> Any:
                try:
                    async with asyncio.timeout_at(call.deadline):
                        return await super().complete(prompt, inputs, call)
                except TimeoutError:
                    raise failed(Reason.UPSTREAM_TIMEOUT) from None

        result: Any = (await outcome_of(Bounded(), given, deadline=deadline)).structured
        assert result["stopped"] == "deadline"
        assert loop.time() <= deadline - 0.25
        assert result["passed_before"] == 1
        if rounds is not None:
            assert len(result["rounds"]) == rounds
            assert loop.time() == took

    run()


@pytest.mark.parametrize("late", [answer.parse, refiner._restored, Spending.excess, template.parse, copied.find_copied])
def test_whatever_a_refinement_waits_for_the_report_comes_in_time(late: Callable[..., Any]) -> None:
    model = Model()

    class Queue(Computing):
        """Others are before the call, once a refinement has been billed."""

        async def run(self, caller: Hashable, work: Callable[..., Any], size: int, *args: object) -> Any:
            await self._wait(work)
            return await super().run(caller, work, size, *args)

        async def in_thread(self, caller: Hashable, work: Callable[..., Any], *args: object) -> Any:
            await self._wait(work)
            return await super().in_thread(caller, work, *args)

        async def _wait(self, work: Callable[..., Any]) -> None:
            if model.contexts and getattr(work, "__func__", work) is late:
                await asyncio.sleep(100)

    @virtual_time
    async def run() -> None:
        result: Any = (await outcome_of(model, arguments(), deadline=20, computing=Queue())).structured
        assert asyncio.get_running_loop().time() == 20 - REPORT_SECONDS
        assert (result["stopped"], result["improved"], result["passed_before"]) == ("deadline", False, 3)
        assert result["prompt_template_json"] == PROMPT
        assert result["model_calls"] == model.answers == 6

    run()


@virtual_time
async def test_a_cancelled_call_leaves_nothing_running() -> None:
    for seconds in (0.5, 3.0, 6.5):
        model = Model()
        task = asyncio.create_task(outcome_of(model, arguments()))
        await asyncio.sleep(seconds)
        assert model.running
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert model.running == 0
        assert len(asyncio.all_tasks()) == 1


@virtual_time
async def test_a_bug_is_raised_as_it_is() -> None:
    def disturb(*_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await outcome_of(Model(disturb=disturb), arguments())


@pytest.mark.parametrize(("taken", "peak"), [(0, 5), (7, 3), (9, 1)])
def test_runs_take_slots_that_nobody_waits_for(taken: int, peak: int) -> None:
    """Of ten, the call itself holds one."""

    @virtual_time
    async def run() -> None:
        limiter, model = ConcurrencyLimiter(10, 5), Model()
        held = [limiter.slot("others") for _ in range(taken)]
        async with limiter.slot(""):
            for slot in held:
                await slot.__aenter__()
            await outcome_of(model, arguments(), limiter=limiter)
            assert limiter.in_flight == taken + 1
        assert model.peak == peak
        assert limiter.queued == 0

    run()


@virtual_time
async def test_what_a_refinement_is_told_stays_within_its_limit() -> None:
    long = {"message": "A refund! " * 4000}
    case = {"inputs": long, "expected": {"equals": "x" * 9000}, "remark": "y" * 1000}
    most = {"context": "c" * 5000, "guidelines": "g" * 8000}
    for cases in (1, 20):
        model = Model()
        given = arguments([case] * cases, max_model_calls=200, max_rounds=3, **most)
        await outcome_of(model, given, spending=Spending(("gpt-4o-mini",), 10**8))
        assert all(len(context) <= MAX_CONTEXT_CHARACTERS for context in model.contexts)
        assert model.contexts[0].startswith(f"{most['context']}\n\nTest cases that fail with this prompt, ")
        assert model.contexts[0].count("Remark: yyy") == min(cases, 9), "of fewer, so that each says something"


@virtual_time
async def test_a_call_keeps_no_more_of_its_outputs_than_anyone_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty cases, five times each, with two prompts at a time, are hundreds of answers of up to 256 KiB."""
    trials: list[Trial] = []
    run = CaseRunner.run

    async def remember(runner: CaseRunner, root: Mapping[str, Any], what: str) -> Trial:
        trials.append(await run(runner, root, what))
        return trials[-1]

    monkeypatch.setattr(CaseRunner, "run", remember)
    monkeypatch.setattr("agenta_ai_server.standin.model.answer", lambda *_: "x" * (256 << 10))
    result: Any = (await outcome_of(model := Model(), arguments([HOPELESS]))).structured
    kept = [len(each.output) for trial in trials for case in trial.cases for each in case.runs]
    assert kept
    assert max(kept) <= 2_001
    assert len(result["cases"][0]["before"]["runs"][0]["output"]) == 1_500
    assert "x…" in model.contexts[0]
