"""What attackers try. Each attempt must end as a refusal, and leave the service as it was."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from auth.parties import (
    DENIED,
    INVALID,
    OK,
    UNAVAILABLE,
    WHOAMI,
    Kind,
    Metadata,
    Parties,
    authorization,
    b64,
    fingerprints,
    secret,
    uri,
)
from conftest import SLOW, SOON
from grpc import StatusCode

from agenta_ai.v1 import tool_service_pb2
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub
from agenta_ai_server import cli
from agenta_ai_server.standin.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator

SPIFFE = "spiffe://agenta.ai/ns/prod/sa/evaluator"
TOO_LARGE = StatusCode.RESOURCE_EXHAUSTED, ""

# Tokens, by what is changed in their header.
HEADERS: list[dict[str, Any]] = [
    {"alg": "none"},
    {"alg": "none", "kid": ""},
    {"alg": "HS256"},
    {"kid": "../../../../dev/null"},
    {"kid": "k1' OR '1'='1"},
    {"kid": "http://127.0.0.1:1/keys.json"},
    {"kid": "k1\x00"},
    {"kid": ["k1"]},
    {"kid": 1},
    {"kid": ""},
    {"kid": "k" * 4000},
    {"jku": "http://127.0.0.1:1/jwks", "kid": "k9"},
    {"jwk": {"kty": "oct", "k": "c2VjcmV0"}, "kid": "k9"},
    {"crit": ["exp"]},
    {"b64": False, "crit": ["b64"]},
]


@pytest.mark.parametrize("header", HEADERS, ids=str)
async def test_tokens(header: dict[str, Any], parties: Parties) -> None:
    async with parties.serving("jwt", "agenta"):
        bad = await parties.call(parties.issuer.bearer(header=header))
        good = await parties.call(parties.issuer.bearer())
    assert (bad.kind, good.kind) == (INVALID, OK)
    assert parties.issuer.fetches == 1, "asked for again within a minute of the start"
    assert parties.standin.permissions.started == 0


def spellings(key: str) -> list[tuple[str, Metadata, Kind]]:
    good = f"ApiKey {key}"
    return [
        ("as it should be", authorization(good), OK),
        ("lower case", authorization(f"apikey {key}"), OK),
        ("upper case", authorization(f"APIKEY {key}"), OK),
        ("two blanks", authorization(f"ApiKey  {key}"), OK),
        ("blank before", authorization(f" {good}"), INVALID),
        ("blank after", authorization(f"{good} "), INVALID),
        ("no blank", authorization(f"ApiKey{key}"), INVALID),
        ("quoted", authorization(f'ApiKey "{key}"'), INVALID),
        ("twice", authorization(good, good), INVALID),
        ("two keys", authorization(good, f"{good[:-4]}0000"), INVALID),
        ("two kinds", authorization(good, "Bearer token"), INVALID),
        ("one of them empty", authorization(good, ""), INVALID),
        ("joined as proxies do", authorization(f"{good}, {good}"), INVALID),
        ("joined without a blank", authorization(f"{good},{good}"), INVALID),
        ("binary", (("authorization-bin", good.encode()),), INVALID),
        ("binary beside a good one", (*authorization(good), ("authorization-bin", b"ApiKey aai_x")), OK),
        ("under another name", (("x-api-key", key), ("api-key", key), ("cookie", f"authorization={good}")), INVALID),
        ("two projects", (*authorization(good, project="a"), ("x-agenta-project-id", "b")), INVALID),
    ]


async def test_spellings(parties: Parties) -> None:
    key = parties.key("edit_workflows")
    async with parties.serving("api_keys", "jwt", "agenta"):
        found = {case: await parties.call(metadata) for case, metadata, _ in spellings(key)}
    assert {case: outcome.kind for case, outcome in found.items()} == {case: kind for case, _, kind in spellings(key)}
    assert len(fingerprints(outcome for outcome in found.values() if outcome.kind == INVALID)) == 1
    assert parties.standin.permissions.started == 0


async def test_a_wrong_credential_spoils_a_good_certificate(parties: Parties) -> None:
    parties.know(SPIFFE, "edit_workflows")
    pair = parties.authority.issue(uri(SPIFFE))
    async with parties.serving("api_keys", "mtls"):
        for shown in ("", "x", "Basic eDp5", "ApiKey agenta-key", "ApiKey aai_000000000000_" + "0" * 64):
            assert (await parties.call(authorization(shown), pair)).kind == INVALID
        assert (await parties.call((), pair)).kind == OK


@pytest.mark.parametrize("size", [8_000, 8_193, 12_000, 17_000, 100_000, 900_000])
async def test_oversized(size: int, parties: Parties) -> None:
    shown = authorization(f"ApiKey {parties.key('edit_workflows')}")
    async with parties.serving("api_keys", "jwt", "agenta", AGENTA_AI_GRPC_AGENTA_AUTH_SECONDS="0"):
        big = await parties.call(authorization(f"Bearer {'x' * size}"))
        many = await parties.call(tuple(("authorization", f"Bearer {'x' * 80}") for _ in range(size // 100)))
        assert (await parties.call(shown)).kind == OK
    # Beyond 8 KiB in all grpc refuses some, and beyond 16 KiB all, before we see them.
    assert big.kind in (INVALID, TOO_LARGE)
    assert many.kind in (INVALID, TOO_LARGE)
    # One that grpc refuses may have been handed over all the same.
    assert parties.standin.permissions.started <= (size < 8_192)
    if size < 8_192 and big.kind == INVALID:
        assert parties.standin.permissions.started == 1


STATUS = b"/agenta.ai.v1.ToolService/Status"
CALL_TOOL = b"/agenta.ai.v1.ToolService/CallTool"

# Bytes that no grpc client sends, which is why they are put on the wire by hand.
BYTES = [
    "ApiKey ä".encode(),
    b"ApiKey \xff\xfe",
    b"ApiKey a\x00b",
    b"ApiKey\ta",
    b"ApiKey a\r\nx-user-id: root",
    b"Bearer \x1b[2J",
    "Bearer \u202eabc".encode(),
]


@pytest.mark.parametrize("value", BYTES)
async def test_bytes_that_are_no_text(value: bytes, parties: Parties) -> None:
    shown = authorization(f"ApiKey {parties.key('edit_workflows')}")
    async with parties.serving("api_keys", "jwt", "agenta"):
        answer = await status_by_hand(parties.address, value)
        assert (await parties.call(shown)).kind == OK
    # grpc refuses what HTTP/2 doesn't allow by itself; what it lets through, we refuse.
    assert b"grpc-status\x0216" in answer or b"RST" in answer or not answer
    assert parties.standin.permissions.started == 0


async def test_what_is_put_on_the_wire_by_hand_is_a_call(parties: Parties) -> None:
    key = parties.key("edit_workflows")
    async with parties.serving("api_keys"):
        assert b"grpc-status\x010" in await status_by_hand(parties.address, f"ApiKey {key}".encode())


# A header that stands in HPACK's table is sent again by one byte, which grpc doesn't count.
REPEATED = b"\xbe"
HEALTH = b"/grpc.health.v1.Health/Check"
REFLECTION = b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"


async def test_metadata_that_is_sent_by_reference_is_counted(parties: Parties) -> None:
    first = _headers(STATUS) + b"\x40" + _hpack(b"x") + _hpack(b"y" * 99)
    async with parties.serving("api_keys"):
        served = await answer_by_hand(parties.address, first, _headers(STATUS) + REPEATED * 100)
        assert b"grpc-status\x0216" in served
        for path in (STATUS, CALL_TOOL, HEALTH, REFLECTION):
            refused = await answer_by_hand(parties.address, first, _headers(path) + REPEATED * 15_000)
            assert b"grpc-status\x018" in refused, path


async def status_by_hand(address: str, value: bytes) -> bytes:
    """Call ``Status`` with this ``authorization``, and return what the server says until the call ends."""
    return await answer_by_hand(address, _headers(STATUS, authorization=value))


async def answer_by_hand(address: str, *blocks: bytes) -> bytes:
    """Make a call with each block of headers on one connection, and return what the server says of the last one."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0))
    last = 2 * len(blocks) - 1
    for stream, block in zip(range(1, last + 1, 2), blocks, strict=True):
        writer.write(_frame(1, 4, stream, block) + _frame(0, 1, stream, bytes(5)))
    answer = b""
    try:
        async with asyncio.timeout(10):
            while True:
                head = await reader.readexactly(9)
                body = await reader.readexactly(int.from_bytes(head[:3]))
                kind, flags, stream = head[3], head[4], int.from_bytes(head[5:])
                answer += body if stream == last else b""
                if kind == 7 or (stream == last and (kind == 3 or flags & 1)):
                    return answer + (b"RST" if kind in (3, 7) else b"")
    except (asyncio.IncompleteReadError, ConnectionError):
        return answer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def _headers(path: bytes, **more: bytes) -> bytes:
    headers = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"localhost",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
        **{name.encode(): value for name, value in more.items()},
    }
    return b"".join(b"\x00" + _hpack(name) + _hpack(content) for name, content in headers.items())


