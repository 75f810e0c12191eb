"""Checks the outputs of one case."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agenta_ai_server.domain.errors import Violation
from agenta_ai_server.tools.workers.pool import LimitExceeded

if TYPE_CHECKING:
    from collections.abc import Hashable

    from agenta_ai_server.tools.cases.expectations import Expectation
    from agenta_ai_server.tools.computing import Computing
    from agenta_ai_server.tools.workers.pool import Workers

# What an output has at most where it is checked as JSON.
MAX_JSON_CHARACTERS = 200_000
_LONG = f"Must have at most {MAX_JSON_CHARACTERS:,} characters, because it is checked as JSON."
MAX_EXCEEDED = 3
UNCHECKABLE = "Can't be checked"


class Checker:
    """Checks the outputs of one case: as text in this process, as JSON in a worker process.

    Args:
        expectation: What the case expects.
        computing: Checks long texts.
        workers: Check JSON.
        key: Who it is for.
    """

    def __init__(self, expectation: Expectation, computing: Computing, workers: Workers, key: Hashable) -> None:
        self._expectation = expectation
        self._computing = computing
        self._workers = workers
        self._key = key
        # How many outputs took too much, the length of the shortest, and why. There may be hundreds, so that none of
        # that length is checked any more, and after some of them none at all.
        self._exceeded = 0
        self._exceeding = MAX_JSON_CHARACTERS + 1
        self._fault = ""

    async def violations(self) -> list[Violation]:
        """Return why no output can be checked as JSON, with paths that begin with a property of the expectation.

        Raises:
            WorkerFailed: No process could read the expectation, for a reason that has nothing to do with it.
        """
        expected = self._expectation.of_json
        if not expected:
            return []
        try:
            found = await self._workers.ask({"task": "read an expectation", "expected": expected}, self._key)
        except LimitExceeded as error:
            place = "json_schema" if "json_schema" in expected else min(expected)
            return [Violation(place, f"{UNCHECKABLE}: {error}.")]
        return [Violation(*each) for each in found]

    async def faults(self, output: str) -> list[str]:
        """Return what is wrong with an output, in sentences; nothing if it meets the expectations.

        Raises:
            WorkerFailed: No process could check it, for a reason that has nothing to do with it.
        """
        expectation = self._expectation
        if expectation.of_json and len(output) > MAX_JSON_CHARACTERS:
            # At once: it would take memory while it waits for the check of its text.
            return [_LONG]
        faults = await self._computing.run(self._key, expectation.faults, expectation.work(output), output)
        return [*faults, *await self._faults_of_json(output)] if expectation.of_json else faults

    async def _faults_of_json(self, output: str) -> list[str]:
        if len(output) >= self._exceeding:
            return [self._fault]
        request = {"task": "check an output", "expected": self._expectation.of_json, "output": output}
        try:
            return await self._workers.ask(request, self._key)
        except LimitExceeded as error:
            self._exceeded += 1
            self._exceeding = len(output) if self._exceeded < MAX_EXCEEDED else 0
            self._fault = f"{UNCHECKABLE}: {error}."
            return [self._fault]
