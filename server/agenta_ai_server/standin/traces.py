"""What Agenta tells of a run by its trace: tokens and cost, as they were recorded."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from agenta_ai_server.standin import answers

if TYPE_CHECKING:
    from agenta_ai_server.standin.answers import Answer
    from agenta_ai_server.standin.permissions import Caller

PATH = "/api/traces/"
KEEP = 1000
BYTES_PER_TOKEN = 4
PRICE_PER_TOKEN = 0.00000015


class Traces:
    """The traces of the last runs.

    Attributes:
        unready: How often a trace is asked for before it is there; Agenta takes about 0.7 s.
    """

    def __init__(self) -> None:
        self.unready = 0
        self._runs: OrderedDict[str, tuple[str, dict[str, Any]]] = OrderedDict()
        self._asked: dict[str, int] = {}

    def add(self, trace_id: str, caller: Caller, *, received_bytes: int, written: object) -> None:
        """Note a run."""
        prompt, completion = received_bytes // BYTES_PER_TOKEN, len(str(written)) // BYTES_PER_TOKEN
        tokens = {"total": float(prompt + completion), "prompt": float(prompt), "completion": float(completion)}
        costs = {name: number * PRICE_PER_TOKEN for name, number in tokens.items()}
        metrics = {"costs": {"cumulative": costs}, "tokens": {"cumulative": tokens}, "errors": {}}
        self._runs[trace_id] = (caller.project_id, metrics)
        if len(self._runs) > KEEP:
            self._asked.pop(self._runs.popitem(last=False)[0], None)

    def answer(self, path: str, caller: Caller | None) -> Answer:
        """Return what Agenta would answer. The traces of other projects are unknown."""
        if caller is None:
            return answers.of_json(401, {"detail": {"message": "Unauthorized"}})
        trace_id = path.removeprefix(PATH)
        project, metrics = self._runs.get(trace_id, ("", {}))
        asked = self._asked[trace_id] = self._asked.get(trace_id, 0) + 1
        if project != caller.project_id or asked <= self.unready:
            return answers.of_json(200, {"count": 0})
        span = {
            "trace_id": trace_id,
            "span_type": "workflow",
            "span_name": "completion_v0",
            "attributes": {"ag": {"metrics": metrics}},
        }
        return answers.of_json(200, {"count": 1, "trace": {"spans": {"completion_v0": span}}})