def _frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + body


def _hpack(text: bytes) -> bytes:
    assert len(text) < 127
    return bytes([len(text)]) + text


# Identities that are claimed and not proved.

FORGED: Metadata = (
    ("x-user-id", "root"),
    ("x-agenta-user-id", "root"),
    ("x-agenta-project-id", "01a1fd54-0000-7000-8000-000000000000"),
    ("x-agenta-workspace-id", "01a1fd54-0000-7000-8000-000000000000"),
    ("x-agenta-organization-id", "root"),
    ("x-organization-id", "root"),
    ("x-permissions", "view_ai_services,run_ai_services"),
    ("x-plan", "unlimited"),
    ("x-forwarded-for", "10.0.0.1"),
    ("x-forwarded-user", "root"),
    ("x-forwarded-client-cert", f"By=x;URI={SPIFFE}"),
    ("x-ssl-client-verify", "SUCCESS"),
    ("x-ssl-client-s-dn", "CN=batch.internal"),
    ("forwarded", "for=10.0.0.1"),
    ("peer_uri", SPIFFE),
)


@pytest.mark.usefixtures("whoami")
@pytest.mark.parametrize("adapter", ["api_keys", "jwt", "mtls"])
async def test_forged_identities_change_nothing(adapter: str, parties: Parties) -> None:
    parties.know(SPIFFE, "edit_workflows")
    pair = parties.authority.issue(uri(SPIFFE)) if adapter == "mtls" else None
    shown: Metadata = {
        "api_keys": authorization(f"ApiKey {parties.key('edit_workflows')}"),
        "jwt": parties.issuer.bearer(),
        "mtls": (),
    }[adapter]
    async with parties.serving(adapter):
        plain = await parties.whoami(shown, pair)
        forged = await parties.whoami((*shown, *FORGED), pair)
    assert plain.pop("peer")
    assert forged.pop("peer").startswith("ipv4:127.0.0.1:")
    assert plain == forged
    assert plain["user"] in ("key-user", "token-user", SPIFFE)


