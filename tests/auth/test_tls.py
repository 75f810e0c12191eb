"""TLS on the listener: real handshakes with real certificates, who is taken for whom, and certificates that change."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64decode, b64encode
from datetime import datetime, timedelta
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from time import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from auth.parties import INVALID, NO_CONNECTION, OK, WHOAMI, Authority, Pair, Parties, authorization, dns, uri
from calls import request, structured
from conftest import SOON
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from agenta_ai.v1 import tool_service_pb2
from agenta_ai.v1.tool_service_pb2_grpc import ToolServiceStub
from agenta_ai_server.commands import serve
from agenta_ai_server.files.contents import BYTE_ORDER_MARK
from agenta_ai_server.files.reloading import ReloadingFiles
from agenta_ai_server.rpc import peer_identity, tls
from agenta_ai_server.rpc.tls import read_authorities, read_certificates, read_key
from agenta_ai_server.settings import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

SPIFFE = "spiffe://agenta.ai/ns/prod/sa/evaluator"
KEPT = "the last valid version stays in effect"


# Who is taken for whom

KNOWN = ((dns, "batch.internal"), (uri, SPIFFE))

NAMES: list[tuple[list[x509.GeneralName], str]] = [
    ([uri(SPIFFE)], SPIFFE),
    ([dns("batch.internal")], "batch.internal"),
    ([dns("BATCH.internal")], "batch.internal"),
    ([uri(SPIFFE), dns("other.internal")], SPIFFE),
    ([dns("other.internal"), dns("batch.internal"), uri("https://elsewhere.example/x")], "batch.internal"),
    # Two that are known and mean different principals.
    ([uri(SPIFFE), dns("batch.internal")], ""),
    # Names of other kinds that read like one that is known; and the common name, which always is "batch.internal".
    ([], ""),
    ([x509.RFC822Name("batch.internal")], ""),
    ([x509.RFC822Name("ada@batch.internal")], ""),
    ([x509.IPAddress(ip_address("10.1.2.3"))], ""),
    ([x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4"))], ""),
    ([x509.DirectoryName(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "batch.internal")]))], ""),
    # One kind that reads like the other, and what isn't quite right.
    ([uri("batch.internal")], ""),
    ([dns("x.batch.internal")], ""),
    ([dns("*.internal")], ""),
    ([uri(SPIFFE.upper())], ""),
    ([uri(SPIFFE + "/x")], ""),
    ([dns("10.1.2.3")], "10.1.2.3"),
    ([dns(SPIFFE)], ""),
    # Names with characters that no name has. grpc itself would cut them at the NUL.
    *(([kind(f"{known}{odd}attacker.test")], "") for odd in "\0\n\t \x7f" for kind, known in KNOWN),
    ([dns("\0batch.internal")], ""),
    ([dns("batch.internal\0")], ""),
    ([dns("")], ""),
    # It doesn't take the right ones with it.
    ([dns("other.internal\0attacker.test"), dns("batch.internal")], "batch.internal"),
]


@pytest.mark.usefixtures("whoami")
@pytest.mark.parametrize(("names", "user"), NAMES, ids=str)
async def test_who_it_is(names: list[x509.GeneralName], user: str, parties: Parties) -> None:
    for known in (SPIFFE, "batch.internal", "10.1.2.3", "ada@batch.internal"):
        parties.know(known, "edit_workflows")
    async with parties.serving("mtls"):
        outcome = await parties.call((), parties.authority.issue(*names), name=WHOAMI)
    assert outcome.kind == (OK if user else INVALID)
    assert outcome.answer.get("user", "") == user
    assert outcome.answer.get("method", "mtls") == "mtls"


@pytest.mark.usefixtures("whoami")
@pytest.mark.parametrize("name", ["batch.internal\0attacker.test", "batch.internal\0.attacker.test"])
async def test_an_authority_for_one_domain_names_nobody_of_another(
    name: str, parties: Parties, caplog: pytest.LogCaptureFixture
) -> None:
    parties.know("batch.internal", "edit_workflows")
    parties.know("a.attacker.test", "edit_workflows")
    constrained = Authority(parties.authority, permitted="attacker.test")
    async with parties.serving("mtls"):
        forged = [await parties.call((), pair, name=WHOAMI) for pair in [constrained.issue(dns(name))] * 3]
        permitted = await parties.call((), constrained.issue(dns("a.attacker.test")), name=WHOAMI)
        plain = await parties.call((), constrained.issue(dns("batch.internal")), name=WHOAMI)
    # Whether the library lets it in at all is its own matter.
    assert {outcome.kind for outcome in forged} <= {INVALID, NO_CONNECTION}
    assert permitted.kind == OK
    assert plain.kind == NO_CONNECTION
    lines = [record for record in caplog.records if "of the client certificate with serial number" in record.message]
    assert len(lines) == (1 if forged[0].kind == INVALID else 0), "once for each certificate"
    assert "attacker" not in caplog.text


async def test_a_certificate_that_has_expired_names_nobody(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    # TLS itself looks at the clock in the handshake only, and not in that of a session that is resumed.
    parties.know(SPIFFE, "edit_workflows")
    pair = parties.authority.issue(uri(SPIFFE), lifetime=timedelta(hours=1))
    begin = time()
    async with parties.serving("mtls"), parties.channel(pair) as channel:
        stub: Any = ToolServiceStub(channel)
        for seconds, code in (
            (0, grpc.StatusCode.OK),
            (3500, grpc.StatusCode.OK),
            (3700, grpc.StatusCode.UNAUTHENTICATED),
        ):
            monkeypatch.setattr(peer_identity, "time", lambda now=begin + seconds: now)
            assert await stub.Status(tool_service_pb2.StatusRequest()).code() is code


async def test_an_authority_of_the_servers_is_not_one_of_the_callers(parties: Parties) -> None:
    # The other way around as well: who trusts the server doesn't thereby let in whom it has signed.
    parties.know(SPIFFE, "edit_workflows")
    elsewhere = Authority()
    async with parties.serving("mtls"):
        assert (await parties.call((), elsewhere.issue(uri(SPIFFE)))).kind == NO_CONNECTION
        assert (await parties.call((), parties.authority.issue(uri(SPIFFE)))).kind == OK
    assert parties.standin.started == 1


async def test_a_listener_with_tls_has_no_plaintext(parties: Parties) -> None:
    key = parties.key("edit_workflows")
    async with parties.serving("api_keys", tls=True), grpc.aio.insecure_channel(parties.address) as channel:
        stub: Any = ToolServiceStub(channel)
        call = stub.CallTool(request({}), metadata=authorization(f"ApiKey {key}"))
        assert await call.code() is grpc.StatusCode.UNAVAILABLE
        assert (await parties.call(authorization(f"ApiKey {key}"))).kind == OK


async def test_a_server_of_another_authority_is_told_nothing(parties: Parties) -> None:
    parties.server = Authority().server()
    async with parties.serving("api_keys", tls=True):
        assert (await parties.call(authorization(f"ApiKey {parties.key('edit_workflows')}"))).kind == NO_CONNECTION


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", ["TLSv1_1", "TLSv1_2", "TLSv1_3"])
async def test_versions(version: str, parties: Parties) -> None:
    async with parties.serving("api_keys", tls=True):
        if version == "TLSv1_1":
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await shown_certificate(parties, version)
        else:
            assert await shown_certificate(parties, version) == der(parties.server)


# Certificates that change


async def test_a_new_certificate_is_used_soon_and_breaks_no_connection(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, whoami: None
) -> None:
    shown = authorization(f"ApiKey {parties.key('edit_workflows')}")
    async with parties.serving("api_keys", tls=True), parties.channel() as channel:
        before = await peer(channel, shown)
        old, new = parties.server, parties.authority.server()
        assert await shown_certificate(parties) == der(old)
        parties.use(new)
        async with asyncio.timeout(SOON):
            while await shown_certificate(parties) == der(old):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert await shown_certificate(parties) == der(new)
        assert await peer(channel, shown) == before, "the connection is another one"
        assert (await parties.call(shown)).kind == OK


async def peer(channel: grpc.aio.Channel, shown: Any) -> Any:
    return structured(await ToolServiceStub(channel).CallTool(request({}, name=WHOAMI), metadata=shown))["peer"]


async def test_renewals_under_load_drop_no_call(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "ReloadingFiles", partial(ReloadingFiles, every=0.0, patience=30.0))
    shown = authorization(f"ApiKey {parties.key('edit_workflows')}")
    made, done = [], asyncio.Event()

    async def keep_calling() -> None:
        # Each call with a connection of its own, so that there is a handshake at every moment.
        while not done.is_set():
            made.append((await parties.call(shown)).kind)

    async with parties.serving("api_keys", tls=True):
        callers = [asyncio.create_task(keep_calling()) for _ in range(4)]
        for _ in range(5):
            parties.use(renewed := parties.authority.server())
            until = len(made) + 20
            while len(made) < until:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert await shown_certificate(parties) == der(renewed)
        done.set()
        await asyncio.gather(*callers)
    assert set(made) == {OK}


SECP256K1 = ec.generate_private_key(ec.SECP256K1())
BROKEN: list[tuple[str, Callable[[Parties], Pair], str]] = [
    ("no PEM", lambda parties: Pair(b"garbage", parties.server.key), "the certificate can't be read"),
    ("half of it", lambda parties: Pair(parties.server.certificate[:300], parties.server.key), "can't be read"),
    ("no key", lambda parties: Pair(parties.server.certificate, b""), "the key can't be read"),
    ("new key, old certificate", lambda parties: _mixed(parties), "does not belong to the key"),
    ("expired", lambda parties: parties.authority.server(lifetime=-timedelta(hours=1)), "the certificate expired"),
    ("a key that grpc doesn't take", lambda parties: parties.authority.server(key=SECP256K1), "grpc can't load"),
    ("not yet valid", lambda parties: parties.authority.server(begin=timedelta(hours=1)), "isn't valid before"),
]


def _mixed(parties: Parties) -> Pair:
    return Pair(parties.server.certificate, parties.authority.server().key)


async def test_a_broken_pair_keeps_the_old_one(
    parties: Parties, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tls, "ReloadingFiles", partial(ReloadingFiles, every=0.0, patience=30.0))
    async with parties.serving("api_keys", tls=True):
        good = parties.server
        for case, make, why in BROKEN:
            parties.use(make(parties))
            assert await shown_certificate(parties) == der(good), case
            assert why in caplog.text, case
            assert KEPT in caplog.text, case
            caplog.clear()
            parties.use(good)
            assert await shown_certificate(parties) == der(good), case
        (parties.folder / "server.key").unlink()
        assert await shown_certificate(parties) == der(good)
        assert "can't read" in caplog.text
        renewed = parties.authority.server()
        parties.use(renewed)
        assert await shown_certificate(parties) == der(renewed)


async def test_the_expiry_is_that_of_what_is_shown(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "ReloadingFiles", partial(ReloadingFiles, every=0.0, patience=30.0))
    now = datetime.now().timestamp()
    parties.use(parties.server)
    files = tls.TlsFiles(parties.folder / "server.pem", parties.folder / "server.key")
    certificates = tls.Certificates(files)
    assert certificates.expires == pytest.approx(now + 86_400, abs=600)
    parties.use(parties.authority.server(key=SECP256K1, lifetime=timedelta(days=3)))
    assert certificates.expires == pytest.approx(now + 86_400, abs=600)
    parties.use(parties.authority.server(lifetime=timedelta(days=3)))
    assert certificates.expires == pytest.approx(now + 3 * 86_400, abs=600)


@pytest.mark.skipif(not tls.LINUX, reason="counts open files in /proc")
async def test_a_renewal_leaves_no_file_open(parties: Parties) -> None:
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    parties.use(parties.server)
    files = tls.TlsFiles(parties.folder / "server.pem", parties.folder / "server.key")
    before = open_files()
    for _ in range(20):
        tls.Certificates(files)
    assert open_files() < before + 20


async def test_a_byte_order_mark_is_left_out(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "ReloadingFiles", partial(ReloadingFiles, every=0.0, patience=30.0))
    async with parties.serving("api_keys", tls=True):
        new = parties.authority.server()
        parties.use(Pair(BYTE_ORDER_MARK + new.certificate, BYTE_ORDER_MARK + new.key))
        assert await shown_certificate(parties) == der(new)


@pytest.mark.parametrize(
    ("key", "name"),
    [(ed25519.Ed25519PrivateKey.generate(), "Ed25519"), (ec.generate_private_key(ec.SECP521R1()), "P-521")],
)
async def test_keys_that_grpcs_clients_cannot_use_are_warned_about(
    key: Any, name: str, parties: Parties, caplog: pytest.LogCaptureFixture
) -> None:
    parties.server = parties.authority.server(key=key)
    async with parties.serving("api_keys", tls=True):
        shown = await parties.call(authorization(f"ApiKey {parties.key('edit_workflows')}"))
    assert f"the certificate's key is {name}, which grpc's own clients can't use" in caplog.text
    assert shown.kind == NO_CONNECTION, "grpc has learnt it: the warning can go"


async def test_a_pair_that_is_not_valid_yet_is_used_when_its_time_has_come(
    parties: Parties, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "ReloadingFiles", partial(ReloadingFiles, every=0.0, patience=30.0))
    async with parties.serving("api_keys", tls=True):
        old, new = parties.server, parties.authority.server(begin=timedelta(hours=1))
        parties.use(new)
        assert await shown_certificate(parties) == der(old)
        monkeypatch.setattr(tls, "datetime", SimpleNamespace(now=lambda zone: datetime.now(zone) + timedelta(hours=2)))
        assert await shown_certificate(parties) == der(new)


async def test_new_authorities_of_callers(parties: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "ReloadingFiles", partial(ReloadingFiles, every=0.0, patience=30.0))
    parties.know(SPIFFE, "edit_workflows")
    other = Authority()
    old, new = parties.authority.issue(uri(SPIFFE)), other.issue(uri(SPIFFE))
    ca = parties.folder / "ca.pem"
    async with parties.serving("mtls"):
        for content, answers in [
            (parties.authority.pem, (OK, NO_CONNECTION)),
            (parties.authority.pem + other.pem, (OK, OK)),
            (other.pem, (NO_CONNECTION, OK)),
            (b"garbage", (NO_CONNECTION, OK)),
        ]:
            ca.write_bytes(content)
            found = tuple([(await parties.call((), pair, rpc="Health")).kind for pair in (old, new)])
            assert found == answers


async def shown_certificate(parties: Parties, version: str = "") -> bytes:
    """The certificate that a new connection is shown, in DER."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    if version:
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
        # Otherwise this side would already refuse the old ones.
        context.set_ciphers("ALL:@SECLEVEL=0")
    host, _, port = parties.address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return found


