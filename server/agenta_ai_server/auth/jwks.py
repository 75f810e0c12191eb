"""The public keys of the token issuer: a JSON Web Key Set, from a file or by HTTP."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import jwt

from agenta_ai_server.auth.records import current
from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.domain.single_flight import SingleFlight
from agenta_ai_server.domain.token import json_object
from agenta_ai_server.files.reloading import ReloadingFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agenta_ai_server.agenta.http import HttpClient

# What a key must be for an algorithm: its type, and its curve if there is a choice.
_RSA = frozenset({("RSA", None)})
KINDS = {
    "RS256": _RSA,
    "RS384": _RSA,
    "RS512": _RSA,
    "PS256": _RSA,
    "PS384": _RSA,
    "PS512": _RSA,
    "ES256": frozenset({("EC", "P-256")}),
    "ES384": frozenset({("EC", "P-384")}),
    "ES512": frozenset({("EC", "P-521")}),
    "EdDSA": frozenset({("OKP", "Ed25519"), ("OKP", "Ed448")}),
}
"""The algorithms that there are. All are asymmetric: what verifies a token can't make one."""

_MIN_RSA_BITS = 2048
_MAX_BYTES = 1024 * 1024
_RETRY_SECONDS = 5.0

LONG_OVERDUE = 2
# The only question to the one URL.
URL = "keys"

_log = logging.getLogger(__name__)


