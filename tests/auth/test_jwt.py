from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import os
import time
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from agenta_ai_server.auth.authenticator import Credentials, invalid
from agenta_ai_server.auth.jwt import JwtAuthenticator, JwtConfig
from agenta_ai_server.domain.call import Principal
from agenta_ai_server.domain.errors import Reason, Refused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

ISSUER = "https://issuer.example"
AUDIENCE = "agenta-ai"
NOW = 1_800_000_000.0
HEADER = {"alg": "RS256", "kid": "rsa"}
CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": NOW + 300, "iat": NOW, "permissions": ["edit_workflows"]}

RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
SMALL_RSA = rsa.generate_private_key(65537, 1024)
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
P521 = ec.generate_private_key(ec.SECP521R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()
ED448 = ed448.Ed448PrivateKey.generate()

Key = Any
Make = "Callable[..., JwtAuthenticator]"


def b64(data: bytes | object) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def jwk(key: Key, kid: object, **more: object) -> dict[str, Any]:
    names = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256"}
    name = next((name for kind, name in names.items() if isinstance(key, kind)), "EdDSA")
    algorithm: Any = jwt.get_algorithm_by_name(name)
    entry: dict[str, Any] = json.loads(algorithm.to_jwk(key.public_key()))
    entry.pop("key_ops", None)
    return entry | ({"kid": kid} if kid is not None else {}) | more


def keys(*entries: object) -> bytes:
    return json.dumps({"keys": entries}).encode()


def token(key: Key = RSA, kid: object = "rsa", alg: str = "RS256", header: Any = None, **changes: object) -> str:
    claims = {name: value for name, value in (CLAIMS | changes).items() if value is not ...}
    return signed(key, {"alg": alg, "kid": kid} | (header or {}), json.dumps(claims).encode())


def signed(key: Key, header: dict[str, Any], payload: bytes) -> str:
    """Sign whatever it is, without the checks of the library."""
    header = {name: value for name, value in header.items() if value is not ...}
    text = f"{b64(header)}.{b64(payload)}"
    algorithm: Any = jwt.get_algorithm_by_name(header["alg"])
    return f"{text}.{b64(algorithm.sign(text.encode(), key))}"


JWKS = keys(
    jwk(RSA, "rsa"),
    jwk(P256, "p256"),
    jwk(P384, "p384"),
    jwk(P521, "p521"),
    jwk(ED25519, "ed25519"),
    jwk(ED448, "ed448"),
)
ALL = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
DEFAULT = ("RS256", "ES256", "EdDSA")


class Now(datetime):
    """The time of day, as the library asks for it."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return datetime.fromtimestamp(NOW, tz)


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jwt.api_jwt.datetime", Now)


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class KeyHost:
    """Who issues the keys, on loopback."""

    def __init__(self) -> None:
        self.document = JWKS
        self.status = 200
        self.fetches = 0
        self.paths: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Event()
        self.url = ""

    async def handle(self, request: web.BaseRequest) -> web.Response:
        self.fetches += 1
        self.paths.append(request.path_qs)
        self.arrived.set()
        await self.gate.wait()
        headers = {"location": "/elsewhere"} if self.status == 302 else {}
        return web.Response(status=self.status, body=self.document, headers=headers)


@pytest.fixture
async def host() -> AsyncIterator[KeyHost]:
    host = KeyHost()
    server = web.Server(host.handle, access_log=None)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    host.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/jwks?key=s3cret"
    yield host
    host.gate.set()
    listener.close()
    await server.shutdown()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make(tmp_path: Path, clock: Clock) -> AsyncIterator[Callable[..., JwtAuthenticator]]:
    made: list[JwtAuthenticator] = []

    def make(document: bytes = JWKS, **settings: Any) -> JwtAuthenticator:
        if "jwks_url" not in settings:
            path = tmp_path / "jwks.json"
            path.write_bytes(document)
            settings["jwks_file"] = path
        config = JwtConfig(issuer=ISSUER, audience=AUDIENCE, **settings)
        made.append(JwtAuthenticator(config, clock=clock))
        return made[-1]

    yield make
    for authenticator in made:
        await authenticator.aclose()


def bearer(secret: str, scheme: str = "Bearer") -> Credentials:
    return Credentials(scheme, secret)


async def refused(authenticator: JwtAuthenticator, secret: str) -> Refused:
    with pytest.raises(Refused) as caught:
        await authenticator.authenticate(bearer(secret))
    assert not secret or secret[:40] not in repr(caught.value) + str(caught.value.__cause__)
    return caught.value


# Who is let in.


@pytest.mark.parametrize(
    ("key", "kid", "alg"),
    [
        *[(RSA, "rsa", alg) for alg in ALL[:6]],
        (P256, "p256", "ES256"),
        (P384, "p384", "ES384"),
        (P521, "p521", "ES512"),
        (ED25519, "ed25519", "EdDSA"),
        (ED448, "ed448", "EdDSA"),
    ],
)
async def test_lets_in(key: Key, kid: str, alg: str, make: Any) -> None:
    authenticator = make()
    credentials = bearer(token(key, kid, alg))
    assert authenticator.accepts(credentials)
    expected = Principal(user="ada", permissions=frozenset({"edit_workflows"}), method="jwt")
    assert await authenticator.authenticate(credentials) == expected


async def test_claims(make: Any) -> None:
    authenticator = make(
        claims={
            "user": "email",
            "organization": "org.id",
            "plan": "https://example.com/plan",
            "permissions": "scope",
            "workspace": "a.b.c",
        }
    )
    secret = token(
        email="ada@example.com",
        org={"id": "o1"},
        project_id="p1",
        scope="edit_workflows  view",
        a={"b": "no object"},
        **{"https://example.com/plan": "Pro"},
    )
    assert await authenticator.authenticate(bearer(secret)) == Principal(
        user="ada@example.com",
        project="p1",
        organization="o1",
        plan="Pro",
        permissions=frozenset({"edit_workflows", "view"}),
        method="jwt",
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ["other", AUDIENCE]},
        {"iat": ..., "permissions": ...},
        {"exp": NOW - 29},
        {"nbf": NOW + 29.9},
        {"iat": NOW + 29.9},
        {"nbf": None, "iat": None, "sub": "ada", "jti": None, "plan": None, "permissions": None},
        {"nbf": NOW - 5, "iat": int(NOW) - 5},
        {"organization_id": None},
    ],
)
async def test_what_is_good_all_the_same(changes: dict[str, Any], make: Any) -> None:
    assert (await make().authenticate(bearer(token(**changes)))).user == "ada"


@pytest.mark.parametrize("secret", ["", "abc", "a.b.c", "....", "a.b.c.d.e", "ä.ö.ü", "." * 9000, "aai_x_y"])
def test_accepts_only_tokens(secret: str, make: Any) -> None:
    assert not make().accepts(bearer(secret))


def test_accepts_only_its_issuers_tokens(make: Any) -> None:
    authenticator = make()
    assert authenticator.accepts(bearer(token()))
    assert not authenticator.accepts(bearer(token(), scheme="ApiKey"))
    assert not authenticator.accepts(bearer(token(), scheme="bearer"))
    assert not authenticator.accepts(bearer(token(iss=ISSUER + "/")))
    assert not authenticator.accepts(bearer(token(iss=[ISSUER])))
    assert not authenticator.accepts(bearer(token(iss=...)))
    assert not authenticator.accepts(bearer(f"{b64({'alg': 'none'})}.{b64(b'[' * 5000)}."))


@given(st.text() | st.tuples(*[st.binary(max_size=40)] * 3).map(lambda parts: ".".join(b64(part) for part in parts)))
def test_never_raises_on_what_it_does_not_accept(secret: str) -> None:
    assert not UNREACHABLE.accepts(bearer(secret))


UNREACHABLE = JwtAuthenticator(JwtConfig(issuer=ISSUER, audience=AUDIENCE, jwks_url="https://issuer.example/jwks"))


# Who is not.


def hs256(secret: bytes) -> str:
    text = f"{b64({'alg': 'HS256', 'kid': 'rsa'})}.{b64(CLAIMS)}"
    return f"{text}.{b64(hmac.digest(secret, text.encode(), hashlib.sha256))}"


def public_pem() -> bytes:
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return RSA.public_key().public_bytes(serialization.Encoding.PEM, kind)


def tampered() -> str:
    head, _, signature = token().split(".")
    return f"{head}.{b64(CLAIMS | {'sub': 'root'})}.{signature}"


def repeated_claim() -> str:
    payload = json.dumps(CLAIMS)[:-1] + ', "sub": "root"}'
    return signed(RSA, HEADER, payload.encode())


def repeated_alg() -> str:
    _, payload, signature = token().split(".")
    header = b'{"alg": "none", "kid": "rsa", "alg": "RS256"}'
    return f"{b64(header)}.{payload}.{signature}"


def nested() -> str:
    return signed(RSA, {"alg": "RS256", "kid": "rsa", "cty": "JWT"}, token().encode())


def own_key() -> str:
    entry = jwk(OTHER_RSA, None)
    return token(OTHER_RSA, header={"jwk": entry, "jku": "https://evil.example/jwks", "x5u": "https://evil.example"})


ATTACKS = {
    "alg none": f"{b64({'alg': 'none', 'kid': 'rsa'})}.{b64(CLAIMS)}.",
    "alg nOnE": f"{b64({'alg': 'nOnE', 'kid': 'rsa'})}.{b64(CLAIMS)}.",
    "no alg": f"{b64({'kid': 'rsa'})}.{b64(CLAIMS)}.{token().split('.')[2]}",
    "an algorithm that nobody knows": f"{b64({'alg': 'RS1', 'kid': 'rsa'})}.{b64(CLAIMS)}.{token().split('.')[2]}",
    "alg is a list": f"{b64({'alg': ['RS256'], 'kid': 'rsa'})}.{b64(CLAIMS)}.{token().split('.')[2]}",
    "HS256 with the public key, PEM": hs256(public_pem()),
    "HS256 with the public key, JWK": hs256(json.dumps(jwk(RSA, "rsa")).encode()),
    "HS256 with nothing": hs256(b""),
    "ES256 with the id of an RSA key": token(P256, "rsa", "ES256"),
    "RS256 with the id of an EC key": token(RSA, "p256"),
    "ES256 with the id of a P-384 key": token(P256, "p384", "ES256"),
    "EdDSA with the id of an RSA key": token(ED25519, "rsa", "EdDSA"),
    "another key with a known id": token(OTHER_RSA),
    "its own key": own_key(),
    "id is a path": token(kid="../../etc/passwd"),
    "id is a device": token(kid="/dev/null"),
    "id is SQL": token(kid="' OR '1'='1"),
    "id is a command": token(kid="| touch /tmp/owned"),
    "id is very long": token(kid="k" * 4000),
    "id is empty": token(kid=""),
    "id is a list": token(kid=["rsa"]),
    "id is an object": token(kid={"$ne": ""}),
    "id is a number": token(kid=1),
    "no id, and several keys": token(kid=...),
    "null for an id, and several keys": token(kid=None),
    "another issuer": token(iss="https://evil.example"),
    "an issuer that begins alike": token(iss=ISSUER + ".evil.example"),
    "issuers": token(iss=[ISSUER]),
    "no issuer": token(iss=...),
    "another audience": token(aud="other"),
    "an audience that holds ours": token(aud=AUDIENCE + "-admin"),
    "other audiences": token(aud=["other", 7, None]),
    "an audience that is an object": token(aud={AUDIENCE: 1}),
    "no audience": token(aud=...),
    "no end": token(exp=...),
    "null for an end": token(exp=None),
    "a text for an end": token(exp=str(int(NOW + 300))),
    "true for an end": token(exp=True),
    "an end beyond all time": signed(RSA, HEADER, json.dumps(CLAIMS).replace(str(CLAIMS["exp"]), "1e999").encode()),
    "an end that is no number": token(exp=float("nan")),
    "an end that never comes": token(exp=float("inf")),
    "a beginning to come": token(nbf=NOW + 31),
    "issued in the future": token(iat=NOW + 31),
    "a text for a beginning": token(nbf="0"),
    "a text for the issuing": token(iat="0"),
    "expired, and for another audience": token(exp=NOW - 1000, aud="other"),
    "expired, and another key's": token(OTHER_RSA, exp=NOW - 1000),
    "expired, and for nobody": token(exp=NOW - 1000, sub=...),
    "an extension": token(header={"crit": ["exp"], "exp": 1}),
    "an empty list of extensions": token(header={"crit": []}),
    "an unencoded payload": token(header={"crit": ["b64"], "b64": False}),
    "an encoded payload, said so": token(header={"b64": True}),
    "tampered": tampered(),
    "a short signature of EC": token(P256, "p256", "ES256")[:-8],
    "zeros for a signature of EC": token(P256, "p256", "ES256").rpartition(".")[0] + "." + b64(bytes(64)),
    "a short signature of Ed25519": token(ED25519, "ed25519", "EdDSA")[:-8],
    "a signature of Ed448 for Ed25519": token(ED448, "ed25519", "EdDSA"),
    "no signature": token().rpartition(".")[0] + ".",
    "half a signature": token()[:-100],
    "a signature that is no base64": token()[:-4] + "!$?*",
    "a signature of another token": token().rpartition(".")[0] + "." + token(sub="eve").split(".")[2],
    "one part": "abc",
    "two parts": token().rpartition(".")[0],
    "four parts": token() + ".abc",
    "encrypted": ".".join([b64({"alg": "RSA-OAEP", "enc": "A256GCM"}), "a", "b", "c", "d"]),
    "nested": nested(),
    "huge": token(filler="x" * 100_000),
    "just too long": token(filler="x" * 6000),
    "no base64": "!!!.???.###",
    "no ASCII": "ä.ö.ü",
    "no UTF-8": f"{b64(bytes([255, 254, 253]))}.{b64(CLAIMS)}.abc",
    "no JSON": f"{b64(b'{')}.{b64(CLAIMS)}.abc",
    "no objects": f"{b64(b'[]')}.{b64(b'[]')}.abc",
    "deeply nested": f"{b64(b'[' * 2000)}.{b64(CLAIMS)}.abc",
    "a number of 5,000 digits": signed(RSA, HEADER, b'{"exp": ' + b"9" * 5000 + b"}"),
    "a claim twice": repeated_claim(),
    "an algorithm twice": repeated_alg(),
    "no user": token(sub=...),
    "an empty user": token(sub=""),
    "a number for a user": token(sub=7),
    "a user with line ends": token(sub="ada\nroot"),
    "a user of 257 characters": token(sub="a" * 257),
    "an object for a project": token(project_id={"id": 1}),
    "a number for permissions": token(permissions=1),
    "an object for permissions": token(permissions={"edit_workflows": True}),
    "permissions that are no texts": token(permissions=["edit_workflows", 1]),
    "": "",
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_refuses(attack: str, make: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = ATTACKS[attack]
    error = await refused(make(), secret)
    assert error.reason is Reason.CREDENTIALS_INVALID
    assert error.message == invalid().message
    for part in secret.split("."):
        assert len(part) < 8 or part not in caplog.text


async def test_says_that_a_good_token_has_expired(make: Any) -> None:
    for exp in (NOW - 30, NOW - 1000, 0, -5):
        error = await refused(make(), token(exp=exp))
        assert error.reason is Reason.CREDENTIALS_EXPIRED
        assert error.message == "The token has expired: get a new one."


@given(data=st.data())
async def test_any_change_is_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "jwks.json"
    path.write_bytes(JWKS)
    config = JwtConfig(issuer=ISSUER, audience=AUDIENCE, jwks_file=path)
    authenticator = JwtAuthenticator(config)
    good = GOOD
    place = data.draw(st.integers(0, len(good) - 1))
    changed = good[:place] + data.draw(st.characters(max_codepoint=255)) + good[place + 1 :]
    # Of the last character of each part, some bits mean nothing.
    if [_bytes(part) for part in changed.split(".")] == [_bytes(part) for part in good.split(".")]:
        return
    assert (await refused(authenticator, changed)).reason is Reason.CREDENTIALS_INVALID


GOOD = token()


def _bytes(part: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        return os.urandom(8)


# The keys.


@pytest.mark.parametrize(
    "entry",
    [
        jwk(RSA, "rsa", use="enc"),
        jwk(RSA, "rsa", key_ops=["encrypt"]),
        jwk(RSA, "rsa", key_ops=7),
        jwk(RSA, "rsa", alg="RS384"),
        jwk(RSA, "rsa", alg="RSA-OAEP"),
        jwk(RSA, "rsa", kty="EC"),
        jwk(RSA, "rsa", kty=["RSA"]),
        jwk(RSA, "rsa", n="!!!"),
        jwk(RSA, "rsa", n=7),
        jwk(RSA, 7),
        jwk(P256, "rsa"),
        {"kty": "RSA", "kid": "rsa"},
        {"kid": "rsa"},
    ],
)
async def test_leaves_out_keys_that_do_not_fit(entry: dict[str, Any], make: Any) -> None:
    assert (await refused(make(keys(entry, jwk(ED25519, "x"))), token())).reason is Reason.CREDENTIALS_INVALID


async def test_leaves_out_keys_that_are_too_short(make: Any) -> None:
    authenticator = make(keys(jwk(SMALL_RSA, "rsa"), jwk(ED25519, "x")))
    assert (await refused(authenticator, token(SMALL_RSA))).reason is Reason.CREDENTIALS_INVALID


@pytest.mark.parametrize("name", ["use", "key_ops", "alg", "d", "k", "p", "x5c"])
async def test_takes_null_for_an_absent_member(name: str, make: Any) -> None:
    assert (await make(keys(jwk(RSA, "rsa", **{name: None}))).authenticate(bearer(token()))).user == "ada"


@pytest.mark.parametrize("more", [{"use": "sig"}, {"key_ops": ["verify"]}, {"alg": "RS256"}, {"x5c": ["abc"]}])
async def test_takes_keys_that_say_what_they_are_for(more: dict[str, Any], make: Any) -> None:
    assert (await make(keys(jwk(RSA, "rsa", **more))).authenticate(bearer(token()))).user == "ada"


async def test_ignores_secret_keys(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    private = json.loads(jwt.get_algorithm_by_name("RS256").to_jwk(OTHER_RSA))
    shared = {"kty": "oct", "k": b64(b"s3cret" * 10), "kid": "shared"}
    authenticator = make(keys(private | {"kid": "private"}, shared, "no key", jwk(RSA, "rsa")))
    assert (await refused(authenticator, token(OTHER_RSA, "private"))).reason is Reason.CREDENTIALS_INVALID
    # It is the only usable key now.
    assert (await authenticator.authenticate(bearer(token(kid=...)))).user == "ada"
    assert "ignored 3 keys" in caplog.text
    assert private["d"] not in caplog.text
    assert shared["k"] not in caplog.text


async def test_one_id_for_keys_of_two_kinds(make: Any) -> None:
    authenticator = make(keys(jwk(RSA, "x"), jwk(P256, "x")))
    assert (await authenticator.authenticate(bearer(token(RSA, "x")))).user == "ada"
    assert (await authenticator.authenticate(bearer(token(P256, "x", "ES256")))).user == "ada"


@pytest.mark.parametrize(
    "document", [b"", b"[]", b"{}", b'{"keys": 1}', b'{"keys": []}', b"[" * 10_000, keys({"kty": "oct", "k": "abcd"})]
)
def test_a_file_without_keys(document: bytes, make: Any) -> None:
    with pytest.raises(ValueError, match=r"jwks\.json: it "):
        make(document)


async def test_a_file_that_changes(make: Any, clock: Clock, tmp_path: Path) -> None:
    authenticator = make(keys(jwk(OTHER_RSA, "rsa")))
    await authenticator.start()
    assert (await refused(authenticator, token())).reason is Reason.CREDENTIALS_INVALID
    (tmp_path / "jwks.json").write_bytes(JWKS)
    clock.time += 2
    assert (await authenticator.authenticate(bearer(token()))).user == "ada"


# The keys by HTTP.


async def test_gets_the_keys_once(host: KeyHost, make: Any, clock: Clock) -> None:
    authenticator = make(jwks_url=host.url)
    await authenticator.start()
    for _ in range(100):
        await authenticator.authenticate(bearer(token()))
    assert host.paths == ["/jwks?key=s3cret"]


async def test_asks_again_now_and_then_without_waiting(host: KeyHost, make: Any, clock: Clock) -> None:
    authenticator = make(jwks_url=host.url)
    await authenticator.start()
    host.arrived.clear()
    host.gate.clear()
    clock.time += 601
    for _ in range(10):
        assert (await authenticator.authenticate(bearer(token()))).user == "ada"
    await host.arrived.wait()
    assert host.fetches == 2


async def test_a_flood_of_unknown_ids(host: KeyHost, make: Any, clock: Clock) -> None:
    authenticator = make(jwks_url=host.url)
    await authenticator.start()
    payload = b64(CLAIMS)
    floods = 10
    for _ in range(floods):
        clock.time += 60
        secrets = [f"{b64({'alg': 'RS256', 'kid': f'k{number}'})}.{payload}.{'A' * 342}" for number in range(1000)]
        await asyncio.gather(*(refused(authenticator, secret) for secret in secrets))
    assert host.fetches == 1 + floods


async def test_rotation(host: KeyHost, make: Any, clock: Clock) -> None:
    authenticator = make(jwks_url=host.url)
    await authenticator.start()
    host.document = keys(jwk(OTHER_RSA, "new"))
    new = token(OTHER_RSA, "new")
    assert (await refused(authenticator, new)).reason is Reason.CREDENTIALS_INVALID
    clock.time += 60
    principals = await asyncio.gather(*(authenticator.authenticate(bearer(new)) for _ in range(50)))
    assert {principal.user for principal in principals} == {"ada"}
    assert host.fetches == 2
    assert (await refused(authenticator, token())).reason is Reason.CREDENTIALS_INVALID


async def test_a_key_that_is_replaced_under_its_id(host: KeyHost, make: Any, clock: Clock) -> None:
    authenticator = make(jwks_url=host.url)
    await authenticator.start()
    host.document = keys(jwk(OTHER_RSA, "rsa"))
    new = token(OTHER_RSA)
    # The keys have just been got, so that a flood of wrong signatures makes no flood of questions.
    assert (await refused(authenticator, new)).reason is Reason.CREDENTIALS_INVALID
    clock.time += 60
    principals = await asyncio.gather(*(authenticator.authenticate(bearer(new)) for _ in range(50)))
    assert {principal.user for principal in principals} == {"ada"}
    for _ in range(100):
        assert (await refused(authenticator, token())).reason is Reason.CREDENTIALS_INVALID
    assert host.fetches == 2


async def test_who_goes_away_does_not_take_the_keys_along(host: KeyHost, make: Any) -> None:
    authenticator = make(jwks_url=host.url)
    host.gate.clear()
    calls = [asyncio.create_task(authenticator.authenticate(bearer(token()))) for _ in range(3)]
    await host.arrived.wait()
    calls[0].cancel()
    await asyncio.wait([calls[0]])
    host.gate.set()
    assert [principal.user for principal in await asyncio.gather(*calls[1:])] == ["ada", "ada"]
    assert calls[0].cancelled()
    assert host.fetches == 1


async def test_can_be_closed_while_it_asks(host: KeyHost, make: Any) -> None:
    authenticator = make(jwks_url=host.url)
    host.gate.clear()
    call = asyncio.create_task(authenticator.authenticate(bearer(token())))
    await host.arrived.wait()
    await authenticator.aclose()
    with pytest.raises(asyncio.CancelledError):
        await call


@pytest.mark.parametrize("failure", ["status", "redirect", "garbage", "no keys", "too large", "nobody there", "slow"])
async def test_no_keys_at_the_start(
    failure: str, host: KeyHost, make: Any, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    url = host.url
    match failure:
        case "status":
            host.status = 500
        case "redirect":
            host.status = 302
        case "garbage":
            host.document = b"<html>"
        case "no keys":
            host.document = b'{"keys": []}'
        case "too large":
            host.document = JWKS + b" " * 2 * 1024 * 1024
        case "nobody there":
            url = "http://127.0.0.1:1/jwks?key=s3cret"
        case "slow":
            host.gate.clear()
    # Only the slow host is meant to exceed the time-out, however busy the machine is.
    authenticator = make(jwks_url=url, timeout=1 if failure == "slow" else 30)
    await authenticator.start()
    assert "can't get the keys for tokens from http://127.0.0.1:" in caplog.text
    assert "s3cret" not in caplog.text
    errors = [await refused(authenticator, token()) for _ in range(100)]
    assert {error.reason for error in errors} == {Reason.AUTHORITY_UNAVAILABLE}
    assert errors[0].retry_delay == 5
    assert host.fetches == (0 if failure == "nobody there" else 1)
    assert "/elsewhere" not in host.paths
    # A token that could never be good needs no keys to be refused.
    assert (await refused(authenticator, ATTACKS["alg none"])).reason is Reason.CREDENTIALS_INVALID
    if failure != "nobody there":
        host.status, host.document = 200, JWKS
        host.gate.set()
        clock.time += 5
        assert (await authenticator.authenticate(bearer(token()))).user == "ada"


async def test_nobody_waits_for_a_host_that_has_failed_for_long(host: KeyHost, make: Any, clock: Clock) -> None:
    authenticator = make(jwks_url=host.url, timeout=30)
    await authenticator.start()
    host.status = 500
    for _ in range(30):
        clock.time += 60
        assert (await authenticator.authenticate(bearer(token()))).user == "ada"
        await refused(authenticator, token(kid="other"))
    host.gate.clear()
    clock.time += 60
    async with asyncio.timeout(10):
        for _ in range(3):
            assert (await authenticator.authenticate(bearer(token()))).user == "ada"
    await authenticator.aclose()


async def test_old_keys_are_used_while_new_ones_cannot_be_had(host: KeyHost, make: Any, clock: Clock) -> None:
    authenticator = make(jwks_url=host.url)
    await authenticator.start()
    host.status = 500
    for _ in range(23):
        clock.time += 3600
        assert (await authenticator.authenticate(bearer(token()))).user == "ada"
        await refused(authenticator, token(kid="other"))
    assert host.fetches == 24
    clock.time += 3600
    assert (await refused(authenticator, token())).reason is Reason.AUTHORITY_UNAVAILABLE
    host.status = 200
    clock.time += 5
    assert (await authenticator.authenticate(bearer(token()))).user == "ada"


# The configuration.


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"issuer": ""}, "issuer"),
        ({"audience": ""}, "audience"),
        ({"jwks_url": None}, "either"),
        ({"jwks_url": "ftp://issuer.example/jwks"}, "scheme http or https"),
        ({"jwks_url": "https://user:s3cret@issuer.example"}, "no credentials"),
        ({"jwks_url": "https://"}, "host"),
        ({"jwks_url": "https://issuer.example:0"}, "port"),
        ({"jwks_url": "https://issuer.example:s3cret"}, "is not a URL"),
        ({"claims": {"username": "sub"}}, "Claims"),
        ({"claims": {"user": ""}}, "Claims"),
    ],
)
def test_configurations_that_cannot_work(changes: dict[str, Any], said: str) -> None:
    good = JwtConfig(issuer=ISSUER, audience=AUDIENCE, jwks_url="https://issuer.example/jwks")
    with pytest.raises(ValueError, match=said) as caught:
        replace(good, **changes)
    assert "s3cret" not in str(caught.value)


def test_keys_from_two_places(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="either"):
        JwtConfig(issuer=ISSUER, audience=AUDIENCE, jwks_url="https://issuer.example", jwks_file=tmp_path)


def test_the_proxy_is_checked_and_not_shown() -> None:
    config = JwtConfig(
        issuer=ISSUER, audience=AUDIENCE, jwks_url="https://issuer.example", proxy="socks5://u:s3cret@proxy"
    )
    assert "s3cret" not in repr(config)
    with pytest.raises(ValueError, match=r"^the proxy's URL must have the scheme") as caught:
        JwtAuthenticator(config)
    assert "s3cret" not in str(caught.value)


async def test_real_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jwt.api_jwt.datetime", datetime)
    path = tmp_path / "jwks.json"
    path.write_bytes(JWKS)
    authenticator = JwtAuthenticator(JwtConfig(issuer=ISSUER, audience=AUDIENCE, jwks_file=path))
    now = time.time()
    assert (await authenticator.authenticate(bearer(token(iat=now, exp=now + 60)))).user == "ada"
    assert (await refused(authenticator, token(iat=now - 100, exp=now - 60))).reason is Reason.CREDENTIALS_EXPIRED
