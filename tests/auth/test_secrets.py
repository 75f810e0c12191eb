"""No secret is written anywhere: not by a server that says all it can, and not to a caller who is refused."""

from __future__ import annotations

import asyncio
import base64
import signal
from typing import TYPE_CHECKING, Any

import pytest
from auth.parties import (
    DENIED,
    EXPIRED,
    INVALID,
    OK,
    SECRETS,
    UNAVAILABLE,
    Kind,
    Metadata,
    Outcome,
    Pair,
    Parties,
    authorization,
    secret,
    uri,
)
from ops.test_process import address_of, environment, output, process

from agenta_ai_server.standin.app import StandIn
from agenta_ai_server.standin.faults import Fault

if TYPE_CHECKING:
    from pathlib import Path

SPIFFE = "spiffe://agenta.ai/ns/prod/sa/evaluator"
OUR_KEY = "our-own-agenta-key-0123456789"


@pytest.fixture
async def standin() -> Any:
    async with StandIn(api_key=secret(OUR_KEY)) as standin:
        yield standin


def shown(parties: Parties) -> list[tuple[Metadata, Kind]]:
    """Credentials of all kinds, good and bad, and what they are answered."""
    good = parties.key("edit_workflows")
    idle = parties.key()
    known = parties.trust("ApiKey agenta-known-0123456789", "edit_workflows")
    issuer = parties.issuer
    return [
        ((), OK),
        (authorization(f"ApiKey {good}"), OK),
        (authorization(f"ApiKey {idle}"), DENIED),
        (authorization(f"ApiKey {good[:-1]}"), INVALID),
        (authorization(good), INVALID),
        (authorization(f"Bearer {good}"), INVALID),
        (authorization(f"ApiKey {good}", f"ApiKey {idle}"), INVALID),
        (issuer.bearer(), OK),
        (issuer.bearer(exp=1), EXPIRED),
        (issuer.bearer(aud="another"), INVALID),
        (issuer.bearer(header={"kid": secret("unknown-key-id-0123456789")}), INVALID),
        (issuer.bearer(header={"alg": "HS256"}), INVALID),
        (issuer.bearer(organization_id=[secret("list-for-an-id-0123456789")]), INVALID),
        (authorization(known), OK),
        (authorization(f"Bearer {secret('agenta-unknown-0123456789')}"), INVALID),
        (authorization(f"Basic {secret('basic-0123456789')}"), INVALID),
    ]


async def test_of_a_server_that_says_all_it_can(parties: Parties, standin: StandIn) -> None:
    parties.know(SPIFFE, "edit_workflows")
    pair = parties.authority.issue(uri(SPIFFE))
    cases = shown(parties)
    settings = parties.environment("api_keys", "jwt", "agenta", "mtls") | {
        "AGENTA_AI_SERVICES_API_KEY": OUR_KEY,
        "AGENTA_AI_GRPC_LOG_LEVEL": "debug",
        "AGENTA_AI_GRPC_LIMITS": "on",
    }
    async with process("serve", **environment(standin, **settings)) as started:
        parties.address = await address_of(started)
        parties.modes = frozenset({"mtls"})
        outcomes = await everything(parties, cases, pair)
        standin.permissions.fault = Fault(status=500)
        outcomes.append(await parties.call(authorization(f"Bearer {secret('agenta-later-0123456789')}"), pair))
        assert outcomes[-1].kind == UNAVAILABLE
        # Files break as well, and what is wrong with them is told.
        parties.keys.write_text(parties.keys.read_text()[:-40])
        parties.use(Pair(parties.server.certificate, parties.server.key[:-60]))
        parties.identities.write_text("[")
        told = await faults_told(3, parties, pair, started)
        started.send_signal(signal.SIGTERM)
        code, out, err = await output(started)
    written = "\n".join([out, told, err, *(outcome.everything for outcome in outcomes)])
    assert code == 0
    assert "refused a token" in written, "it didn't say all it can"
    assert '"logger": "grpc' not in written, "libraries speak as well"
    assert leaks(written, parties) == []


async def everything(parties: Parties, cases: list[tuple[Metadata, Kind]], pair: Pair) -> list[Outcome]:
    outcomes = []
    for metadata, kind in cases:
        outcome = await parties.call(metadata, pair)
        assert outcome.kind == kind, metadata
        outcomes.append(outcome)
    return outcomes


async def faults_told(number: int, parties: Parties, pair: Pair, started: asyncio.subprocess.Process) -> str:
    """Call until the log has told of so many files that they are broken, and return what it says until then."""
    lines: list[str] = []

    async def read() -> None:
        assert started.stderr
        while sum("stays in effect" in line for line in lines) < number:
            lines.append((await started.stderr.readline()).decode())

    reading = asyncio.create_task(read())
    key = authorization("ApiKey aai_000000000000_" + "0" * 64)
    async with asyncio.timeout(10):
        while not reading.done():
            for metadata in (key, ()):
                await parties.call(metadata, pair, rpc="Status")
    return "".join(lines)


def leaks(text: str, parties: Parties) -> list[str]:
    """Beginnings of the secrets that the text holds, as they are or in another form."""
    forms = {form for known in SECRETS for form in (known, base64.b64encode(known.encode()).decode())}
    forms |= {line for line in parties.server.key.decode().splitlines() if "PRIVATE" not in line}
    return [known[:8] for known in forms if known in text]


WRONG_SETTINGS = [
    ("AGENTA_AI_SERVICES_API_KEY", f"{OUR_KEY} with blanks"),
    ("AGENTA_AI_SERVICES_API_URL", f"https://user:{OUR_KEY}@agenta.example"),
    ("AGENTA_AI_GRPC_UPSTREAM_PROXY", f"socks5://user:{OUR_KEY}@proxy.example"),
    ("AGENTA_AI_GRPC_REDIS_URL", f"http://:{OUR_KEY}@redis.example"),
    ("AGENTA_AI_GRPC_JWT_JWKS_URL", f"https://user:{OUR_KEY}@issuer.example"),
]


@pytest.mark.parametrize(("name", "value"), WRONG_SETTINGS)
async def test_of_settings_that_are_wrong(name: str, value: str, tmp_path: Path) -> None:
    settings = environment() | {
        "AGENTA_AI_GRPC_AUTH": "jwt",
        "AGENTA_AI_GRPC_JWT_ISSUER": "https://issuer.example",
        "AGENTA_AI_GRPC_JWT_AUDIENCE": "agenta-ai",
        "AGENTA_AI_GRPC_JWT_JWKS_URL": "https://issuer.example/jwks",
        "AGENTA_AI_GRPC_LIMITS": "on",
        name: value,
    }
    async with process("serve", **settings) as started:
        code, out, err = await output(started)
    assert code == 2
    assert out == ""
    assert OUR_KEY not in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("name", "value"), WRONG_SETTINGS)
async def test_of_settings_that_nothing_uses(name: str, value: str) -> None:
    async with process("config", **environment() | {"AGENTA_AI_GRPC_AUTH": "none", name: value}) as started:
        _, out, err = await output(started)
    assert OUR_KEY not in out + err
