"""Authenticates callers with a JSON Web Token of a trusted issuer."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jwt

from agenta_ai_server.agenta.http import HttpClient
from agenta_ai_server.auth.authenticator import invalid
from agenta_ai_server.auth.jwks import KINDS, KeyFile, KeyServer, KeySource
from agenta_ai_server.domain.call import Principal
from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.domain.http_url import check_http_url, has_credentials
from agenta_ai_server.domain.token import json_object, unverified

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from agenta_ai_server.auth.authenticator import Credentials

CLAIMS = {
    "user": "sub",
    "organization": "organization_id",
    "project": "project_id",
    "workspace": "workspace_id",
    "plan": "plan",
    "permissions": "permissions",
}
"""The claim that each part of a principal comes from, unless the configuration names another."""

# By which the issuer's clock may differ from ours.
LEEWAY_SECONDS = 30.0
_MAX_ID_CHARACTERS = 256
_TIMES = frozenset({"exp", "nbf", "iat"})
# Beyond it lie infinity, which JSON has as 1e999, and numbers that aren't exact.
_MAX_TIME = 2**53

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtConfig:
    """The issuer, the audience and the claims of accepted tokens.

    Attributes:
        issuer: The exact value of ``iss``.
        audience: A value that ``aud`` must equal or contain.
        jwks_url: Where the issuer's keys are; either this or ``jwks_file``.
        jwks_file: File with the issuer's keys, reloaded when it changes.
        claims: Names of claims that differ from :data:`CLAIMS`. A dot leads into a claim that is an object, unless a
            claim has the dot in its name.
        refresh: As for :class:`~agenta_ai_server.auth.jwks.KeyServer`.
        cooldown: As for :class:`~agenta_ai_server.auth.jwks.KeyServer`.
        max_age: As for :class:`~agenta_ai_server.auth.jwks.KeyServer`.
        timeout: Seconds that asking for the keys may take.
        ca_file: Certificates of the authorities to trust, as PEM, in place of the public ones.
        proxy: URL of an HTTP proxy, maybe with credentials. Never shown.

    Raises:
        ValueError: A value can't be used; the sentence says which and why.
    """

    issuer: str
    audience: str
    jwks_url: str | None = None
    jwks_file: Path | None = None
    claims: Mapping[str, str] = field(default_factory=dict)
    refresh: float = 600.0
    cooldown: float = 60.0
    max_age: float = 86400.0
    timeout: float = 5.0
    ca_file: Path | None = None
    proxy: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.issuer or not self.audience:
            raise ValueError("The issuer and the audience of tokens must both be given.")
        if (self.jwks_url is None) == (self.jwks_file is None):
            raise ValueError("The issuer's keys must be given either by a URL or by a file.")
        if self.jwks_url is not None:
            _check_url(self.jwks_url)
        if not self.claims.keys() <= CLAIMS.keys() or not all(self.claims.values()):
            raise ValueError(f"Claims can be named only for {', '.join(CLAIMS)}.")


class JwtAuthenticator:
    """An :class:`~agenta_ai_server.auth.authenticator.Authenticator` that needs only the issuer's keys.

    The project that a caller requests is ignored: the token determines it.

    Args:
        config: The accepted tokens.
        clock: Monotonic clock, in seconds.

    Raises:
        ValueError: The file of keys can't be used, or the proxy is no URL of one.
        OSError: The file of certificates can't be read, or holds none.
    """

    def __init__(self, config: JwtConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._claims = CLAIMS | dict(config.claims)
        self._keys = _key_source(config, clock)

    async def start(self) -> None:
        """Fetch the issuer's keys. A failure is logged, and they are fetched again when they are needed."""
        await self._keys.start()

    def accepts(self, credentials: Credentials) -> bool:
        """Return whether this is a bearer token that names the issuer."""
        if credentials.scheme != "Bearer":
            return False
        try:
            claims = unverified(credentials.secret).claims
        except ValueError:
            return False
        return claims.get("iss") == self._config.issuer

    async def authenticate(self, credentials: Credentials) -> Principal:
        """Return the caller that the token names. Raises like every authenticator."""
        try:
            return self._principal(await self._verified(credentials.secret))
        except jwt.ExpiredSignatureError:
            pass
        # The errors themselves would hold on to the token.
        except (jwt.PyJWTError, ValueError) as error:
            _log.debug("refused a token: %s", str(error))
            raise invalid() from None
        # Only the bearer of a token that is otherwise valid may learn this.
        try:
            self._principal(await self._verified(credentials.secret, verify_exp=False))
        except (jwt.PyJWTError, ValueError):
            raise invalid() from None
        raise Refused(Reason.CREDENTIALS_EXPIRED, "The token has expired: get a new one.")

    async def aclose(self) -> None:
        """Close the connection to the issuer."""
        await self._keys.aclose()

    async def _verified(self, token: str, *, verify_exp: bool = True) -> dict[str, Any]:
        """Return the claims of a token of the issuer's for this service.

        Raises:
            ValueError: It isn't one; so does ``jwt.PyJWTError``.
        """
        header = unverified(token).header
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in KINDS:
            raise ValueError("its algorithm isn't allowed")
        if not isinstance(key_id, str | None):
            raise ValueError("its key's id is not a string")
        if "crit" in header or "b64" in header:
            raise ValueError("it needs an extension")
        key = await self._keys.find(key_id, algorithm)
        if key is None:
            raise ValueError("no key has this id and fits the algorithm")
        try:
            return self._decoded(token, key, verify_exp=verify_exp)
        except jwt.InvalidSignatureError:
            # The issuer may have replaced the key without giving the new one an id of its own.
            if newer := await self._keys.find_newer(key_id, algorithm, than=key):
                return self._decoded(token, newer, verify_exp=verify_exp)
            raise

    def _decoded(self, token: str, key: jwt.PyJWK, *, verify_exp: bool) -> dict[str, Any]:
        claims: dict[str, Any] = _DECODER.decode(
            token,
            key,
            # The one that the key was found by, which is one of KINDS.
            algorithms=[key.algorithm_name],
            audience=self._config.audience,
            issuer=self._config.issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": ["exp"], "verify_exp": verify_exp},
        )
        return claims

    def _principal(self, claims: dict[str, Any]) -> Principal:
        ids = {name: _id(_claim(claims, self._claims[name])) for name in CLAIMS if name != "permissions"}
        if not ids["user"]:
            raise ValueError("it names no user")
        permissions = _names(_claim(claims, self._claims["permissions"]))
        return Principal(**ids, permissions=permissions, method="jwt")


