from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from agenta_ai_server.auth.authenticator import Credentials
from agenta_ai_server.auth.mtls import MtlsAuthenticator
from agenta_ai_server.domain.call import Principal
from agenta_ai_server.domain.errors import Reason, Refused

if TYPE_CHECKING:
    from pathlib import Path

SPIFFE = "spiffe://agenta.ai/ns/prod/sa/Evaluator"
EVALUATOR = Principal(
    user="u1",
    project="p1",
    workspace="w1",
    organization="o1",
    plan="pro",
    permissions=frozenset({"run", "view"}),
    method="mtls",
)
RECORD: dict[str, Any] = {
    "user": "u1",
    "project": "p1",
    "workspace": "w1",
    "organization": "o1",
    "plan": "pro",
    "permissions": ["run", "view"],
}
BATCH = Principal(user="batch", method="mtls")


def write(path: Path, *principals: dict[str, Any], **rest: Any) -> Path:
    path.write_text(json.dumps({"principals": principals, **rest}))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(
        tmp_path / "identities.json",
        {"identity": SPIFFE, **RECORD},
        {"identity": "Evaluator.agenta.internal", **RECORD},
        {"identity": "batch.agenta.internal", "user": "batch"},
    )


@pytest.mark.parametrize(
    ("identities", "principal"),
    [
        ([SPIFFE], EVALUATOR),
        (["evaluator.AGENTA.internal"], EVALUATOR),
        (["batch.agenta.internal"], BATCH),
        (["unknown.example", "batch.agenta.internal", "BATCH.agenta.internal"], BATCH),
        ([SPIFFE, "evaluator.agenta.internal"], EVALUATOR),
        ([SPIFFE, "batch.agenta.internal"], None),
        ([SPIFFE.lower()], None),
        ([SPIFFE + "/"], None),
        ([SPIFFE[:-1]], None),
        (["x.batch.agenta.internal"], None),
        (["*.agenta.internal"], None),
        (["batch.agenta.internal."], None),
        ([""], None),
        ([], None),
    ],
)
async def test_who_it_is(path: Path, identities: list[str], principal: Principal | None) -> None:
    authenticator = MtlsAuthenticator(path)
    credentials = Credentials(identities=tuple(identities))
    if principal:
        assert await authenticator.authenticate(credentials) == principal
    else:
        with pytest.raises(Refused) as refused:
            await authenticator.authenticate(credentials)
        assert refused.value.reason is Reason.CREDENTIALS_INVALID
    await authenticator.aclose()


@pytest.mark.parametrize(
    ("credentials", "accepted"),
    [
        (Credentials(identities=("anyone",)), True),
        (Credentials(), False),
        (Credentials("Bearer", "x", identities=("anyone",)), False),
        (Credentials("ApiKey", "aai_x", identities=("anyone",)), False),
    ],
)
def test_accepts(path: Path, credentials: Credentials, accepted: bool) -> None:
    assert MtlsAuthenticator(path).accepts(credentials) is accepted


NAME_RULE = r"principals\[0\].identity: must be one URI or DNS name"


@pytest.mark.parametrize(
    ("principals", "why"),
    [
        ([{"identity": "", "user": "u"}], NAME_RULE),
        ([{"identity": "*.agenta.internal", "user": "u"}], NAME_RULE),
        ([{"identity": "a.example b.example", "user": "u"}], NAME_RULE),
        ([{"identity": "a.example\n", "user": "u"}], NAME_RULE),
        ([{"identity": "\u212a.example", "user": "u"}], NAME_RULE),
        ([{"identity": "a", "user": "u"}, {"identity": "A", "user": "u"}], "duplicate identity: a$"),
        ([{"identity": "a"}], r"principals\[0\].user: Field required"),
        ([{"user": "u"}], r"principals\[0\].identity: Field required"),
        ([{"identity": "a", "user": "u", "permission": ["run"]}], r"principals\[0\].permission: is unknown"),
    ],
)
def test_faults_at_the_start(tmp_path: Path, principals: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(ValueError, match="identities.json: " + why):
        MtlsAuthenticator(write(tmp_path / "identities.json", *principals))


def test_file_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"can't read .*missing\.json: No such file"):
        MtlsAuthenticator(tmp_path / "missing.json")


async def test_file_is_read_again(path: Path) -> None:
    authenticator = MtlsAuthenticator(path, every=0)
    credentials = Credentials(identities=("batch.agenta.internal",))
    write(path, {})
    assert await authenticator.authenticate(credentials) == BATCH
    write(path)
    with pytest.raises(Refused):
        await authenticator.authenticate(credentials)