async def test_forged_identities_are_no_credentials(parties: Parties) -> None:
    parties.key("edit_workflows")
    async with parties.serving("api_keys", "jwt", "agenta"):
        assert (await parties.call(FORGED)).kind == INVALID


@pytest.mark.usefixtures("whoami")
async def test_a_project_is_asked_of_agenta_and_not_believed(parties: Parties) -> None:
    key = parties.trust("ApiKey agenta-key-0123456789", "edit_workflows")
    async with parties.serving("agenta"):
        own = await parties.whoami(
            (*authorization(key), *(pair for pair in FORGED if pair[0] != "x-agenta-project-id"))
        )
        others = await parties.call((*authorization(key), *FORGED), name=WHOAMI)
        garbage = await parties.call(authorization(key, project="' OR 1=1"), name=WHOAMI)
    assert own["organization"].startswith("01a1fd54-f02a")
    assert others.kind == DENIED
    assert garbage.kind == (StatusCode.INVALID_ARGUMENT, "REQUEST_INVALID")
    assert parties.standin.permissions.started == 2


async def soon_refused(parties: Parties, shown: Metadata) -> None:
    async with asyncio.timeout(SOON):
        while (await parties.call(shown, rpc="Status")).kind == OK:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


# When those who know can't be asked


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=302), Fault(reset="headers")])
async def test_agenta_fails_closed(fault: Fault, parties: Parties) -> None:
    key = parties.trust("ApiKey agenta-key-0123456789", "edit_workflows")
    parties.standin.permissions.fault = fault
    async with parties.serving("agenta"):
        known = await parties.ask(authorization(key))
        unknown = await parties.ask(authorization("ApiKey agenta-unknown"))
    for outcomes in (known, unknown):
        assert [outcomes[rpc].kind for rpc in ("Status", "ListTools", "CallTool")] == [UNAVAILABLE] * 3
    assert known["CallTool"].details["RetryInfo"] == {"retryDelay": "1s"}
    assert len(fingerprints([known["CallTool"], unknown["CallTool"]])) == 1