def der(pair: Pair) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair.certificate.decode())


# What is wrong at the start


async def starting(parties: Parties, *modes: str, **overrides: str) -> list[str]:
    """The faults that stop the start."""
    with pytest.raises(SettingsError) as told:
        async with serve.running(parties.settings(*modes, tls=True, **overrides)):
            pass
    return told.value.faults


@pytest.mark.parametrize(("case", "make", "why"), BROKEN, ids=[row[0] for row in BROKEN])
async def test_a_broken_pair_stops_the_start(case: str, make: Any, why: str, parties: Parties) -> None:
    parties.server = make(parties)
    (fault,) = await starting(parties, "api_keys")
    name, file = ("KEY", "server.key") if case == "no key" else ("CERT", "server.pem")
    assert fault.startswith(f"AGENTA_AI_GRPC_TLS_{name}_FILE: {parties.folder / file}")
    assert why in fault


@pytest.mark.parametrize("name", ["CERT", "KEY", "CLIENT_CA"])
@pytest.mark.parametrize(
    ("file", "why"),
    [("none.pem", "can't read {}: No such file or directory"), ("", "{} is a folder, not a regular file")],
)
async def test_a_file_that_cannot_be_read_stops_the_start(name: str, file: str, why: str, parties: Parties) -> None:
    path = parties.folder / file
    (fault,) = await starting(parties, "api_keys", **{f"AGENTA_AI_GRPC_TLS_{name}_FILE": str(path)})
    assert fault == f"AGENTA_AI_GRPC_TLS_{name}_FILE: {why.format(path)}."


