"""What messages cost a call by CallTool and by the tool's own method, in CPU time: arguments read, result written."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agenta_ai.codec import to_struct
from agenta_ai.v1 import tool_service_pb2
from agenta_ai_server.assembly.tools import described_tools
from agenta_ai_server.domain.outcome import ToolOutcome
from agenta_ai_server.domain.tool import ToolSpec
from agenta_ai_server.domain.values import MAX_VALUES
from agenta_ai_server.rpc import responses
from agenta_ai_server.rpc.parsing import parse, read_arguments
from agenta_ai_server.rpc.typed_fields import fields_of
from agenta_ai_server.rpc.typed_methods import write_typed_outcome
from agenta_ai_server.rpc.wire_format import CALL_TOOL, Fields
from agenta_ai_server.tools import refine_prompt
from agenta_ai_server.typed.generation import Generation
from agenta_ai_server.typed.lock import Lock, updated
from agenta_ai_server.typed.tools import shapes

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenta_ai_server.domain.values import Json

ROUNDS = 5
TEMPLATE = (Path(__file__).parent / "prompt.json").read_text()
ITEM: dict[str, Json] = {
    "type": "object",
    "properties": {"product": {"type": "string"}, "quantity": {"type": "integer"}, "price": {"type": "number"}},
}
ORDER: dict[str, Json] = {"type": "object", "properties": {"items": {"type": "array", "items": ITEM}}}
ITEMS = {"items": [{"product": f"Product {index}", "quantity": index, "price": 1.5} for index in range(50)]}


def measure(name: str, call: Callable[[], object], count: int) -> None:
    """Print the least time of a few rounds: others had to share the processor."""
    times = []
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(count):
            call()
        times.append((time.process_time() - began) / count)
    print(f"{name:44} {min(times) * 1e6:7.1f} µs a call", flush=True)


def compare(name: str, tool: ToolSpec, arguments: dict[str, Any], result: dict[str, Any], count: int) -> None:
    generation = Generation([tool], updated(Lock(), shapes([tool])[0]))
    (method,) = generation.methods.values()
    outcome = ToolOutcome("Done.", structured=result)
    generic = tool_service_pb2.CallToolRequest(name=tool.name, arguments=to_struct(arguments)).SerializeToString()
    request: Any = method.request()
    method.arguments.write(request.arguments, arguments)
    typed = request.SerializeToString()
    fields = Fields({1: fields_of(method.shape.arguments)})

    def by_call_tool() -> None:
        read_arguments(parse(generic, tool_service_pb2.CallToolRequest.FromString, CALL_TOOL).arguments)
        responses.write_outcome(outcome)

    def by_its_own_method() -> None:
        method.arguments.read(parse(typed, method.request.FromString, fields).arguments, MAX_VALUES)
        write_typed_outcome(method, outcome)

    print(f"{name}: requests of {len(generic)} and {len(typed)} bytes")
    measure("  by CallTool", by_call_tool, count)
    measure("  by its own method", by_its_own_method, count)


def main(count: int) -> None:
    refine = next(tool for tool in described_tools() if tool.name == refine_prompt.NAME)
    messages = json.loads(TEMPLATE)["messages"]
    refined = {"messages": messages, "summary": "Shorter.", "prompt_template_json": TEMPLATE}
    compare("refine_prompt", refine, {"prompt_template_json": TEMPLATE, "guidelines": "Be brief."}, refined, count)
    order = ToolSpec("tools.bench.shop.price", "", "Prices an order.", "view", ORDER, ORDER, run=refine.run)
    compare("50 items in and out", order, ITEMS, ITEMS, count)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2_500, help="calls in each of five rounds")
    main(parser.parse_args().calls)
