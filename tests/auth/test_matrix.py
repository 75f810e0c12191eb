"""Every way to show who one is × everything that can be wrong with it × every method of the service."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from auth.parties import (
    DENIED,
    EXPIRED,
    INVALID,
    NO_CONNECTION,
    OK,
    UNAVAILABLE,
    WHOAMI,
    Authority,
    Issuer,
    Kind,
    Metadata,
    Pair,
    Parties,
    authorization,
    dns,
    fingerprints,
    secret,
    uri,
)
from calls import REFINE, WITH_CASES
from cryptography.x509.oid import ExtendedKeyUsageOID
from grpc import StatusCode

from agenta_ai_server.auth.key_file import revoke_key
from agenta_ai_server.standin import answers
from agenta_ai_server.standin.app import in_turn
from agenta_ai_server.standin.permissions import Caller
from agenta_ai_server.telemetry.logs import FIELDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

Shown = tuple[Metadata, Pair | None]


SPIFFE = "spiffe://agenta.ai/ns/prod/sa/evaluator"
ELSEWHERE = "01a1fd54-0000-7000-8000-000000000000"
PAST = datetime(2001, 1, 1, tzinfo=UTC)

# What each of Status, ListTools and CallTool answers; health is always open, and reflection as it is set.
REFUSED: tuple[Kind, ...] = (INVALID,) * 3
TOO_OLD: tuple[Kind, ...] = (EXPIRED,) * 3
NO_HANDSHAKE: tuple[Kind, ...] = (NO_CONNECTION,) * 3
NOT_PERMITTED: tuple[Kind, ...] = (OK, OK, DENIED)
RIGHT: tuple[Kind, ...] = (OK, OK, OK)

# What has no meaning for an adapter isn't here:
# - API keys are for no audience and have no algorithm; nor have Agenta's credentials one.
# - Agenta doesn't tell expired from unknown, and neither does the stand-in.
# - A certificate's algorithm is the handshake's affair. Its audience is what it may be used for.
MATRIX: list[tuple[str, str, tuple[Kind, ...]]] = [
    ("api_keys", "none", REFUSED),
    ("api_keys", "malformed: no scheme", REFUSED),
    ("api_keys", "malformed: an unknown scheme", REFUSED),
    ("api_keys", "malformed: another scheme", REFUSED),
    ("api_keys", "malformed: empty", REFUSED),
    ("api_keys", "malformed: too short", REFUSED),
    ("api_keys", "malformed: too long", REFUSED),
    ("api_keys", "unknown id", REFUSED),
    ("api_keys", "unknown secret", REFUSED),
    ("api_keys", "expired", REFUSED),
    ("api_keys", "revoked", REFUSED),
    ("api_keys", "not permitted", NOT_PERMITTED),
    ("api_keys", "right", RIGHT),
    ("jwt", "none", REFUSED),
    ("jwt", "malformed: no scheme", REFUSED),
    ("jwt", "malformed: two parts", REFUSED),
    ("jwt", "malformed: no JSON", REFUSED),
    ("jwt", "unknown key", REFUSED),
    ("jwt", "unknown issuer", REFUSED),
    ("jwt", "wrong signature", REFUSED),
    ("jwt", "expired", TOO_OLD),
    ("jwt", "expired, with a wrong signature", REFUSED),
    ("jwt", "expired, for another audience", REFUSED),
    ("jwt", "revoked: its key is no longer published", REFUSED),
    ("jwt", "wrong audience", REFUSED),
    ("jwt", "wrong algorithm: none", REFUSED),
    ("jwt", "wrong algorithm: symmetric", REFUSED),
    ("jwt", "not permitted", NOT_PERMITTED),
    ("jwt", "right", RIGHT),
    ("agenta", "none", REFUSED),
    ("agenta", "malformed: no scheme", REFUSED),
    ("agenta", "malformed: an unknown scheme", REFUSED),
    ("agenta", "malformed: empty", REFUSED),
    ("agenta", "unknown", REFUSED),
    ("agenta", "revoked", REFUSED),
    ("agenta", "wrong audience: another's project", NOT_PERMITTED),
    ("agenta", "not permitted", NOT_PERMITTED),
    ("agenta", "right", RIGHT),
    ("agenta", "right, in its project", RIGHT),
    ("mtls", "none", NO_HANDSHAKE),
    ("mtls", "malformed: made by itself", NO_HANDSHAKE),
    ("mtls", "unknown name", REFUSED),
    ("mtls", "no name", REFUSED),
    ("mtls", "expired", NO_HANDSHAKE),
    ("mtls", "revoked", REFUSED),
    ("mtls", "wrong audience: a server's", NO_HANDSHAKE),
    ("mtls", "not permitted", NOT_PERMITTED),
    ("mtls", "right: a URI", RIGHT),
    ("mtls", "right: a DNS name", RIGHT),
]


def key_case(case: str, parties: Parties) -> Shown:
    key = parties.key("edit_workflows")
    head, _, body = key.rpartition("_")
    expired = parties.key("edit_workflows", expires=datetime.now(UTC) + timedelta(days=1))
    idle = parties.key()
    # No command makes a key that has expired already.
    content = parties.keys.read_text()
    tomorrow = next(line for line in content.splitlines() if '"expires": "' in line)
    parties.keys.write_text(content.replace(tomorrow, f'"expires": "{PAST.isoformat()}",'))
    if case == "revoked":
        revoke_key(parties.keys, key.split("_")[1])
    shown = {
        "malformed: no scheme": key,
        "malformed: an unknown scheme": f"Basic {key}",
        "malformed: another scheme": f"Bearer {key}",
        "malformed: empty": "",
        "malformed: too short": f"ApiKey {key[:-1]}",
        "malformed: too long": f"ApiKey {key}0",
        "unknown id": f"ApiKey aai_000000000000_{body}",
        "unknown secret": f"ApiKey {head}_{secret('0' * 63 + '1')}",
        "expired": f"ApiKey {expired}",
        "revoked": f"ApiKey {key}",
        "not permitted": f"ApiKey {idle}",
        "right": f"ApiKey {key}",
    }
    return (authorization(shown[case]) if case in shown else ()), None


def token_case(case: str, parties: Parties) -> Shown:
    issuer = parties.issuer
    good = issuer.token()
    past: dict[str, Any] = {"exp": PAST.timestamp()}
    if case.startswith("revoked"):
        issuer.jwks = issuer.jwks.replace(b'"k1"', b'"k2"')
    shown = {
        "malformed: no scheme": good,
        "malformed: two parts": f"Bearer {good.rpartition('.')[0]}",
        "malformed: no JSON": "Bearer e30.bm8.c2ln",
        "unknown key": f"Bearer {issuer.token(header={'kid': 'k9'})}",
        "unknown issuer": f"Bearer {issuer.token(iss='https://elsewhere.example')}",
        "wrong signature": f"Bearer {_forged(issuer)}",
        "expired": f"Bearer {issuer.token(**past)}",
        "expired, with a wrong signature": f"Bearer {_forged(issuer, **past)}",
        "expired, for another audience": f"Bearer {issuer.token(**past, aud='another')}",
        "revoked: its key is no longer published": f"Bearer {good}",
        "wrong audience": f"Bearer {issuer.token(aud='another')}",
        "wrong algorithm: none": f"Bearer {issuer.token(header={'alg': 'none'})}",
        "wrong algorithm: symmetric": f"Bearer {issuer.token(header={'alg': 'HS256'})}",
        "not permitted": f"Bearer {issuer.token(permissions=[])}",
        "right": f"Bearer {good}",
    }
    return (authorization(shown[case]) if case in shown else ()), None


def _forged(issuer: Issuer, **changes: Any) -> str:
    """A token that says something else than what was signed."""
    signature = issuer.token(**changes).rpartition(".")[2]
    return f"{issuer.token(sub='another', **changes).rpartition('.')[0]}.{signature}"


def agenta_case(case: str, parties: Parties) -> Shown:
    key = parties.trust("ApiKey agenta-key-0123456789", "edit_workflows")
    idle = parties.trust("Bearer agenta-idle-0123456789")
    if case == "revoked":
        parties.standin.permissions.callers = {}
    projects = {"wrong audience: another's project": ELSEWHERE, "right, in its project": Caller().project_id}
    shown = {
        "malformed: no scheme": key.removeprefix("ApiKey "),
        "malformed: an unknown scheme": key.replace("ApiKey", "Basic"),
        "malformed: empty": "ApiKey ",
        "unknown": f"ApiKey {secret('agenta-unknown-0123456789')}",
        "revoked": key,
        "wrong audience: another's project": key,
        "not permitted": idle,
        "right": key,
        "right, in its project": key,
    }
    return (authorization(shown[case], project=projects.get(case, "")) if case in shown else ()), None


def certificate_case(case: str, parties: Parties) -> Shown:
    authority = parties.authority
    parties.know(SPIFFE, "edit_workflows")
    parties.know("batch.internal", "edit_workflows")
    parties.know("idle.internal")
    if case == "revoked":
        parties.forget()
    shown: dict[str, Callable[[], Pair | None]] = {
        "none": lambda: None,
        "malformed: made by itself": lambda: Authority().issue(uri(SPIFFE)),
        "unknown name": lambda: authority.issue(uri("spiffe://agenta.ai/ns/prod/sa/other"), dns("other.internal")),
        "no name": authority.issue,
        "expired": lambda: authority.issue(uri(SPIFFE), lifetime=-timedelta(hours=1)),
        "revoked": lambda: authority.issue(uri(SPIFFE)),
        "wrong audience: a server's": lambda: authority.issue(uri(SPIFFE), usage=ExtendedKeyUsageOID.SERVER_AUTH),
        "not permitted": lambda: authority.issue(dns("idle.internal")),
        "right: a URI": lambda: authority.issue(uri(SPIFFE)),
        "right: a DNS name": lambda: authority.issue(dns("batch.internal")),
    }
    return (), shown[case]()


CASES = {"api_keys": key_case, "jwt": token_case, "agenta": agenta_case, "mtls": certificate_case}


@asynccontextmanager
async def prepared(adapter: str, case: str, parties: Parties, reflection: str = "on") -> AsyncIterator[Shown]:
    shown = CASES[adapter](case, parties)
    async with parties.serving(adapter, AGENTA_AI_GRPC_REFLECTION=reflection):
        yield shown


@pytest.mark.parametrize(("adapter", "case", "expected"), MATRIX, ids=[f"{row[0]}-{row[1]}" for row in MATRIX])
async def test_matrix(adapter: str, case: str, expected: tuple[Kind, ...], parties: Parties) -> None:
    async with prepared(adapter, case, parties) as (metadata, pair):
        outcomes = await parties.ask(metadata, pair)
    status, listed, called = expected
    assert {rpc: outcome.kind for rpc, outcome in outcomes.items()} == {
        "Status": status,
        "ListTools": listed,
        "CallTool": called,
        "CallToolStream": called,
        "Health": NO_CONNECTION if expected is NO_HANDSHAKE else OK,
        "Reflection": NO_CONNECTION if expected is NO_HANDSHAKE else OK,
    }
    # Test cases are run with the caller's own models, which only a credential of Agenta's has.
    tools = {REFINE, *([WITH_CASES] if adapter == "agenta" else [])} if called == OK else set()
    assert outcomes["Status"].tools == outcomes["ListTools"].tools == tools
    # Nothing that an attacker could tell a key that exists from one that doesn't by: neither here nor in any other row.
    if expected is REFUSED:
        refused = [outcome for outcome in outcomes.values() if outcome.kind == INVALID]
        (found,) = fingerprints(refused)
        assert found == BASELINE
    assert parties.standin.started == 2 * (called == OK), "who is refused must not reach Agenta"


# What a caller without credentials reads. Every row that is refused must read the same, to the letter.
BASELINE = repr(
    (
        INVALID,
        repr(
            (
                "The credentials are missing or not valid: send one authorization header, 'ApiKey <key>' or "
                "'Bearer <token>'.",
                {"ErrorInfo": {"reason": "ERROR_REASON_CREDENTIALS_INVALID", "domain": "agenta.ai"}},
                ({}, {}),
                {},
            )
        ),
    )
)


@pytest.mark.parametrize("adapter", CASES)
@pytest.mark.parametrize("setting", ["on", "off"])
async def test_reflection_and_health_by_their_setting(adapter: str, setting: str, parties: Parties) -> None:
    case = "unknown name" if adapter == "mtls" else "none"
    async with prepared(adapter, case, parties, setting) as (metadata, pair):
        reflected = await parties.call(metadata, pair, rpc="Reflection")
        health = await parties.call(metadata, pair, rpc="Health")
    assert reflected.kind == (OK if setting == "on" else (StatusCode.UNIMPLEMENTED, ""))
    assert health.kind == OK


@pytest.mark.parametrize("mode", ["api_keys", "jwt", "agenta"])
async def test_health_over_tls_needs_no_credential(mode: str, parties: Parties) -> None:
    async with parties.serving(mode, tls=True):
        outcomes = await parties.ask()
    assert outcomes["Health"].kind == OK
    assert outcomes["Status"].kind == INVALID


# All four at once: each credential goes to the one adapter of its form, and what that one says is final.
TOGETHER: list[tuple[str, Kind, str, int]] = [
    ("an API key", OK, "api_key", 0),
    ("a wrong API key", INVALID, "", 0),
    ("an API key as a bearer token", INVALID, "", 0),
    ("a token", OK, "jwt", 0),
    ("a token with a wrong signature", INVALID, "", 0),
    ("a token that has expired", EXPIRED, "", 0),
    ("another issuer's token", INVALID, "", 1),
    ("a key of Agenta's", OK, "agenta", 1),
    ("an unknown key of Agenta's", INVALID, "", 1),
    ("an unknown scheme", INVALID, "", 0),
    ("an empty authorization", INVALID, "", 0),
    ("nothing but the certificate", OK, "mtls", 0),
]


@pytest.mark.usefixtures("whoami")
@pytest.mark.parametrize(("case", "kind", "method", "checks"), TOGETHER, ids=[row[0] for row in TOGETHER])
async def test_a_failure_never_falls_through(case: str, kind: Kind, method: str, checks: int, parties: Parties) -> None:
    key = parties.key("edit_workflows")
    known = parties.trust("ApiKey agenta-key-0123456789", "edit_workflows")
    parties.know(SPIFFE, "edit_workflows")
    issuer = parties.issuer
    shown = {
        "an API key": f"ApiKey {key}",
        "a wrong API key": f"ApiKey {key[:-4]}0000",
        "an API key as a bearer token": f"Bearer {key}",
        "a token": f"Bearer {issuer.token()}",
        "a token with a wrong signature": f"Bearer {_forged(issuer)}",
        "a token that has expired": f"Bearer {issuer.token(exp=1)}",
        "another issuer's token": f"Bearer {issuer.token(iss='https://elsewhere.example')}",
        "a key of Agenta's": known,
        "an unknown key of Agenta's": "ApiKey agenta-unknown-0123456789",
        "an unknown scheme": "Basic dTpw",
        "an empty authorization": "",
    }
    metadata = authorization(shown[case]) if case in shown else ()
    # With a certificate that would be good enough by itself.
    pair = parties.authority.issue(uri(SPIFFE))
    async with parties.serving("mtls", "agenta", "jwt", "api_keys"):
        outcome = await parties.call(metadata, pair, name=WHOAMI)
    assert outcome.kind == kind
    assert outcome.answer.get("method", "") == method
    assert parties.standin.permissions.started == checks


@pytest.mark.parametrize("mode", ["agenta", "jwt"])
async def test_a_key_of_ours_is_shown_to_nobody_else(mode: str, parties: Parties) -> None:
    key = parties.key("edit_workflows")
    parties.trust(f"ApiKey {key}", "edit_workflows")
    async with parties.serving(mode):
        for scheme in ("ApiKey", "Bearer", "Secret"):
            assert (await parties.call(authorization(f"{scheme} {key}"))).kind == INVALID
    assert parties.standin.permissions.started == 0


async def test_an_issuer_without_keys_lets_nobody_in(parties: Parties) -> None:
    parties.issuer.jwks = b"no keys"
    async with parties.serving("jwt"):
        outcome = await parties.call(parties.issuer.bearer())
    assert outcome.kind == UNAVAILABLE
    assert "RetryInfo" in outcome.details


CAPTURES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "data/permission_captures.json").read_text())
# What a recorded answer of Agenta means to a caller; who was asked about in vain is refused, whatever else is said.
MEANING: dict[int, Kind] = {200: OK, 401: INVALID, 403: DENIED, 422: UNAVAILABLE}


@pytest.mark.usefixtures("whoami")
async def test_who_is_not_allowed_gets_the_answer_of_those_without_permission(
    parties: Parties, caplog: pytest.LogCaptureFixture
) -> None:
    shown = authorization("ApiKey agenta-key-0123456789")
    parties.standin.permissions.callers = {"ApiKey agenta-key-0123456789": Caller()}
    outcomes = []
    for allowed in ("00000000-0000-0000-0000-0000000000aa", Caller().organization_id):
        async with parties.serving("agenta", AGENTA_AI_GRPC_AGENTA_ALLOW=allowed):
            outcomes.append(await parties.call(shown, name=WHOAMI))
    outside, inside = outcomes
    assert (outside.kind, inside.kind) == (DENIED, OK)
    parties.standin.permissions.callers = {"ApiKey agenta-key-0123456789": Caller(actions=frozenset())}
    async with parties.serving("agenta"):
        powerless = await parties.call(shown, name=WHOAMI)
    assert (powerless.kind, powerless.text) == (outside.kind, outside.text)
    audited = [record for record in caplog.records if record.name == "agenta_ai_server.audit"]
    told = [getattr(record, FIELDS) for record in audited]
    assert [(each["user"], each["organization"]) for each in told] == [
        (Caller().user_id, Caller().organization_id),  # known to Agenta, and not allowed
        ("", ""),
    ]


@pytest.mark.usefixtures("whoami")
@pytest.mark.parametrize("capture", CAPTURES, ids=[capture["case"] for capture in CAPTURES])
async def test_recorded_answers_of_agenta(capture: dict[str, Any], parties: Parties) -> None:
    body = capture["body"]
    if "credentials" in body:
        body = body | {"credentials": Caller().credentials}
    parties.standin.permissions.respond = in_turn(answers.of_json(capture["status"], body))
    async with parties.serving("agenta"):
        outcome = await parties.call(authorization("ApiKey agenta-key-0123456789"), name=WHOAMI)
    assert outcome.kind == MEANING[capture["status"]]
    if outcome.kind == OK:
        assert outcome.answer["user"] == Caller().user_id
        assert outcome.answer["project"] == Caller().project_id
    said = body.get("credentials", "Secret nothing").removeprefix("Secret ")
    assert said not in outcome.everything