def _check_url(url: str) -> None:
    try:
        parts = check_http_url(url)
        if has_credentials(parts) or parts.fragment:
            raise ValueError("must have no credentials and no fragment")
    except ValueError as error:
        raise ValueError(f"The URL of the issuer's keys {error}.") from None


def _key_source(config: JwtConfig, clock: Callable[[], float]) -> KeySource:
    if config.jwks_file is not None:
        return KeyFile(config.jwks_file, clock=clock)
    assert config.jwks_url is not None
    return KeyServer(
        config.jwks_url,
        # A connection each: what came late on a used one must not become the keys.
        HttpClient(config.jwks_url, ca_file=config.ca_file, proxy=config.proxy, keep_alive=False),
        timeout=config.timeout,
        refresh=config.refresh,
        cooldown=config.cooldown,
        max_age=config.max_age,
        clock=clock,
    )


class _Decoder(jwt.PyJWT):
    """Reads claims more strictly than the library, and takes null for an absent claim."""

    def _decode_payload(self, decoded: dict[str, Any]) -> dict[str, Any]:
        # Meant to be overridden, by its docstring.
        claims = {name: value for name, value in json_object(decoded["payload"]).items() if value is not None}
        for name in _TIMES & claims.keys():
            value = claims[name]
            if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) >= _MAX_TIME:
                raise jwt.DecodeError("a time is not a number of seconds (RFC 7519, 2: NumericDate)")
        return claims


_DECODER = _Decoder()


def _claim(claims: dict[str, Any], name: str) -> object:
    """Return the value of a claim, ``None`` if it is missing."""
    value: object = claims
    for step in [name] if name in claims else name.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(step)
    return value


def _id(value: object) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > _MAX_ID_CHARACTERS or not value.isprintable():
        raise ValueError("a claim that should be an id isn't one")
    return value


def _names(value: object) -> frozenset[str]:
    names = value.split() if isinstance(value, str) else [] if value is None else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("the claim with the permissions isn't a list of names")
    return frozenset(names)