async def test_each_file_that_is_bad_by_itself_is_told_by_its_setting(parties: Parties) -> None:
    none, garbage = parties.folder / "none.pem", parties.folder / "garbage.pem"
    garbage.write_text("garbage")
    told = await starting(
        parties,
        "api_keys",
        AGENTA_AI_GRPC_TLS_CERT_FILE=str(none),
        AGENTA_AI_GRPC_TLS_KEY_FILE=str(none),
        AGENTA_AI_GRPC_TLS_CLIENT_CA_FILE=str(garbage),
    )
    assert told == [
        f"AGENTA_AI_GRPC_TLS_CERT_FILE: can't read {none}: No such file or directory.",
        f"AGENTA_AI_GRPC_TLS_KEY_FILE: can't read {none}: No such file or directory.",
        f"AGENTA_AI_GRPC_TLS_CLIENT_CA_FILE: {garbage}: the file of client authorities can't be read: it must be in "
        "PEM form.",
    ]


async def test_every_fault_is_told_at_once(parties: Parties) -> None:
    parties.server = parties.authority.server(lifetime=-timedelta(hours=1))
    parties.keys.write_text("{")
    jwks = parties.folder / "jwks.json"
    jwks.write_text("[]")
    settings = parties.settings(
        "api_keys", "jwt", "mtls", AGENTA_AI_GRPC_JWT_JWKS_URL="", AGENTA_AI_GRPC_JWT_JWKS_FILE=str(jwks)
    )
    parties.identities.write_text("{}")
    with pytest.raises(SettingsError) as told:
        async with serve.running(settings):
            pass
    starts = {
        "AGENTA_AI_GRPC_API_KEYS_FILE": "keys.json: Invalid JSON",
        "AGENTA_AI_GRPC_JWT_JWKS_FILE": "jwks.json: it isn't a JSON object.",
        "AGENTA_AI_GRPC_MTLS_PRINCIPALS_FILE": "identities.json: principals: Field required.",
        "AGENTA_AI_GRPC_TLS_CERT_FILE": "the certificate expired at ",
    }
    assert len(told.value.faults) == len(starts)
    for fault, (start, why) in zip(told.value.faults, starts.items(), strict=True):
        assert fault.startswith(f"{start}: {parties.folder}/")
        assert why in fault