@pytest.mark.parametrize("words", ["body=broken", "body=empty", "body=html", "body=plain", "garbage", "huge=2"])
async def test_an_answer_of_agenta_that_cannot_be_read_lets_nobody_in(words: str, parties: Parties) -> None:
    key = parties.trust("ApiKey agenta-key-0123456789", "edit_workflows")
    parties.standin.permissions.fault = Fault.parse(words)
    async with parties.serving("agenta"):
        assert (await parties.call(authorization(key))).kind == UNAVAILABLE


async def test_agenta_is_gone(parties: Parties) -> None:
    key = parties.trust("ApiKey agenta-key-0123456789", "edit_workflows")
    async with parties.serving("agenta"):
        await parties.standin.stop()
        assert (await parties.call(authorization(key))).kind == UNAVAILABLE
        assert (await parties.call()).kind == INVALID


async def test_a_consent_is_not_used_past_its_time(parties: Parties) -> None:
    key = parties.trust("ApiKey agenta-key-0123456789", "edit_workflows")
    async with parties.serving("agenta", AGENTA_AI_GRPC_AGENTA_AUTH_SECONDS="2"):
        assert (await parties.call(authorization(key))).kind == OK
        parties.standin.permissions.callers = {}
        await soon_refused(parties, authorization(key))
        parties.standin.permissions.fault = Fault(status=500)
        assert (await parties.call(authorization(key))).kind == INVALID, "a denial is remembered as well"


# Keys that were good


async def test_a_revoked_key_is_soon_refused(parties: Parties) -> None:
    key = parties.key("edit_workflows")
    other = parties.key("edit_workflows")
    async with parties.serving("api_keys"):
        assert (await parties.call(authorization(f"ApiKey {key}"), rpc="Status")).kind == OK
        assert cli.main(["keys", "revoke", "--file", str(parties.keys), key.split("_")[1]]) == 0
        await soon_refused(parties, authorization(f"ApiKey {key}"))
        assert (await parties.call(authorization(f"ApiKey {key}"))).kind == INVALID
        assert (await parties.call(authorization(f"ApiKey {other}"))).kind == OK


