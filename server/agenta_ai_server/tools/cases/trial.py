"""What came of running a prompt on all cases."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from agenta_ai_server.domain.record import record

if TYPE_CHECKING:
    from agenta_ai_server.domain.errors import Refused, ToolFailed


class Verdict(StrEnum):
    """Whether a case passes. One whose runs didn't come to an end may be neither."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"


@record
class CaseRun:
    """One run of one case.

    Attributes:
        output: The beginning of what the model wrote, as much as anyone reads; empty if nothing came.
        faults: What is wrong with it, in sentences.
        error: Why no output came; ``None`` if one did.
        trace_id: The run's trace in Agenta; empty if unknown.
    """

    output: str = ""
    faults: tuple[str, ...] = ()
    error: ToolFailed | Refused | None = None
    trace_id: str = ""

    @property
    def passed(self) -> bool:
        """Whether an output came, and is as expected."""
        return self.error is None and not self.faults

    @property
    def failure(self) -> str:
        """Why no output came, as people read it; empty if one did."""
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
        """Whether the case passes, whatever the runs would have given of which no output came."""
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
        """Whether any output came."""
        return any(run.error is None for case in self.cases for run in case.runs)

    @property
    def errors(self) -> list[ToolFailed | Refused]:
        """Why runs gave no output."""
        return [run.error for case in self.cases for run in case.runs if run.error]
