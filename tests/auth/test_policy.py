"""Who may do what, once it is known who calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from auth.parties import (
    DENIED,
    DISABLED,
    ECHO,
    INVALID,
    MISSING,
    NOT_FOUND,
    OK,
    Kind,
    Parties,
    authorization,
    fingerprints,
)
from calls import REFINE
from grpc import StatusCode

from agenta_ai_server.auth.policy import AccessPolicy
from agenta_ai_server.domain.call import Principal
from agenta_ai_server.domain.errors import Refused
from agenta_ai_server.domain.outcome import ToolOutcome
from agenta_ai_server.domain.tool import ToolSet, ToolSpec

if TYPE_CHECKING:
    from agenta_ai_server.domain.tool_call import ToolCall

# The tool was found and may be called; it is the arguments that it refuses.
REACHED = StatusCode.INVALID_ARGUMENT, "ARGUMENTS_INVALID"

EDIT, ECHO_ONLY, BOTH = "edit_workflows", "view", "edit_workflows view"
VIEW, RUN = "view_ai_services", "run_ai_services"

# What is required of all, and what the caller may; whether it may look, the tools that it sees, and the answer when it
# calls a name that no tool has.
TABLE: list[tuple[str, str, Kind, set[str], Kind]] = [
    ("", "", OK, set(), DENIED),
    ("", EDIT, OK, {REFINE}, DENIED),
    ("", ECHO_ONLY, OK, {ECHO}, DENIED),
    ("", BOTH, OK, {REFINE, ECHO}, NOT_FOUND),
    ("", f"{VIEW} {RUN}", OK, set(), DENIED),
    ("", EDIT.upper(), OK, set(), DENIED),
    (VIEW, BOTH, DENIED, {REFINE, ECHO}, NOT_FOUND),
    (VIEW, f"{BOTH} {VIEW}", OK, {REFINE, ECHO}, NOT_FOUND),
    (VIEW, VIEW, OK, set(), DENIED),
    (RUN, BOTH, OK, set(), DENIED),
    (RUN, f"{BOTH} {RUN}", OK, {REFINE, ECHO}, NOT_FOUND),
    (RUN, f"{EDIT} {RUN}", OK, {REFINE}, DENIED),
    (RUN, RUN, OK, set(), DENIED),
    (f"{VIEW},{RUN}", BOTH, DENIED, set(), DENIED),
    (f"{VIEW},{RUN}", f"{BOTH} {RUN}", DENIED, {REFINE, ECHO}, NOT_FOUND),
    (f"{VIEW},{RUN}", f"{BOTH} {VIEW}", OK, set(), DENIED),
    (f"{VIEW},{RUN}", f"{BOTH} {VIEW} {RUN}", OK, {REFINE, ECHO}, NOT_FOUND),
]


@pytest.mark.usefixtures("echo")
@pytest.mark.parametrize(("required", "permissions", "look", "tools", "missing"), TABLE)
async def test_permissions(
    required: str, permissions: str, look: Kind, tools: set[str], missing: Kind, parties: Parties
) -> None:
    shown = authorization(f"ApiKey {parties.key(*permissions.split())}")
    async with parties.serving("api_keys", AGENTA_AI_GRPC_REQUIRED_PERMISSIONS=required):
        status = await parties.call(shown, rpc="Status")
        listed = await parties.call(shown, rpc="ListTools")
        refined = await parties.call(shown)
        echoed = await parties.call(shown, name=ECHO)
        nothing = await parties.call(shown, name=MISSING)
    assert status.kind == listed.kind == look
    assert status.tools == listed.tools == (tools if look == OK else set())
    assert refined.kind == (OK if REFINE in tools else DENIED)
    assert echoed.kind == (REACHED if ECHO in tools else DENIED)
    assert nothing.kind == missing
    # A hidden tool reads like one that isn't there.
    assert len(fingerprints(outcome for outcome in (refined, echoed, nothing) if outcome.kind == DENIED)) < 2
    if missing == NOT_FOUND:
        assert nothing.details["ResourceInfo"] == {"resourceType": "tool", "resourceName": MISSING}


@pytest.mark.usefixtures("echo")
async def test_a_tool_that_is_switched_off_is_hidden_from_nobody(parties: Parties) -> None:
    shown = authorization(f"ApiKey {parties.key(EDIT)}")
    async with parties.serving("api_keys", AGENTA_AI_GRPC_DISABLED_TOOLS=ECHO):
        assert (await parties.call(shown, name=ECHO)).kind == NOT_FOUND
        assert (await parties.call(shown)).kind == OK


@pytest.mark.parametrize("adapter", ["api_keys", "jwt", "agenta"])
async def test_a_disabled_service_says_so_only_to_whom_it_knows(adapter: str, parties: Parties) -> None:
    shown = {
        "api_keys": authorization(f"ApiKey {parties.key(EDIT)}"),
        "jwt": parties.issuer.bearer(),
        "agenta": authorization(parties.trust("ApiKey agenta-key-0123456789", EDIT)),
    }[adapter]
    async with parties.serving(adapter, AGENTA_AI_SERVICES_API_KEY=""):
        known, status = await parties.call(shown), await parties.call(shown, rpc="Status")
        others = await parties.ask()
    assert known.kind == DISABLED
    assert status.answer["missingSettings"] == ["AGENTA_AI_SERVICES_API_KEY"]
    assert [others[rpc].kind for rpc in ("Status", "ListTools", "CallTool")] == [INVALID] * 3


async def test_agenta_is_asked_by_the_names_that_it_knows(parties: Parties) -> None:
    shown = authorization(parties.trust("ApiKey agenta-key-0123456789", EDIT, "run_service"))
    async with parties.serving(
        "agenta",
        AGENTA_AI_GRPC_REQUIRED_PERMISSIONS=f"{VIEW},{RUN}",
    ):
        status, called = await parties.call(shown, rpc="Status"), await parties.call(shown)
    assert (status.kind, called.kind) == (DENIED, OK)
    assert parties.standin.permissions.started == 3, "each permission is one question, and no more for the second call"


async def _nothing(_: ToolCall) -> ToolOutcome:
    return ToolOutcome("")


@pytest.mark.parametrize("missing", [(), ("KEY",)], ids=["enabled", "disabled"])
def test_a_hidden_tool_can_not_be_told_from_none(missing: tuple[str, ...]) -> None:
    hidden = ToolSpec("tools.a.b.hidden", "", "", "edit", {}, {}, _nothing, needs=("KEY",))
    open_to_all = ToolSpec("tools.a.b.open", "", "", "view", {}, {}, _nothing)
    tools, caller = ToolSet([hidden, open_to_all], missing), Principal("u", permissions=frozenset({"view"}))
    refusals = []
    for name in (hidden.name, "tools.a.b.none", "nonsense"):
        with pytest.raises(Refused) as refused:
            AccessPolicy().check_call(caller, name, tools)
        refusals.append((refused.value.reason, refused.value.message))
    assert len(set(refusals)) == 1
    AccessPolicy().check_call(caller, open_to_all.name, tools)
