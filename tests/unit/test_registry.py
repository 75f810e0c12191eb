from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.domain.outcome import ToolOutcome
from agenta_ai_server.tools.registry import Registry, Tool

if TYPE_CHECKING:
    from collections.abc import Callable

    from agenta_ai_server.domain.call import Call


class Nothing(BaseModel):
    pass


async def say_name(_: Nothing, call: Call) -> ToolOutcome:
    return ToolOutcome(text=call.method, structured={})


def tool(name: str, permission: str = "view") -> Tool[Any]:
    return Tool(
        name=name, title="", description="", permission=permission, arguments=Nothing, result=Nothing, run=say_name
    )


ONE, TWO = tool("tools.a.b.one"), tool("tools.a.b.two", "edit")


@pytest.mark.parametrize(
    ("tools", "disabled", "why"),
    [
        ([ONE, ONE], (), "two tools are named tools.a.b.one"),
        ([tool("tools.a.one")], (), "no name of the form"),
        ([tool("tools.a.b.One")], (), "no name of the form"),
        ([ONE], ("tools.a.b.tow",), "no such tool: tools.a.b.tow; there are: tools.a.b.one"),
    ],
)
def test_faults(tools: list[Tool[Any]], disabled: tuple[str, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Registry(tools, disabled)


@pytest.mark.parametrize("name", ["", ".", "tools", "tools.a", "tools.a.b", "tools.a.b.", "tools.a.b.one.x", "x"])
async def test_not_found(name: str, make_call: Callable[[], Call]) -> None:
    with pytest.raises(Refused) as refused:
        await Registry([ONE]).call(name, {}, make_call())
    assert refused.value.reason is Reason.TOOL_NOT_FOUND


async def test_found(make_call: Callable[[], Call]) -> None:
    other = replace(ONE, name="tools.z.y.x")
    result = await Registry([ONE, other]).call("tools.z.y.x", {}, make_call())
    assert result.text == make_call().method
