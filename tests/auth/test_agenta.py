from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import ssl
import traceback
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
import yarl

from agenta_ai_server.auth.agenta import AgentaAuthConfig, AgentaAuthenticator
from agenta_ai_server.auth.authenticator import Credentials, invalid
from agenta_ai_server.domain.call import Principal
from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.standin import answers
from agenta_ai_server.standin.answers import CannedResponse
from agenta_ai_server.standin.app import StandIn, in_turn
from agenta_ai_server.standin.faults import Fault
from agenta_ai_server.standin.permissions import OLDER_PATH, PATH, Caller

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from agenta_ai_server.standin.received import Received

    Make = Callable[..., AgentaAuthenticator]

CAPTURES: list[dict[str, Any]] = json.loads((Path(__file__).parents[1] / "data/permission_captures.json").read_text())
SECRET = "standin-key"
GOOD = Credentials("ApiKey", SECRET, host="10.0.0.1")
EDIT = frozenset({"edit_workflows"})
ALL = frozenset({"*"})
NO_TIME_OUT = 3600.0
BOTH = frozenset({"edit_workflows", "run_ai_services"})
RUN = {"run_ai_services": "run_service"}
CALLER = Caller()
OWNER = Principal(
    user=CALLER.user_id,
    project=CALLER.project_id,
    workspace=CALLER.workspace_id,
    organization=CALLER.organization_id,
    permissions=EDIT,
    method="agenta",
)
NOBODY = Principal(user="", method="agenta")


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make(standin: StandIn, clock: Clock) -> AsyncIterator[Make]:
    made: list[AgentaAuthenticator] = []

    def make(**settings: Any) -> AgentaAuthenticator:
        config = AgentaAuthConfig(**{"api_url": standin.url, "permissions": EDIT, "allow": ALL} | settings)
        made.append(AgentaAuthenticator(config, clock=clock))
        return made[-1]

    yield make
    for authenticator in made:
        await authenticator.aclose()


async def refused(authenticator: AgentaAuthenticator, credentials: Credentials = GOOD) -> Refused:
    with pytest.raises(Refused) as caught:
        await authenticator.authenticate(credentials)
    error = caught.value
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(credentials)
    assert not credentials.secret or credentials.secret not in shown
    assert "http" not in error.message
    assert error.message.endswith(".")
    return error


async def unavailable(authenticator: AgentaAuthenticator, credentials: Credentials = GOOD) -> Refused:
    error = await refused(authenticator, credentials)
    assert error.reason is Reason.AUTHORITY_UNAVAILABLE
    assert error.retry_delay == 1
    return error


async def unknown(authenticator: AgentaAuthenticator, credentials: Credentials = GOOD) -> None:
    error = await refused(authenticator, credentials)
    assert (error.reason, error.message) == (Reason.CREDENTIALS_INVALID, invalid().message)


def allowing(claims: object, effect: object = "allow", scheme: str = "Secret ", **more: object) -> CannedResponse:
    payload = claims if isinstance(claims, str) else json.dumps(claims)
    parts = [base64.urlsafe_b64encode(part.encode()).rstrip(b"=").decode() for part in ('{"alg":"HS256"}', payload)]
    credentials = f"{scheme}{parts[0]}.{parts[1]}.c2ln"
    return answers.of_json(200, {"effect": effect, "credentials": credentials, **more})


def project(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012}"


# What is asked, and what is made of the answer.


async def test_other_tools_may_need_other_permissions(standin: StandIn, make: Make) -> None:
    authenticator, both = make(), EDIT | {"run_service"}
    assert (await authenticator.authenticate(GOOD)).permissions == EDIT
    authenticator.ask_about(EDIT)
    await authenticator.authenticate(GOOD)
    assert standin.permissions.started == 1, "nothing has changed"
    authenticator.ask_about(both)
    assert (await authenticator.authenticate(GOOD)).permissions == both
    assert standin.permissions.started == 3


async def test_an_answer_about_permissions_of_earlier_tools_isnt_kept(standin: StandIn, make: Make) -> None:
    authenticator, other = make(), frozenset({"run_service"})
    is_asked, may_answer = asyncio.Event(), asyncio.Event()

    async def respond(_: Received) -> None:
        is_asked.set()
        await may_answer.wait()

    standin.permissions.respond = respond
    earlier = asyncio.create_task(authenticator.authenticate(GOOD))
    await is_asked.wait()
    authenticator.ask_about(other)
    later = asyncio.create_task(authenticator.authenticate(GOOD))
    await asyncio.sleep(0)
    may_answer.set()
    assert (await earlier).permissions == EDIT
    assert (await later).permissions == other
    assert (await authenticator.authenticate(GOOD)).permissions == other