# The curves P-256 and SM2, which cryptography doesn't know, as ASN.1 names them.
P256_OID, SM2_OID = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a811ccf5501822d")
VERSION_3, VERSION_6 = bytes.fromhex("a003020102"), bytes.fromhex("a003020105")


@pytest.mark.parametrize(
    ("read", "kind", "old", "new", "problem"),
    [
        (read_key, "PRIVATE KEY", P256_OID, SM2_OID, "the key can't be read"),
        (read_certificates, "CERTIFICATE", P256_OID, SM2_OID, "the certificate has a key of an unknown type"),
        (read_certificates, "CERTIFICATE", VERSION_3, VERSION_6, "the certificate can't be read"),
        (read_authorities, "CERTIFICATE", VERSION_3, VERSION_6, "the file of client authorities can't be read"),
    ],
)
def test_what_cryptography_does_not_know_is_a_fault_of_the_file(
    read: Callable[[bytes], object], kind: str, old: bytes, new: bytes, problem: str, parties: Parties
) -> None:
    pair = parties.server
    pem = pair.key if kind == "PRIVATE KEY" else pair.certificate
    data = b64decode("".join(line for line in pem.decode().split("\n") if "-----" not in line))
    assert old in data
    changed = f"-----BEGIN {kind}-----\n{b64encode(data.replace(old, new)).decode()}\n-----END {kind}-----\n"
    with pytest.raises(ValueError, match=problem):
        read(changed.encode())
