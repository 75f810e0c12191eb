"""Which limit holds for whom, and what the file may say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agenta_ai_server.domain.call import ANONYMOUS, Principal
from agenta_ai_server.files.reloading import ReloadingFile
from agenta_ai_server.limits.limiter import Limit
from agenta_ai_server.limits.policy import LimitPolicy, Quota

TOOL = "tools.agenta.api.refine_prompt"
OTHER = "tools.agenta.api.other"
ADA = Principal(user="ada@example.org", organization="org-1", plan="Pro")

EVERYTHING = b"""
burst = 1
per_minute = 1
[tools."tools.agenta.api.refine_prompt"]
burst = 2
per_minute = 90
[plans.Pro]
burst = 3
per_minute = 1
[plans.Pro.tools."tools.agenta.api.refine_prompt"]
burst = 4
per_minute = 1
[organizations.org-1]
burst = 5
per_minute = 1
[organizations.org-1.tools."tools.agenta.api.refine_prompt"]
burst = 6
per_minute = 1
[organizations.free]
unlimited = true
[organizations.free.tools."tools.agenta.api.other"]
burst = 7
per_minute = 1
[organizations.silent.tools."tools.agenta.api.other"]
unlimited = true
"""


def found(policy: LimitPolicy, tool: str, organization: str, plan: str) -> tuple[str, int] | None:
    quota = policy.quota(tool, Principal(user="ada", organization=organization, plan=plan))
    return (quota.id, quota.limit.burst) if quota else None


@pytest.mark.parametrize(
    ("tool", "organization", "plan", "expected"),
    [
        (TOOL, "org-1", "Pro", ("organization-tool", 6)),
        (OTHER, "org-1", "Pro", ("organization", 5)),
        (TOOL, "org-2", "Pro", ("plan-tool", 4)),
        (OTHER, "org-2", "Pro", ("plan", 3)),
        (TOOL, "org-2", "Hobby", ("tool", 2)),
        (OTHER, "org-2", "Hobby", ("default", 1)),
        (OTHER, "", "", ("default", 1)),
        (TOOL, "free", "Pro", None),
        (OTHER, "free", "Pro", ("organization-tool", 7)),
        (OTHER, "silent", "Pro", None),
        (TOOL, "silent", "Pro", ("plan-tool", 4)),
    ],
)
def test_the_nearest_to_the_caller_holds(
    tool: str, organization: str, plan: str, expected: tuple[str, int] | None
) -> None:
    assert found(LimitPolicy.parse(EVERYTHING), tool, organization, plan) == expected


@pytest.mark.parametrize("policy", [LimitPolicy(), LimitPolicy.parse(b""), LimitPolicy.parse(b"[plans.Pro]")])
def test_ten_at_once_and_thirty_a_minute_if_nothing_is_said(policy: LimitPolicy) -> None:
    for principal in (ADA, ANONYMOUS):
        quota = policy.quota(TOOL, principal)
        assert quota
        assert (quota.id, quota.limit) == ("default", Limit(10, 30))


def test_the_example_holds_agentas_plans() -> None:
    policy = LimitPolicy.parse((Path(__file__).parents[2] / "examples" / "limits.toml").read_bytes(), tools=[TOOL])
    for plan, limit in {"Hobby": (10, 30), "Pro": (30, 90), "Business": (300, 900), "": (10, 30)}.items():
        quota = policy.quota(TOOL, Principal(user="ada", plan=plan))
        assert quota
        assert (quota.limit.burst, quota.limit.per_minute) == limit


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"brust = 3", "brust: there is no such key"),
        (b"[plans.Pro]\nburst = 3", "plans.Pro: burst and per_minute must be given together"),
        (b"burst = 0\nper_minute = 1", "burst: Input should be greater than or equal to 1"),
        (b"burst = 2.5\nper_minute = 1", "burst: Input should be a valid integer"),
        (b"burst = true\nper_minute = true", "burst: Input should be a valid integer"),
        (b"burst = 1\nper_minute = 0.5", "per_minute: Input should be a valid integer"),
        (b"burst = 1\nper_minute = 1_000_000", "per_minute: Input should be less than or equal to 60000"),
        (
            b"unlimited = true\nburst = 1\nper_minute = 1",
            "at the top: unlimited can't be combined with burst and per_minute",
        ),
        (b"[organizations.o.tools.x]\nlimit = 1", "organizations.o.tools.x.limit: there is no such key"),
        (b'[organizations.""]', "organizations.: String should have at least 1 character"),
        (b"plans = 3", "plans: Input should be a valid dictionary"),
        (b"[plans.Pro\nburst = 3", "Expected ']' at the end of a table declaration (at line 1, column 11)"),
        (b"burst = 3\nburst = 4\n", "Cannot overwrite a value (at line 2, column 10)"),
        (b"\xff", "isn't UTF-8 (at byte 0)"),
        (b"a = " + b"[" * 50_000, "is nested too deeply"),
        (b"[plans.Pro.tools.nope]", f"there is no tool 'nope'; there are {TOOL}"),
        (b"[tools.nope]", f"there is no tool 'nope'; there are {TOOL}"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=r"\A(?!1 validation)") as raised:
        LimitPolicy.parse(content, tools=[TOOL])
    assert message in str(raised.value)


def test_every_fault_is_named() -> None:
    with pytest.raises(ValueError, match=r"a: .*; b: "):
        LimitPolicy.parse(b"a = 1\nb = 2")


def test_a_change_of_the_file_holds_at_the_next_look(tmp_path: Path) -> None:
    file, now = tmp_path / "limits.toml", [0.0]
    file.write_bytes(b"burst = 1\nper_minute = 1")
    watched = ReloadingFile(file, LimitPolicy.parse, every=1, clock=lambda: now[0])
    for content, burst in ((b"burst = 22\nper_minute = 1", 22), (b"burst = 333", 22)):
        file.write_bytes(content)
        now[0] += 1
        quota = watched.content.quota(TOOL, ADA)
        assert quota
        assert quota.limit.burst == burst


def test_a_bucket_says_nothing_of_whose_it_is() -> None:
    quota = LimitPolicy().quota(TOOL, ADA)
    assert quota == Quota("default", quota.key if quota else "", Limit(10, 30))
    assert quota
    assert len(quota.key) == 32
    assert int(quota.key, 16)
    assert quota.subject == f"bucket:{quota.key}"
    assert not {"ada", "org-1"} & set(repr(quota).replace("@", " ").split())


PARTS = st.tuples(st.text(max_size=4), st.text(max_size=4), st.text(max_size=4)) | st.tuples(
    *[st.sampled_from(["", "a", "aa", "a:", ":a", "\0", "\ud800"])] * 3
)


@given(PARTS, PARTS)
def test_buckets_are_the_same_only_for_the_same_tool_organization_and_user(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    def key(tool: str, organization: str, user: str) -> str:
        quota = LimitPolicy().quota(tool, Principal(user=user, organization=organization, plan=os.urandom(4).hex()))
        assert quota
        return quota.key

    assert (key(*one) == key(*other)) is (one == other)


@pytest.mark.parametrize(("burst", "per_minute"), [(0, 1), (100_001, 1), (1, 0), (1, 60_001), (1, float("nan"))])
def test_a_limit_has_bounds(burst: int, per_minute: float) -> None:
    with pytest.raises(ValueError, match="must be a"):
        Limit(burst, per_minute)