@pytest.mark.parametrize(
    ("credentials", "accepted"),
    [
        (Credentials("ApiKey", "abc.def"), True),
        (Credentials("Bearer", "abc"), True),
        (Credentials("Secret", "abc"), True),
        (Credentials("apikey", "abc"), False),
        (Credentials("Basic", "abc"), False),
        (Credentials("ApiKey", "aai_id_secret"), False),
        (Credentials("Bearer", "aai_id_secret"), False),
        (Credentials("ApiKey", "xaai_0id_" + "0" * 64), False),
        (Credentials("Bearer", "ApiKey:aai_0id_" + "0" * 64), False),
        (Credentials("Secret", "xaai_0id_" + "0" * 40), False),
        (Credentials("Bearer", "eyJ.by_chance_aai_0.x"), True),
        (Credentials(), False),
    ],
)
async def test_accepts(credentials: Credentials, accepted: bool, standin: StandIn, make: Make) -> None:
    authenticator = make()
    assert authenticator.accepts(credentials) is accepted
    if not accepted:
        await unknown(authenticator, credentials)
        assert standin.permissions.started == 0


@pytest.mark.parametrize("secret", ["", "two words", "line\r\nend", "ümlaut", "a" * 8193])
async def test_what_cannot_be_a_credential_is_not_sent(secret: str, standin: StandIn, make: Make) -> None:
    await unknown(make(), Credentials("ApiKey", secret))
    assert standin.permissions.started == 0


async def test_asks_with_the_callers_own_credential(standin: StandIn, make: Make) -> None:
    assert await make(names={"edit_workflows": "run_service"}).authenticate(GOOD) == OWNER
    received = standin.requests[0]
    assert received.method == "GET"
    assert received.path == f"{PATH}?action=run_service&resource_type=service"
    assert "cookie" not in received.headers


@pytest.mark.parametrize("ending", ["", "/", "/api", "/api/", "/services", "/services/", "//"])
async def test_spellings_of_the_url(ending: str, standin: StandIn, make: Make) -> None:
    assert await make(api_url=standin.url + ending).authenticate(GOOD) == OWNER


@pytest.mark.parametrize("capture", CAPTURES, ids=[capture["case"] for capture in CAPTURES])
async def test_recorded_answers(capture: dict[str, Any], standin: StandIn, make: Make) -> None:
    body = json.loads(json.dumps(capture["body"]).replace("Secret <jwt>", CALLER.credentials))
    standin.permissions.respond = in_turn(answers.of_json(capture["status"], body))
    authenticator = make()
    match capture["status"]:
        case 200:
            assert await authenticator.authenticate(GOOD) == OWNER
        case 403:
            assert await authenticator.authenticate(GOOD) == NOBODY
        case 401:
            await unknown(authenticator)
        case 422:
            await unavailable(authenticator)


async def test_asks_once_for_each_permission_at_the_same_time(standin: StandIn, make: Make) -> None:
    gate = asyncio.Event()

    async def respond(_: Received) -> None:
        await gate.wait()

    standin.permissions.respond = respond
    call = asyncio.create_task(make(permissions=BOTH, names=RUN).authenticate(GOOD))
    await standin.when(lambda: standin.permissions.in_flight == 2)
    gate.set()
    assert (await call).permissions == BOTH
    actions = {yarl.URL(received.path).query["action"] for received in standin.requests}
    assert actions == {"edit_workflows", "run_service"}


async def test_some_permissions(standin: StandIn, make: Make) -> None:
    standin.permissions.callers = {f"ApiKey {SECRET}": Caller(actions=EDIT)}
    assert await make(permissions=BOTH, names=RUN).authenticate(GOOD) == OWNER


async def test_no_permission_is_a_caller_without_ids(standin: StandIn, make: Make) -> None:
    standin.permissions.callers = {f"ApiKey {SECRET}": Caller(actions=frozenset())}
    assert await make(permissions=BOTH, names=RUN).authenticate(GOOD) == NOBODY
    assert not NOBODY.may("edit_workflows")


async def test_a_project(standin: StandIn, make: Make) -> None:
    authenticator = make()
    for project in (CALLER.project_id, CALLER.project_id.upper(), CALLER.project_id.replace("-", "")):
        assert await authenticator.authenticate(Credentials("ApiKey", SECRET, project)) == OWNER
    assert standin.permissions.started == 1
    query = yarl.URL(standin.requests[0].path).query
    assert (query["scope_type"], query["scope_id"]) == ("project", CALLER.project_id)
    other = Credentials("ApiKey", SECRET, "00000000-0000-0000-0000-0000000000aa")
    assert await authenticator.authenticate(other) == NOBODY
    assert await authenticator.authenticate(GOOD) == OWNER
    assert standin.permissions.started == 3


OTHER = "00000000-0000-0000-0000-0000000000aa"