class KeySet:
    """Keys, by id and algorithm. Never empty.

    Args:
        document: A JSON Web Key Set. What isn't meant for verifying, or can't be used for it, is left out.

    Raises:
        ValueError: It isn't a key set, or has no usable key.
    """

    def __init__(self, document: bytes) -> None:
        entries = json_object(document).get("keys")
        if not isinstance(entries, list):
            raise ValueError("it isn't a JSON Web Key Set")
        # A member that is null is absent.
        present = [_without_nulls(entry) for entry in entries if isinstance(entry, dict)]
        public = [entry for entry in present if not _is_secret(entry)]
        if len(public) < len(entries):
            _log.warning("ignored %d keys of a key set that are invalid or not public", len(entries) - len(public))
        usable = [keys for entry in public if (keys := _keys(entry))]
        if not usable:
            raise ValueError("it has no public key for a supported algorithm")
        self._only = usable[0] if len(usable) == 1 else {}
        self._by_id: dict[tuple[str, str], jwt.PyJWK] = {}
        for keys in usable:
            for algorithm, key in keys.items():
                if isinstance(key.key_id, str):
                    self._by_id.setdefault((key.key_id, algorithm), key)

    def find(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        """Return the key, which fits the algorithm. Without an id, it is the only one that there is."""
        return self._only.get(algorithm) if key_id is None else self._by_id.get((key_id, algorithm))


class KeySource(Protocol):
    """A source of keys."""

    async def start(self) -> None:
        """Fetch the keys. A failure is logged, and they are fetched again when they are needed."""

    async def find(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        """Return the key for the id, ``None`` for the only one, if there is one, and if it fits the algorithm.

        Raises:
            Refused: AUTHORITY_UNAVAILABLE, because there are no keys.
        """

    async def find_newer(self, key_id: str | None, algorithm: str, *, than: jwt.PyJWK) -> jwt.PyJWK | None:
        """Return the key that has taken the place of one that didn't fit a signature; ``None`` if none has.

        Raises:
            Refused: As :meth:`find`.
        """

    async def aclose(self) -> None:
        """Close what was opened."""


class KeyFile:
    """Keys from a file, which is reloaded when it changes.

    Raises:
        ValueError: It can't be read or used.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = ReloadingFile(path, KeySet, clock=clock)

    async def start(self) -> None:
        """Do nothing: the file has been read."""

    async def find(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        """Return the key as every :class:`KeySource` does."""
        return current(self._file).find(key_id, algorithm)

    async def find_newer(self, key_id: str | None, algorithm: str, *, than: jwt.PyJWK) -> jwt.PyJWK | None:
        """Return the key as every :class:`KeySource` does."""
        key = await self.find(key_id, algorithm)
        return None if key is than else key

    async def aclose(self) -> None:
        """Do nothing: the file isn't open."""


class KeyServer:
    """Keys by HTTP.

    Args:
        url: Where they are.
        http: Asks for them; closed with this.
        timeout: Seconds that a request may take in all.
        refresh: Seconds after which they are fetched again. Until then, and while that fails, the old ones are used; a
            caller waits for the answer only if nothing has been asked for twice as long.
        cooldown: Seconds between two questions at least, however many tokens name keys that aren't known. As long as
            there are no keys at all, it is no more than 5.
        max_age: Seconds after which keys that couldn't be renewed aren't used any more.
        clock: Monotonic clock, in seconds.

    Raises:
        ValueError: The URL can't be used. The sentence doesn't repeat it.
    """

    def __init__(
        self,
        url: str,
        http: HttpClient,
        *,
        timeout: float = 5,
        refresh: float = 600,
        cooldown: float = 60,
        max_age: float = 86400,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._timeout = timeout
        self._http = http
        self._refresh = refresh
        self._cooldown = cooldown
        self._max_age = max_age
        self._clock = clock
        self._keys: KeySet | None = None
        self._renewed = 0.0
        # When the last fetch ended, successful or not.
        self._asked = -math.inf
        self._may_ask = clock()
        self._asking: SingleFlight[str, None] = SingleFlight()

    async def start(self) -> None:
        """Fetch the keys for the first time."""
        await self._ask()

    async def find(self, key_id: str | None, algorithm: str) -> jwt.PyJWK | None:
        """Return the key as every :class:`KeySource` does."""
        keys = self._current() or await self._ask()
        if keys is None:
            delay = max(self._may_ask - self._clock(), 1.0)
            message = "The keys for checking tokens are unavailable. Try again."
            raise Refused(Reason.AUTHORITY_UNAVAILABLE, message, retry_delay=delay)
        now = self._clock()
        if now - max(self._renewed, self._asked) >= LONG_OVERDUE * self._refresh:
            # There were no calls for a while, and a key may have been withdrawn meanwhile.
            keys = await self._ask() or keys
        elif now - self._renewed >= self._refresh:
            self._begin()
        key = keys.find(key_id, algorithm)
        if key is None and (keys := await self._ask()):
            key = keys.find(key_id, algorithm)
        return key

    async def find_newer(self, key_id: str | None, algorithm: str, *, than: jwt.PyJWK) -> jwt.PyJWK | None:
        """Return the key as every :class:`KeySource` does, asking the issuer no more often than for unknown keys."""
        keys = await self._ask()
        key = keys.find(key_id, algorithm) if keys else None
        return None if key is than else key

    async def aclose(self) -> None:
        """Stop fetching."""
        await self._asking.aclose()
        await self._http.aclose()

    def _current(self) -> KeySet | None:
        return self._keys if self._clock() - self._renewed < self._max_age else None

    async def _ask(self) -> KeySet | None:
        """Fetch the keys if it is time to, or join a running fetch; return the usable keys."""
        if self._begin():
            await self._asking.run(URL, self._renew)
        return self._current()

    def _begin(self) -> bool:
        """Fetch the keys if it is time to, and return whether a fetch is running."""
        if URL not in self._asking and self._clock() >= self._may_ask:
            self._may_ask = self._clock() + self._cooldown
            self._asking.start(URL, self._renew)
        return URL in self._asking

    async def _renew(self) -> None:
        now = self._clock()
        try:
            self._keys = KeySet(await fetch_key_set(self._http, self._url, self._timeout))
        except (httpx.TransportError, ValueError) as error:
            # Without its query, which may hold a key of its own.
            _log.warning("can't get the keys for tokens from %s: %s", self._url.partition("?")[0], error)
            if self._current() is None:
                self._may_ask = now + min(self._cooldown, _RETRY_SECONDS)
        else:
            self._renewed = now
        finally:
            self._asked = self._clock()


async def fetch_key_set(http: HttpClient, url: str, timeout: float) -> bytes:
    """Return the document at the URL, at most 1 MiB.

    Raises:
        httpx.TransportError: No response came. The text says why, and quotes nothing of it.
        ValueError: It isn't a 200, or too large.
    """
    response = await http.send("GET", url, seconds=timeout, max_body_bytes=_MAX_BYTES)
    if response.status != httpx.codes.OK:
        raise ValueError(f"HTTP {response.status}")
    if response.body is None:
        raise ValueError("the response has more than 1 MiB")
    return response.body


def _without_nulls(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if value is not None}


def _is_secret(entry: dict[str, Any]) -> bool:
    return entry.get("kty") == "oct" or "d" in entry or "k" in entry


def _keys(entry: dict[str, Any]) -> dict[str, jwt.PyJWK]:
    """Return the key for each algorithm that it can and may be used with."""
    try:
        if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ["verify"]):
            return {}
        kind = entry.get("kty"), None if entry.get("kty") == "RSA" else entry.get("crv")
        fitting = [name for name in KINDS if kind in KINDS[name] and entry.get("alg", name) == name]
        keys = {name: jwt.PyJWK(entry, name) for name in fitting}
    except (jwt.PyJWTError, ValueError, TypeError):
        # Its text holds the key.
        return {}
    return {name: key for name, key in keys.items() if kind not in _RSA or key.key.key_size >= _MIN_RSA_BITS}
