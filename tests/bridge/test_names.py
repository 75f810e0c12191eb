from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenta_ai.mcp.names import Names

NAMES = st.from_regex(r"tools\.[a-z0-9_]+\.[a-z0-9_]+\.[a-z0-9_]+", fullmatch=True)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("tools.agenta.api.refine_prompt", "tools__agenta__api__refine_prompt"),
        ("tools.a.b.c", "tools__a__b__c"),
        ("tools.a.b.two__underscores", "tools.a.b.two__underscores"),
        ("tools.a._b.c", "tools.a._b.c"),
        ("tools.a.b_.c", "tools.a.b_.c"),
        ("tools.a.b.c_", "tools.a.b.c_"),
    ],
)
def test_dots_become_underscores_where_they_can_be_read_back(name: str, shown: str) -> None:
    assert Names(underscore=True).shown(name) == shown
    assert Names(underscore=True).meant(shown) == name


@given(NAMES)
def test_every_name_is_read_back(name: str) -> None:
    for names in (Names(), Names(underscore=True)):
        assert names.meant(names.shown(name)) == name


@given(NAMES, NAMES)
def test_two_tools_never_share_a_name(one: str, other: str) -> None:
    names = Names(underscore=True)
    assert (names.shown(one) == names.shown(other)) == (one == other)


@given(NAMES)
def test_what_can_be_written_without_dots_is(name: str) -> None:
    shown = Names(underscore=True).shown(name)
    assert re.fullmatch(r"[a-z0-9_]+", shown) or re.search(r"__|_\.|\._|_$", name)


def test_dots_stay_by_default() -> None:
    assert Names().shown("tools.a.b.c") == "tools.a.b.c"
    assert Names().meant("tools__a__b__c") == "tools__a__b__c"