@pytest.mark.parametrize(
    ("allow", "admitted"),
    [
        ({CALLER.organization_id}, True),
        ({CALLER.workspace_id}, True),
        ({OTHER, CALLER.project_id}, True),
        ({"*"}, True),
        ({OTHER}, False),
        ({CALLER.user_id}, False),
    ],
)
async def test_tenancy(allow: set[str], admitted: bool, standin: StandIn, make: Make) -> None:
    authenticator = make(allow=frozenset(allow))
    for _ in range(2):
        caller = await authenticator.authenticate(GOOD)
        assert caller == (OWNER if admitted else replace(OWNER, permissions=frozenset()))
    assert standin.permissions.started == 1


async def test_a_caller_without_ids_is_admitted_to_nothing(standin: StandIn, make: Make) -> None:
    standin.permissions.respond = in_turn(allowing({"user_id": "u"}))
    caller = await make(allow=frozenset({OTHER})).authenticate(GOOD)
    assert (caller.user, caller.permissions) == ("u", frozenset())


async def test_outsiders_do_not_push_out_consents(standin: StandIn, make: Make) -> None:
    standin.permissions.callers = {f"ApiKey {SECRET}": Caller(organization_id=OTHER)} | {
        f"ApiKey k{number}": Caller() for number in range(20)
    }
    authenticator = make(allow=frozenset({OTHER}), max_entries=10)
    assert (await authenticator.authenticate(GOOD)).permissions == EDIT
    for number in range(20):
        await authenticator.authenticate(Credentials("ApiKey", f"k{number}", host=f"10.0.0.{number}"))
    asked = standin.permissions.started
    await authenticator.authenticate(GOOD)
    assert standin.permissions.started == asked


# The route before v0.103.0.


async def test_an_older_agenta_is_asked_on_its_own_route(standin: StandIn, make: Make) -> None:
    standin.lacks = frozenset({PATH})
    standin.permissions.callers = {f"ApiKey {secret}": Caller() for secret in (SECRET, "k0", "k1")}
    authenticator = make()
    for secret in (SECRET, "k0", "k1"):
        assert await authenticator.authenticate(Credentials("ApiKey", secret)) == OWNER
    assert paths(standin) == [PATH, OLDER_PATH, OLDER_PATH, OLDER_PATH]