async def test_a_revoked_certificate_is_refused_on_the_connection_that_it_has(parties: Parties) -> None:
    parties.know(SPIFFE, "edit_workflows")
    async with parties.serving("mtls"), parties.channel(parties.authority.issue(uri(SPIFFE))) as channel:
        stub: Any = ToolServiceStub(channel)
        await stub.Status(tool_service_pb2.StatusRequest())
        parties.forget()
        async with asyncio.timeout(SOON):
            while await stub.Status(tool_service_pb2.StatusRequest()).code() is StatusCode.OK:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert await stub.Status(tool_service_pb2.StatusRequest()).code() is StatusCode.UNAUTHENTICATED


# A flood


BAD = 10_000 if SLOW else 3_000
PADDING = "p" * 3000


def flood(parties: Parties) -> Iterator[str]:
    """Credentials of all forms, no two of them the same, and long, so that it shows if they are kept."""
    _, claims, signature = parties.issuer.token().split(".")
    for number in range(BAD // 4):
        head = b64(json.dumps({"alg": "RS256", "kid": f"k-{number}-{PADDING}"}).encode())
        yield f"ApiKey aai_{number:012}_{'0' * 64}"
        yield f"ApiKey agenta-{number}-{PADDING}"
        yield f"Bearer {head}.{claims}.{signature}"
        yield f"Bearer opaque-{number}-{PADDING}"


async def test_thousands_of_bad_credentials(parties: Parties, caplog: pytest.LogCaptureFixture) -> None:
    # pytest keeps what is logged, and with it the tokens that it is about.
    caplog.set_level(logging.INFO, "agenta_ai_server")
    own = authorization(f"ApiKey {parties.key('edit_workflows')}")
    known = authorization(parties.trust("ApiKey agenta-key-0123456789", "edit_workflows"))
    process = psutil.Process()
    codes: Counter[StatusCode] = Counter()
    sizes: list[int] = []
    async with parties.serving("api_keys", "jwt", "agenta"), parties.channel() as channel:
        assert (await parties.call(known)).kind == OK
        shown = flood(parties)
        stub: Any = ToolServiceStub(channel)

        async def knock() -> None:
            for credential in shown:
                codes[await code(stub, credential)] += 1
                if codes.total() % (BAD // 10) == 0:
                    sizes.append(process.memory_info().rss)

        started = time.monotonic()
        await asyncio.gather(*(knock() for _ in range(50)))
        seconds = time.monotonic() - started
        after = [(await parties.call(metadata)).kind for metadata in (own, known)]
    assert after == [OK, OK], "who is known is served all the same"
    assert codes.keys() <= {StatusCode.UNAUTHENTICATED, StatusCode.UNAVAILABLE}
    assert codes.total() == BAD
    assert codes[StatusCode.UNAUTHENTICATED] >= BAD // 2
    assert parties.issuer.fetches <= 1 + seconds / 60 + 1
    # A burst of 20, then one a second; 32 may be on their way when the burst is used up.
    assert parties.standin.permissions.started <= 1 + 20 + 32 + seconds
    assert sizes[-1] - sizes[4] < 8 << 20, "half of ten thousand are 12 MB"


async def code(stub: Any, credential: str) -> StatusCode:
    call = stub.Status(tool_service_pb2.StatusRequest(), metadata=authorization(credential))
    found: StatusCode = await call.code()
    return found


async def test_a_flood_of_the_same_credential_is_one_question(parties: Parties) -> None:
    shown = authorization(f"ApiKey {secret('agenta-unknown-0123456789')}")
    gate = asyncio.Event()

    async def wait(_: object) -> None:
        await gate.wait()

    parties.standin.permissions.respond = wait
    async with parties.serving("agenta"), parties.channel() as channel:
        stub: Any = ToolServiceStub(channel)
        calls = [stub.Status(tool_service_pb2.StatusRequest(), metadata=shown) for _ in range(200)]
        codes = asyncio.gather(*(call.code() for call in calls))
        await parties.standin.when(lambda: parties.standin.permissions.in_flight == 1)
        gate.set()
        assert set(await codes) == {StatusCode.UNAUTHENTICATED}
    assert parties.standin.permissions.started == 1
