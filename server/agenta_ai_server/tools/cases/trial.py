"""The results of running a prompt on all cases."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from agenta_ai_server.domain.record import record

if TYPE_CHECKING:
    from agenta_ai_server.domain.errors import Refused, ToolFailed


class Verdict(StrEnum):
    """Whether a case passes. A case with unfinished runs may be neither passed nor failed."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"


@record
class CaseRun:
    """One run of one case.

    Attributes:
        output: The beginning of the model's output, as much as is used; empty if there is none.
        faults: What is wrong with the output, in sentences.
        error: Why there is no output; ``None`` if there is one.
        trace_id: The run's trace in Agenta; empty if unknown.
    """

    output: str = ""
    faults: tuple[str, ...] = ()
    error: ToolFailed | Refused | None = None
    trace_id: str = ""

    @property
    def passed(self) -> bool:
        """Whether there is an output and it meets the expectations."""
        return self.error is None and not self.faults

    @property
    def failure(self) -> str:
        """Why there is no output, for people; empty if there is one."""
        return f"{self.error.reason}: {self.error.message}" if self.error else ""


@dataclass(frozen=True, slots=True)
class CaseRuns:
    """All runs of one case with one prompt.

    Attributes:
        runs: In the order in which they ended.
        needed: How many of them must pass.
    """

    runs: tuple[CaseRun, ...]
    needed: int

    @property
    def passes(self) -> int:
        """How many runs passed."""
        return sum(run.passed for run in self.runs)

    @property
    def verdict(self) -> Verdict:
        """Whether the case passes, regardless of the runs without output."""
        if self.passes >= self.needed:
            return Verdict.PASSED
        without_output = sum(run.error is not None for run in self.runs)
        return Verdict.UNKNOWN if self.passes + without_output >= self.needed else Verdict.FAILED


@dataclass(frozen=True, slots=True)
class Trial:
    """All cases, run with one prompt.

    Attributes:
        cases: In their order.
        seconds: How long it took.
    """

    cases: tuple[CaseRuns, ...]
    seconds: float = 0.0

    def those(self, verdict: Verdict) -> list[int]:
        """Return the indices of the cases with this verdict."""
        return [index for index, case in enumerate(self.cases) if case.verdict is verdict]

    @property
    def passed(self) -> int:
        """How many cases pass."""
        return len(self.those(Verdict.PASSED))

    @property
    def has_output(self) -> bool:
        """Whether there is any output."""
        return any(run.error is None for case in self.cases for run in case.runs)

    @property
    def errors(self) -> list[ToolFailed | Refused]:
        """Why runs produced no output."""
        return [run.error for case in self.cases for run in case.runs if run.error]
