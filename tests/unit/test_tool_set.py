from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from calls import tool_call
from concurrency.virtual_time import virtual_time

from agenta_ai_server.domain.callers import Callers, Waiter
from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.domain.outcome import ToolOutcome
from agenta_ai_server.domain.tool import ToolSet, ToolSpec
from agenta_ai_server.tools.catalog import Catalog, check_disabled, tool_set

if TYPE_CHECKING:
    from agenta_ai_server.domain.tool_call import ToolCall


async def say_name(call: ToolCall) -> ToolOutcome:
    return ToolOutcome(call.name)


def tool(name: str, *needs: str) -> ToolSpec:
    return ToolSpec(name, "", "", "view", {"type": "object"}, {}, say_name, needs=needs)


ONE, TWO = tool("tools.a.b.one"), tool("tools.a.b.two", "URL", "KEY")


@pytest.mark.parametrize(
    ("tools", "disabled", "why"),
    [
        ([ONE, ONE], (), "two tools are named tools.a.b.one"),
        ([tool("tools.a.one")], (), "isn't a name of the form"),
        ([tool("tools.a.b.One")], (), "isn't a name of the form"),
    ],
)
def test_faults(tools: list[ToolSpec], disabled: tuple[str, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        tool_set(tools, (), disabled)


def test_what_does_not_exist_cannot_be_switched_off() -> None:
    check_disabled([ONE.name, TWO.name], [ONE.name])
    with pytest.raises(ValueError, match=r"there is no tool tools\.a\.b\.tow\. The tools are: tools\.a\.b\.one$"):
        check_disabled([ONE.name], ["tools.a.b.tow"])
    many = [f"tools.a.b.t{number}" for number in range(30)]
    with pytest.raises(ValueError, match=r"tools\.a\.b\.t26 and 10 more$"):
        check_disabled(many, ["tools.a.b.tow"])


def test_listeners_learn_of_a_change() -> None:
    catalog, seen = Catalog(ToolSet([ONE])), list[ToolSet]()
    catalog.on_change(seen.append)
    catalog.current = ToolSet([TWO])
    assert seen == [catalog.current]


@pytest.mark.parametrize("name", ["", ".", "tools", "tools.a", "tools.a.b", "tools.a.b.", "tools.a.b.one.x", "x"])
def test_not_found(name: str) -> None:
    tools = ToolSet([ONE])
    assert tools.find(name) is None
    with pytest.raises(Refused) as refused:
        tools.get(name)
    assert refused.value.reason is Reason.TOOL_NOT_FOUND


def test_found() -> None:
    other = replace(ONE, name="tools.z.y.x")
    tools = ToolSet([other, ONE])
    assert tools.get("tools.z.y.x") is other
    assert tools.tools == (ONE, other)


def test_a_missing_setting_disables_the_tools_that_need_it_and_no_others() -> None:
    tools = ToolSet([ONE, TWO], {"KEY", "SOMETHING"})
    assert tools.tools == (ONE,)
    assert tools.missing_settings == ("KEY",)
    assert tools.get(ONE.name) is ONE
    with pytest.raises(Refused) as refused:
        tools.get(TWO.name)
    assert refused.value.reason is Reason.SERVICE_DISABLED


def test_a_call_keeps_the_set_that_it_began_with() -> None:
    catalog = Catalog(ToolSet([ONE]))
    call = tool_call(ONE.name, tools=catalog.current)
    catalog.current = ToolSet([TWO])
    assert call.tools.get(ONE.name) is ONE
    assert catalog.current.find(ONE.name) is None


@pytest.mark.parametrize(
    ("deadline", "last", "enough"), [(10, 5, True), (10, 0.5, False), (0.5, 10, False), (-1, 10, False)]
)
@virtual_time
async def test_a_call_needs_time_of_its_own_and_somebody_who_waits(deadline: float, last: float, enough: bool) -> None:
    call = tool_call(deadline=deadline, callers=Callers([Waiter(last)]))
    refused = False
    try:
        call.require_time(1)
    except Refused as error:
        refused = error.reason is Reason.DEADLINE_TOO_SHORT
    assert refused is not enough