async def test_an_older_agenta_is_found_out_while_another_question_runs(make: Make) -> None:
    found_out = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"ApiKey late" in head:
            await found_out.wait()
        status, body = (b"200", allowing(CLAIMS).body) if OLDER_PATH.encode() in head else (b"404", b"")
        writer.write(b"HTTP/1.1 %s X\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        authenticator = make(api_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        late = asyncio.create_task(authenticator.authenticate(Credentials("ApiKey", "late")))
        await asyncio.sleep(0)
        assert (await authenticator.authenticate(GOOD)).user == "u"
        found_out.set()
        assert (await late).user == "u"


async def test_an_update_of_agenta_is_noticed(standin: StandIn, make: Make) -> None:
    standin.lacks = frozenset({PATH})
    authenticator = make(allow_seconds=0)
    await authenticator.authenticate(GOOD)
    standin.lacks = frozenset({OLDER_PATH})
    for _ in range(2):
        assert await authenticator.authenticate(GOOD) == OWNER
    assert paths(standin)[2:] == [OLDER_PATH, PATH, PATH]


async def test_where_there_is_no_route_nobody_is_admitted(standin: StandIn, make: Make) -> None:
    standin.lacks = frozenset({PATH, OLDER_PATH})
    await unavailable(make())


def paths(standin: StandIn) -> list[str]:
    return [received.path.partition("?")[0] for received in standin.requests]


@pytest.mark.parametrize("project", ["x", "../..", CALLER.project_id + "&action=x", "' OR 1=1"])
async def test_a_project_that_is_none(project: str, standin: StandIn, make: Make) -> None:
    error = await refused(make(), Credentials("ApiKey", SECRET, project))
    assert error.reason is Reason.REQUEST_INVALID
    assert error.violations[0].field == "x-agenta-project-id"
    assert standin.permissions.started == 0


# Fail closed.

CLAIMS = {"user_id": "u", "project_id": "p", "workspace_id": "w", "organization_id": "o"}
UNUSABLE: dict[str, CannedResponse | Fault] = {
    "garbage": Fault(garbage=True),
    "reset": Fault(reset="headers"),
    "close within the body": Fault(close="body"),
    "half of the body": Fault(body="broken"),
    "no body": Fault(body="empty"),
    "a page": Fault(body="html"),
    "too large": Fault(huge=2),
    "too many values": allowing(CLAIMS, more=[[]] * 10_000),
    "too slow": Fault(delay=5),
    "stalled": Fault(stall="body"),
    "dripping": Fault(drip=0.05),
    **{str(status): Fault(status=status) for status in (302, 307, 400, 404, 418, 422, 429, 500, 502, 503)},
    "200 that denies": allowing(CLAIMS, effect="deny"),
    "200 without an effect": answers.of_json(200, {}),
    "200 that is a list": answers.of_json(200, []),
    "200 without credentials": answers.of_json(200, {"effect": "allow"}),
    "credentials that are no text": answers.of_json(200, {"effect": "allow", "credentials": {"user_id": "u"}}),
    "credentials of another scheme": allowing(CLAIMS, scheme="Bearer "),
    "credentials without a scheme": allowing(CLAIMS, scheme=""),
    "credentials that are no token": answers.of_json(200, {"effect": "allow", "credentials": "Secret abc"}),
    "a huge token": allowing(CLAIMS | {"filler": "x" * 9000}),
    "no claims": allowing([]),
    "no user": allowing({}),
    "an empty user": allowing(CLAIMS | {"user_id": ""}),
    "a number for a user": allowing(CLAIMS | {"user_id": 7}),
    "an object for a project": allowing(CLAIMS | {"project_id": {}}),
    "a long organization": allowing(CLAIMS | {"organization_id": "o" * 257}),
    "a user with a line end": allowing(CLAIMS | {"user_id": "u\nroot"}),
    "two users in one": allowing('{"user_id": "u", "user_id": "root"}'),
    "201": CannedResponse(201, body=allowing(CLAIMS).body),
    "compressed": CannedResponse(200, {"content-encoding": "gzip"}, allowing(CLAIMS).body[:10]),
}


@pytest.mark.parametrize("case", UNUSABLE)
async def test_fails_closed(
    case: str, standin: StandIn, make: Make, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def respond(_: Received) -> CannedResponse | Fault:
        return UNUSABLE[case]

    standin.permissions.respond = respond
    # Only those that never finish are meant to exceed the time-out, however busy the machine is.
    endless = case in ("too slow", "stalled", "dripping")
    authenticator = make(timeout=1 if endless else NO_TIME_OUT)
    await unavailable(authenticator)
    # It isn't remembered for longer than callers are told to wait, and nothing was asked elsewhere.
    standin.permissions.respond = None
    clock.time += 1
    assert await authenticator.authenticate(GOOD) == OWNER
    assert set(paths(standin)) == ({PATH, OLDER_PATH} if case == "404" else {PATH})
    assert SECRET not in caplog.text
    assert [record.levelname for record in caplog.records if record.name.startswith("agenta")] == ["WARNING", "INFO"]


async def test_agenta_is_down(standin: StandIn, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    authenticator = make()
    assert await authenticator.authenticate(GOOD) == OWNER
    await standin.stop()
    assert await authenticator.authenticate(GOOD) == OWNER
    for number in range(20):
        await unavailable(authenticator, Credentials("ApiKey", f"other{number}"))
    assert len(caplog.records) == 1


async def test_another_project_than_was_asked_for(standin: StandIn, make: Make) -> None:
    standin.permissions.respond = in_turn(allowing(CLAIMS))
    await unavailable(make(), Credentials("ApiKey", SECRET, CALLER.project_id))


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        ((answers.failure(401), None), Reason.CREDENTIALS_INVALID),
        ((None, answers.failure(401)), Reason.CREDENTIALS_INVALID),
        ((answers.failure(403), answers.failure(401)), Reason.CREDENTIALS_INVALID),
        ((answers.failure(500), answers.failure(401)), Reason.CREDENTIALS_INVALID),
        ((answers.failure(500), None), Reason.AUTHORITY_UNAVAILABLE),
        ((answers.failure(403), answers.failure(500)), Reason.AUTHORITY_UNAVAILABLE),
        ((allowing(CLAIMS), allowing(CLAIMS | {"user_id": "v"})), Reason.AUTHORITY_UNAVAILABLE),
        ((allowing(CLAIMS), allowing(CLAIMS | {"organization_id": None})), Reason.AUTHORITY_UNAVAILABLE),
    ],
)
async def test_answers_that_contradict_each_other(replies: Any, reason: Reason, standin: StandIn, make: Make) -> None:
    standin.permissions.respond = in_turn(*replies)
    assert (await refused(make(permissions=BOTH, names=RUN))).reason is reason


async def test_a_certificate_that_nobody_trusts(standin: StandIn, make: Make, tmp_path: Path) -> None:
    authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = allowing(CLAIMS).body
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await unavailable(make(api_url=url))
    assert (await make(api_url=url, ca_file=tmp_path / "ca.pem").authenticate(GOOD)).user == "u"
    server.close()


async def test_a_proxy(standin: StandIn, make: Make) -> None:
    proxied = make(api_url="http://agenta.invalid", proxy=standin.url)
    assert await proxied.authenticate(GOOD) == OWNER
    assert standin.requests[0].headers["host"] == "agenta.invalid"


# What is remembered.


async def test_an_allow_is_used_for_its_time(standin: StandIn, make: Make, clock: Clock) -> None:
    authenticator = make()
    for _ in range(50):
        await authenticator.authenticate(GOOD)
    clock.time += 59.9
    assert await authenticator.authenticate(GOOD) == OWNER
    assert standin.permissions.started == 1
    standin.permissions.callers = {}
    clock.time += 0.1
    await unknown(authenticator)


async def test_the_time_counts_from_the_question(standin: StandIn, make: Make, clock: Clock) -> None:
    async def respond(_: Received) -> None:
        clock.time += 59

    standin.permissions.respond = respond
    authenticator = make()
    await authenticator.authenticate(GOOD)
    clock.time += 1
    await authenticator.authenticate(GOOD)
    assert standin.permissions.started == 2


async def test_an_allow_does_not_outlive_its_time_when_agenta_fails(standin: StandIn, make: Make, clock: Clock) -> None:
    authenticator = make()
    await authenticator.authenticate(GOOD)
    standin.permissions.fault = Fault(status=500)
    clock.time += 60
    await unavailable(authenticator)


@pytest.mark.parametrize("actions", [frozenset(), EDIT, None])
async def test_a_denial_is_used_for_less(
    actions: frozenset[str] | None, standin: StandIn, make: Make, clock: Clock
) -> None:
    callers = {} if actions is None else {f"ApiKey {SECRET}": Caller(actions=actions)}
    standin.permissions.callers = callers
    authenticator = make(permissions=BOTH, names=RUN)

    async def ask() -> frozenset[str] | None:
        try:
            return (await authenticator.authenticate(GOOD)).permissions
        except Refused:
            return None

    assert await ask() == actions
    standin.permissions.callers = {f"ApiKey {SECRET}": Caller()}
    clock.time += 9.9
    assert await ask() == actions
    assert standin.permissions.started == 2
    clock.time += 0.1
    assert await ask() == BOTH


async def test_the_scheme_tells_credentials_apart(standin: StandIn, make: Make) -> None:
    authenticator = make()
    await authenticator.authenticate(GOOD)
    await unknown(authenticator, Credentials("Bearer", SECRET))


async def test_no_more_is_remembered_than_allowed(standin: StandIn, make: Make) -> None:
    standin.permissions.callers = {f"ApiKey k{number}": Caller() for number in range(6)}
    authenticator = make(max_entries=3)
    for number in (0, 1, 2, 0, 3):
        await authenticator.authenticate(Credentials("ApiKey", f"k{number}"))
    assert standin.permissions.started == 4
    # The longest unused was forgotten.
    await authenticator.authenticate(Credentials("ApiKey", "k0"))
    assert standin.permissions.started == 4
    await authenticator.authenticate(Credentials("ApiKey", "k1"))
    assert standin.permissions.started == 5


async def test_refusals_do_not_push_out_consents(standin: StandIn, make: Make) -> None:
    authenticator = make(max_entries=10)
    await authenticator.authenticate(GOOD)
    for number in range(50):
        await unknown(authenticator, Credentials("ApiKey", f"bad{number}", host=f"10.6.6.{number}"))
    assert standin.permissions.started == 51
    # The ten latest are remembered, and no more.
    await unknown(authenticator, Credentials("ApiKey", "bad40", host="10.6.6.40"))
    assert standin.permissions.started == 51
    await unknown(authenticator, Credentials("ApiKey", "bad39", host="10.6.6.39"))
    assert standin.permissions.started == 52
    assert await authenticator.authenticate(GOOD) == OWNER
    assert standin.permissions.started == 52


@pytest.mark.parametrize("allow_seconds", [0, 60])
async def test_a_failure_is_used_for_as_long_as_callers_are_told_to_wait(
    allow_seconds: int, standin: StandIn, make: Make, clock: Clock
) -> None:
    standin.permissions.fault = Fault(status=500)
    authenticator = make(allow_seconds=allow_seconds, deny_seconds=0)
    for _ in range(100):
        await unavailable(authenticator)
        clock.time += 0.05
    assert standin.permissions.started == pytest.approx(5, abs=1)
    standin.permissions.fault = Fault()
    clock.time += 1
    assert await authenticator.authenticate(GOOD) == OWNER


@pytest.mark.parametrize("fault", [Fault(stall="headers"), Fault(reset="headers"), Fault(status=500)])
async def test_a_slow_failure_is_used_for_as_long_as_a_fast_one(
    fault: Fault, standin: StandIn, make: Make, clock: Clock
) -> None:
    async def respond(_: Received) -> Fault:
        clock.time += 5
        return fault

    standin.permissions.respond = respond
    authenticator = make(timeout=0.3 if fault.stall else NO_TIME_OUT)
    asked = 0
    for _ in range(2):
        await unavailable(authenticator)
        assert standin.permissions.started > asked
        asked = standin.permissions.started
        clock.time += 0.9
        await unavailable(authenticator)
        assert standin.permissions.started == asked
        clock.time += 0.1


async def test_the_secret_is_not_kept(make: Make) -> None:
    authenticator = make()
    await authenticator.authenticate(GOOD)
    assert SECRET not in str(vars(authenticator))


# Many callers.


async def test_one_question_for_all_who_wait(standin: StandIn, make: Make) -> None:
    gate = asyncio.Event()

    async def respond(_: Received) -> None:
        await gate.wait()

    standin.permissions.respond = respond
    authenticator = make()
    calls = [asyncio.create_task(authenticator.authenticate(GOOD)) for _ in range(100)]
    await standin.when(lambda: standin.permissions.in_flight == 1)
    # Among them the one that has begun.
    for call in calls[:50]:
        call.cancel()
    await asyncio.wait(calls[:50])
    gate.set()
    assert await asyncio.gather(*calls[50:]) == [OWNER] * 50
    assert all(call.cancelled() for call in calls[:50])
    assert standin.permissions.started == 1


async def test_a_failure_is_shared_by_those_who_wait(standin: StandIn, make: Make) -> None:
    standin.permissions.fault = Fault(delay=0.05, status=500)
    authenticator = make()
    await asyncio.gather(*(unavailable(authenticator) for _ in range(1000)))
    assert standin.permissions.started == 1


@pytest.mark.parametrize(("hosts", "at_once"), [(1, 2), (2, 4), (500, 6)])
async def test_so_many_at_once(hosts: int, at_once: int, standin: StandIn, make: Make) -> None:
    standin.permissions.callers = {f"ApiKey k{number}": Caller() for number in range(500)}
    standin.permissions.fault = Fault(delay=0.005)
    authenticator = make(max_checks=8, timeout=NO_TIME_OUT)
    shown = [Credentials("ApiKey", f"k{number}", host=f"host{number % hosts}") for number in range(500)]
    assert set(await asyncio.gather(*map(authenticator.authenticate, shown))) == {OWNER}
    assert standin.permissions.peak == at_once


async def test_one_address_cannot_take_all_places(standin: StandIn, make: Make) -> None:
    gate = asyncio.Event()

    async def respond(received: Received) -> None:
        if "scope_id" in received.path:
            await gate.wait()

    standin.permissions.respond = respond
    authenticator = make()
    shown = [Credentials("ApiKey", SECRET, project(number), host="10.6.6.6") for number in range(900)]
    flood = [asyncio.create_task(authenticator.authenticate(credentials)) for credentials in shown]
    await standin.when(lambda: standin.permissions.in_flight == 8)
    assert await authenticator.authenticate(GOOD) == OWNER
    assert standin.permissions.peak == 9
    gate.set()
    await asyncio.wait(flood)
    assert standin.permissions.started <= 1 + 10 + 8
    assert all(call.exception() or call.result() == NOBODY for call in flood)


async def test_unknown_credentials_leave_places_to_approved_ones(standin: StandIn, make: Make, clock: Clock) -> None:
    gate = asyncio.Event()

    async def respond(received: Received) -> None:
        if "scope_id" in received.path:
            await gate.wait()

    authenticator = make()
    assert await authenticator.authenticate(GOOD) == OWNER
    standin.permissions.respond = respond
    shown = [Credentials("ApiKey", f"bad{n}", project(n), host=f"host{n}") for n in range(300)]
    flood = [asyncio.create_task(authenticator.authenticate(credentials)) for credentials in shown]
    await standin.when(lambda: standin.permissions.in_flight == 24)
    clock.time += 61
    assert await authenticator.authenticate(GOOD) == OWNER
    assert standin.permissions.peak == 25
    gate.set()
    await asyncio.wait(flood)


async def test_waiting_for_a_place_is_bounded_too(
    standin: StandIn, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    standin.permissions.fault = Fault(stall="headers")
    authenticator = make(max_checks=2, timeout=0.3)
    calls = [unavailable(authenticator, Credentials("ApiKey", f"k{n}", host=f"host{n}")) for n in range(200)]
    # One pair after the other, they would take 30 s.
    async with asyncio.timeout(15):
        errors = await asyncio.gather(*calls)
    assert standin.permissions.peak == 2
    assert sum("too many others are being checked" in error.message for error in errors) >= 190
    # Agenta isn't to blame for those.
    assert caplog.text.count("no answer came in time") == 1


async def test_a_flood_of_unknown_credentials_at_once(standin: StandIn, make: Make, clock: Clock) -> None:
    # The real time that they wait for a place has no bound here, for the buckets refill by the fake clock.
    authenticator = make(timeout=NO_TIME_OUT)
    await authenticator.authenticate(GOOD)
    flood = [refused(authenticator, Credentials("ApiKey", f"bad{n}", host="10.6.6.6")) for n in range(10_000)]
    errors = await asyncio.gather(*flood)
    # Those that were under way when the bucket ran out were asked as well.
    asked = standin.permissions.started - 1
    assert 20 <= asked <= 20 + 8
    assert sum(error.reason is Reason.CREDENTIALS_INVALID for error in errors) == asked
    left = [error for error in errors if error.reason is Reason.AUTHORITY_UNAVAILABLE]
    assert len(left) == 10_000 - asked
    assert left[-1].message.startswith("Too many failed credential checks from this address")
    assert left[-1].retry_delay == pytest.approx(asked - 19)
    # Neither those who are known there nor those who are elsewhere notice.
    assert await authenticator.authenticate(Credentials("ApiKey", SECRET, host="10.6.6.6")) == OWNER
    standin.permissions.callers = {"ApiKey new": Caller()}
    assert await authenticator.authenticate(Credentials("ApiKey", "new", host="10.0.0.2")) == OWNER


async def test_a_flood_of_unknown_credentials_one_by_one(standin: StandIn, make: Make, clock: Clock) -> None:
    authenticator = make()
    good = Credentials("ApiKey", SECRET, host="10.6.6.6")
    await authenticator.authenticate(good)
    for number in range(1000):
        await refused(authenticator, Credentials("ApiKey", f"bad{number}", host="10.6.6.6"))
        clock.time += 0.1
    # 20 at once, and one for each of the 100 seconds.
    assert standin.permissions.started - 1 == pytest.approx(120, abs=1)
    # Who was approved before is checked again meanwhile.
    assert await authenticator.authenticate(good) == OWNER
    assert standin.permissions.started - 2 == pytest.approx(120, abs=1)


async def test_a_flood_of_projects_at_once(standin: StandIn, make: Make, clock: Clock) -> None:
    standin.permissions.callers = {f"ApiKey {secret}": Caller() for secret in (SECRET, "other")}
    authenticator = make(timeout=NO_TIME_OUT)
    await authenticator.authenticate(GOOD)
    shown = [Credentials("ApiKey", SECRET, project(number), host=GOOD.host) for number in range(10_500)]
    outcomes = await asyncio.gather(*map(authenticator.authenticate, shown), return_exceptions=True)
    asked = standin.permissions.started - 1
    assert 10 <= asked <= 10 + 8
    assert outcomes.count(NOBODY) == asked
    left = [error for error in outcomes if isinstance(error, Refused)]
    assert len(left) == 10_500 - asked
    assert {error.reason for error in left} == {Reason.AUTHORITY_UNAVAILABLE}
    assert left[-1].retry_delay == pytest.approx(2 * (asked - 9))
    # Neither the same credential where it is known, nor others at the same address notice.
    assert await authenticator.authenticate(GOOD) == OWNER
    assert standin.permissions.started == asked + 1
    assert await authenticator.authenticate(Credentials("ApiKey", "other", host=GOOD.host)) == OWNER


async def test_a_flood_of_projects_one_by_one(standin: StandIn, make: Make, clock: Clock) -> None:
    standin.permissions.callers = {f"ApiKey {secret}": Caller() for secret in (SECRET, "other")}
    authenticator = make()
    for number in range(1000):
        shown = Credentials("ApiKey", SECRET, project(number), host=f"10.0.{number % 8}.1")
        with contextlib.suppress(Refused):
            assert await authenticator.authenticate(shown) == NOBODY
        clock.time += 0.1
    # 10 at once, and one for each two of the 100 seconds, from however many addresses.
    assert standin.permissions.started == pytest.approx(60, abs=1)
    assert await authenticator.authenticate(Credentials("ApiKey", "other")) == OWNER


async def test_projects_of_many_credentials_spend_what_their_address_has(standin: StandIn, make: Make) -> None:
    standin.permissions.callers = {f"ApiKey k{number}": Caller() for number in range(100)}
    authenticator = make()
    for number in range(100):
        with contextlib.suppress(Refused):
            await authenticator.authenticate(Credentials("ApiKey", f"k{number}", project(number)))
    assert standin.permissions.started == 20


async def test_projects_of_ones_own_do_not_spend(standin: StandIn, make: Make) -> None:
    authenticator = make()
    for number in range(100):
        standin.permissions.callers = {f"ApiKey {SECRET}": Caller(project_id=project(number))}
        assert (await authenticator.authenticate(Credentials("ApiKey", SECRET, project(number)))).user
    assert standin.permissions.started == 100


@pytest.mark.parametrize("status", [302, 422, 500])
async def test_answers_of_no_use_spend(status: int, standin: StandIn, make: Make, clock: Clock) -> None:
    standin.permissions.respond = in_turn(*[Fault(status=status)] * 500)
    authenticator = make()
    for _ in range(300):
        await unavailable(authenticator)
    assert standin.permissions.started == 1
    for number in range(300):
        error = await refused(authenticator, Credentials("ApiKey", f"bad{number}", host=GOOD.host))
        assert error.reason is Reason.AUTHORITY_UNAVAILABLE
    assert standin.permissions.started == 20
    # Nothing of it lasts: as soon as there is something in the bucket, everybody gets through.
    standin.permissions.respond = None
    standin.permissions.callers = {f"ApiKey k{number}": Caller() for number in range(100)}
    clock.time += 1
    for number in range(100):
        assert await authenticator.authenticate(Credentials("ApiKey", f"k{number}", host=GOOD.host)) == OWNER


async def test_no_answer_does_not_spend(standin: StandIn, make: Make, clock: Clock) -> None:
    standin.permissions.fault = Fault(reset="headers")
    authenticator = make()
    for number in range(50):
        await unavailable(authenticator, Credentials("ApiKey", f"k{number}"))
    standin.permissions.fault = Fault()
    assert await authenticator.authenticate(Credentials("ApiKey", SECRET)) == OWNER


async def test_known_credentials_do_not_spend(standin: StandIn, make: Make) -> None:
    standin.permissions.callers = {
        f"ApiKey k{number}": Caller(actions=EDIT if number % 2 else frozenset()) for number in range(100)
    }
    authenticator = make()
    for number in range(100):
        await authenticator.authenticate(Credentials("ApiKey", f"k{number}", host="10.0.0.1"))
    assert standin.permissions.started == 100


@pytest.mark.parametrize(
    ("addresses", "asked"),
    [
        ([f"2001:db8::{number:x}" for number in range(50)], 20),
        ([f"2001:db8:{number:x}::1" for number in range(50)], 50),
        ([f"::ffff:10.0.0.{number}" for number in range(50)], 50),
        ([f"10.0.0.{number}" for number in range(50)], 50),
        ([f"unix:{number % 2}" for number in range(50)], 40),
        (["" for number in range(50)], 20),
        (["fe80::1%eth0" for number in range(50)], 20),
    ],
)
async def test_what_one_address_is(addresses: list[str], asked: int, standin: StandIn, make: Make) -> None:
    authenticator = make()
    for number, address in enumerate(addresses):
        await refused(authenticator, Credentials("ApiKey", f"bad{number}", host=address))
    assert standin.permissions.started == asked


async def test_can_be_closed_while_it_asks(standin: StandIn, make: Make) -> None:
    standin.permissions.fault = Fault(stall="headers")
    authenticator = make()
    call = asyncio.create_task(authenticator.authenticate(GOOD))
    await standin.when(lambda: standin.permissions.in_flight == 1)
    await authenticator.aclose()
    with pytest.raises(asyncio.CancelledError):
        await call
    await unavailable(authenticator)


# The configuration.


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"api_url": "ftp://agenta.example"}, "scheme http or https"),
        ({"api_url": "agenta.example"}, "scheme http or https"),
        ({"api_url": "https://"}, "host"),
        ({"api_url": "https://u:s3cret@agenta.example"}, "credentials"),
        ({"api_url": "https://agenta.example?key=s3cret"}, "query"),
        ({"api_url": "https://agenta.example#s3cret"}, "fragment"),
        ({"api_url": "https://agenta.example/a s3cret"}, "spaces"),
        ({"api_url": "https://[s3cret"}, "is not a URL"),
        ({"permissions": frozenset()}, "name at least one"),
        ({"allow": frozenset()}, "who may call"),
        ({"max_entries": 0}, "bounds"),
        ({"max_checks": 0}, "bounds"),
        ({"futile_burst": 0}, "bounds"),
        ({"futile_per_second": 0}, "bounds"),
    ],
)
def test_configurations_that_cannot_work(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        AgentaAuthConfig(**{"api_url": "https://agenta.example", "permissions": EDIT, "allow": ALL} | changes)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


def test_the_proxy_is_not_shown() -> None:
    config = AgentaAuthConfig(
        api_url="https://agenta.example", permissions=EDIT, allow=ALL, proxy="ftp://u:s3cret@proxy"
    )
    assert "s3cret" not in repr(config)
    with pytest.raises(ValueError, match="the proxy's URL") as caught:
        AgentaAuthenticator(config)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))
