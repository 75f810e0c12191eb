"""The tokens and the cost of runs in Agenta's traces, as recorded."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from agenta_ai_server.standin import answers

if TYPE_CHECKING:
    from agenta_ai_server.standin.answers import CannedResponse
    from agenta_ai_server.standin.permissions import Caller

PATH = "/api/traces/"
KEEP = 1000
CHARACTERS_PER_TOKEN = 4
DOLLARS_PER_TOKEN = 0.0000002


class Traces:
    """The traces of the last runs.

    Attributes:
        unready: How many requests for a trace fail before it is available; Agenta takes about 0.7 s.
    """

    def __init__(self) -> None:
        self.unready = 0
        self._spans: OrderedDict[tuple[str, str], list[dict[str, Any]]] = OrderedDict()

    def add(self, project: str, trace_id: str, span_id: str, *, read: int, written: int) -> None:
        """Record a run in which a model read and wrote this many characters."""
        prompt, completion = float(read // CHARACTERS_PER_TOKEN), float(written // CHARACTERS_PER_TOKEN)
        tokens = {"total": prompt + completion, "prompt": prompt, "completion": completion}
        costs = {name: number * DOLLARS_PER_TOKEN for name, number in tokens.items()}
        metrics = {"costs": {"cumulative": costs}, "tokens": {"cumulative": tokens}, "errors": {}}
        span = {
            "trace_id": trace_id,
            "span_id": span_id,
            "span_type": "workflow",
            "span_name": "completion_v0",
            "attributes": {"ag": {"metrics": metrics}},
        }
        self._spans.setdefault((project, trace_id), []).append(span)
        if len(self._spans) > KEEP:
            self._spans.popitem(last=False)

    def answer(self, path: str, caller: Caller | None) -> CannedResponse:
        """Return what Agenta would answer. The traces of other projects are unknown."""
        if caller is None:
            return answers.of_json(401, {"detail": {"message": "Unauthorized"}})
        spans = self._spans.get((caller.project_id, path.removeprefix(PATH)))
        if spans is None or self.unready > 0:
            self.unready -= spans is not None
            return answers.of_json(200, {"count": 0})
        return answers.of_json(
            200, {"count": 1, "trace": {"spans": {"completion_v0": spans if spans[1:] else spans[0]}}}
        )
