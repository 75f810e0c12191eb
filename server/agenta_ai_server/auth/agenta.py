"""Authenticates callers with an Agenta credential: Agenta names the owner and the permissions."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import time
import uuid
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakValueDictionary

from cachetools import TLRUCache, TTLCache

from agenta_ai_server.agenta.addresses import AgentaAddress
from agenta_ai_server.agenta.http import HttpClient, TransportError
from agenta_ai_server.agenta.permissions import Denial, Grant, PermissionChecks
from agenta_ai_server.auth.authenticator import invalid
from agenta_ai_server.auth.key_file import contains_own_key
from agenta_ai_server.domain.call import Principal
from agenta_ai_server.domain.digest import digest
from agenta_ai_server.domain.errors import Reason, Refused, Violation
from agenta_ai_server.domain.gcra import MICROSECONDS, Buckets
from agenta_ai_server.domain.single_flight import SingleFlight

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping
    from pathlib import Path

    from agenta_ai_server.auth.authenticator import Credentials

SCHEMES = frozenset({"ApiKey", "Bearer", "Secret"})
"""What Agenta knows, in its spelling."""

_RETRY_SECONDS = 1.0
# How long a credential that was approved counts as known.
_APPROVED_SECONDS = 3600.0
_SECRET = re.compile(r"[!-~]{1,8192}")
_NOBODY = Principal(user="", method="agenta")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentaAuthConfig:
    """The address of Agenta, and the bounds on checks.

    Attributes:
        api_url: An http or https URL, with or without ``/api``, ``/services`` or a slash at its end.
        permissions: Names of all permissions that the tools in use need; each is a question for each credential.
        allow: Ids of the organizations, projects and workspaces whose members are admitted, or ``*``. Agenta answers
            for the project of the caller's own credential, whatever organization that is in.
        names: What Agenta calls a permission, where that differs.
        allow_seconds: How long an answer is used that permits everything that was asked.
        deny_seconds: How long one is used that doesn't.
        max_entries: Consents that are kept, at most, and as many refusals.
        max_checks: Credentials that Agenta is asked about at the same time, at most. One address gets a quarter of it.
            Another quarter is for credentials that were approved within the last hour.
        futile_burst: Questions to which Agenta grants nothing that may come from one address at once. One credential
            gets half of it.
        futile_per_second: How many of them may come in the long run, likewise.
        timeout: Seconds that a credential may wait for the answers, in all.
        ca_file: Certificates of the authorities to trust, as PEM, in place of the public ones.
        proxy: URL of an HTTP proxy, maybe with credentials. Never shown.

    Raises:
        ValueError: A value can't be used; the sentence says which and why.
    """

    api_url: str
    permissions: frozenset[str]
    allow: frozenset[str]
    names: Mapping[str, str] = field(default_factory=dict)
    allow_seconds: float = 60.0
    deny_seconds: float = 10.0
    max_entries: int = 10_000
    max_checks: int = 32
    futile_burst: int = 20
    futile_per_second: float = 1.0
    timeout: float = 5.0
    ca_file: Path | None = None
    proxy: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        AgentaAddress.parse(self.api_url)
        if not self.permissions:
            raise ValueError("Agenta can only check permissions: name at least one.")
        if not self.allow:
            raise ValueError("List who may call: ids of organizations, projects or workspaces, or *.")
        if min(self.max_entries, self.max_checks, self.futile_burst) < 1 or self.futile_per_second <= 0:
            raise ValueError("The bounds on checks by Agenta must be at least 1.")


class _Failed(Enum):
    """The ways to learn nothing from Agenta."""

    UNUSABLE = auto()
    UNANSWERED = auto()


_Answer: TypeAlias = Grant | Denial | _Failed
# Created for each caller: an exception that several callers raise would collect all their tracebacks.
_Outcome: TypeAlias = Principal | Callable[[], Refused]


class AgentaAuthenticator:
    """An :class:`~agenta_ai_server.auth.authenticator.Authenticator` that asks Agenta, with the caller's credential.

    It belongs to the event loop of its first call.

    Args:
        config: The address of Agenta, and the bounds on checks.
        clock: Monotonic clock, in seconds.

    Raises:
        ValueError: The proxy is no URL of an HTTP proxy.
        OSError: The file of certificates can't be read, or holds none.
    """

    def __init__(self, config: AgentaAuthConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._permissions = config.permissions
        self._clock = clock
        self._address = AgentaAddress.parse(config.api_url)
        self._http = HttpClient(self._address.root, ca_file=config.ca_file, proxy=config.proxy, keep_alive=False)
        self._checks = PermissionChecks(self._http, self._address, config.timeout)
        self._places = asyncio.Semaphore(config.max_checks)
        self._places_of_unknown = asyncio.Semaphore(config.max_checks - config.max_checks // 4)
        self._shares: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        burst, per_second = config.futile_burst, config.futile_per_second
        self._by_address = _Budget(burst, per_second, config.max_entries, clock)
        # Half: one credential alone must not shut out the others of its address.
        self._by_credential = _Budget(max(burst // 2, 1), per_second / 2, config.max_entries, clock)
        self._asking: SingleFlight[tuple[bytes, frozenset[str]], _Outcome] = SingleFlight()
        # Kept apart, so that many refusals can't evict the consents of other callers.
        self._consents = _Memory(config.max_entries, clock)
        self._refusals = _Memory(config.max_entries, clock)
        # Credentials that were approved not long ago. Those of others mustn't keep them from being checked again.
        self._approved: TTLCache[bytes, None] = TTLCache(config.max_entries, _APPROVED_SECONDS, clock)
        self._is_available = True

    def ask_about(self, permissions: frozenset[str]) -> None:
        """Check these permissions from now on. Cached answers about others are discarded."""
        if permissions != self._permissions:
            self._permissions = permissions
            self._consents = _Memory(self._config.max_entries, self._clock)
            self._refusals = _Memory(self._config.max_entries, self._clock)

    def accepts(self, credentials: Credentials) -> bool:
        """Return whether this is a credential that Agenta could know, and none of this service's own keys."""
        return credentials.scheme in SCHEMES and not contains_own_key(credentials.secret)

    async def authenticate(self, credentials: Credentials) -> Principal:
        """Return the caller, with the permissions that Agenta grants; without ids if it grants none.

        A caller outside the organizations, projects and workspaces that are allowed has no permissions here, and so
        gets the same answer as one to whom Agenta grants none. Its ids are for the audit log.

        Raises:
            Refused: As every authenticator does; also AUTHORITY_UNAVAILABLE if Agenta granted nothing too often to the
                same address or credential; REQUEST_INVALID if the project isn't named by a UUID.
        """
        if not self.accepts(credentials) or not _SECRET.fullmatch(credentials.secret):
            raise invalid()
        credentials = replace(credentials, project=_project(credentials.project))
        outcome = await self._outcome(credentials)
        if isinstance(outcome, Principal):
            return outcome
        raise outcome()

    async def aclose(self) -> None:
        """Close all connections. Callers that wait for an answer are cancelled."""
        await self._asking.aclose()
        await self._http.aclose()

    async def _outcome(self, credentials: Credentials) -> _Outcome:
        """Return the cached answer, or check the credentials, or join a running check."""
        key = _key(credentials)
        known = self._consents.get(key) or self._refusals.get(key)
        if known is not None:
            return known
        asked = self._permissions
        return await self._asking.run((key, asked), lambda: self._ask(key, credentials, asked))

    async def _ask(self, key: bytes, credentials: Credentials, asked: frozenset[str]) -> _Outcome:
        network, who = _network(credentials.host), _key(replace(credentials, project=""))
        is_approved = key in self._approved
        # Here, too, so that nobody waits for a place only to be refused.
        if delay := self._delay(network, who, is_approved=is_approved):
            return partial(_too_much, delay)
        on_time_out: _Outcome = _busy
        try:
            async with asyncio.timeout(self._config.timeout), self._place(network, is_approved=is_approved):
                if delay := self._delay(network, who, is_approved=is_approved):
                    return partial(_too_much, delay)
                on_time_out = _unavailable
                # Before they are asked: what they say is at least as old.
                now = self._clock()
                permissions = sorted(asked)
                answers = await asyncio.gather(*(self._check(permission, credentials) for permission in permissions))
        except TimeoutError:
            if on_time_out is _unavailable:
                self._note("no answer came in time")
            self._keep(key, self._clock(), on_time_out, asked)
            return on_time_out
        outcome = self._restricted(_combined(dict(zip(permissions, answers, strict=True))))
        if _is_futile(outcome, answers, credentials.project):
            self._by_address.spend(network)
            self._by_credential.spend(who)
        if outcome is not _unavailable:
            self._note("")
        self._keep(key, now, outcome, asked)
        return outcome

    def _delay(self, network: str, who: bytes, *, is_approved: bool) -> float:
        """Return the seconds until a credential may be asked about; 0 for now."""
        return max(0 if is_approved else self._by_address.delay(network), self._by_credential.delay(who))

    @asynccontextmanager
    async def _place(self, network: str, *, is_approved: bool) -> AsyncIterator[None]:
        """Wait for a place among the checks. Unknown credentials leave some of them to those that were approved."""
        if is_approved:
            async with self._places:
                yield
            return
        share = self._shares.setdefault(network, asyncio.Semaphore(max(self._config.max_checks // 4, 1)))
        async with share, self._places_of_unknown, self._places:
            yield

    def _restricted(self, outcome: _Outcome) -> _Outcome:
        if not isinstance(outcome, Principal) or "*" in self._config.allow:
            return outcome
        ids = {outcome.organization, outcome.workspace, outcome.project}
        return replace(outcome, permissions=frozenset()) if ids.isdisjoint(self._config.allow) else outcome

    async def _check(self, permission: str, credentials: Credentials) -> _Answer:
        """Ask about one permission."""
        authorization = f"{credentials.scheme} {credentials.secret}"
        action = self._config.names.get(permission, permission)
        try:
            return await self._checks.ask(authorization, action, credentials.project)
        except TransportError as error:
            self._note(str(error))
            return _Failed.UNANSWERED
        except ValueError as error:
            self._note(str(error))
            return _Failed.UNUSABLE

    def _keep(self, key: bytes, now: float, outcome: _Outcome, asked: frozenset[str]) -> None:
        """Cache the outcome; failures for the retry delay that callers get."""
        if asked != self._permissions:
            # The tools have changed meanwhile.
            return
        if outcome in (_unavailable, _busy):
            # From now on, because it may have taken longer than that to fail.
            self._refusals.keep(key, self._clock() + _RETRY_SECONDS, outcome)
        elif not isinstance(outcome, Principal) or not outcome.permissions:
            self._refusals.keep(key, now + self._config.deny_seconds, outcome)
        else:
            is_all = outcome.permissions == asked
            seconds = self._config.allow_seconds if is_all else self._config.deny_seconds
            self._consents.keep(key, now + seconds, outcome)
            self._approved[key] = None

    def _note(self, problem: str) -> None:
        """Log when Agenta begins to fail and when it recovers, but not each failure."""
        if problem and self._is_available:
            _log.warning("can't check credentials with Agenta at %s: %s", self._address.root, problem)
        elif not problem and not self._is_available:
            _log.info("credentials can be checked with Agenta at %s again", self._address.root)
        self._is_available = not problem


class _Memory:
    """Remembers outcomes, each for its time; the least recently used is forgotten first."""

    def __init__(self, max_entries: int, clock: Callable[[], float]) -> None:
        self._entries: TLRUCache[bytes, tuple[float, _Outcome]] = TLRUCache(
            max_entries, lambda _key, entry, _now: entry[0], clock
        )

    def get(self, key: bytes) -> _Outcome | None:
        entry = self._entries.get(key)
        return entry[1] if entry else None

    def keep(self, key: bytes, until: float, outcome: _Outcome) -> None:
        self._entries[key] = until, outcome


class _Budget:
    """Counts futile checks, with a bucket for each address or credential."""

    def __init__(self, burst: int, per_second: float, max_buckets: int, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._interval = round(MICROSECONDS / per_second)
        self._buckets: Buckets[str | bytes] = Buckets(max_buckets, clock)

    def delay(self, who: str | bytes) -> float:
        """Return the seconds until the bucket has something again; 0 if it has."""
        return self._buckets.delay(who, self._interval, self._burst)

    def spend(self, who: str | bytes) -> None:
        """Take from the bucket, also if it is empty."""
        self._buckets.charge(who, self._interval)


def _project(project: str) -> str:
    """Return the project's id in its usual form; none for none."""
    if not project:
        return ""
    try:
        return str(uuid.UUID(project))
    except ValueError:
        message = "The metadata x-agenta-project-id must be a UUID. Correct it, or leave it out."
        violation = Violation("x-agenta-project-id", "must be a UUID")
        raise Refused(Reason.REQUEST_INVALID, message, violations=[violation]) from None


def _key(credentials: Credentials) -> bytes:
    """Return the cache key of the credentials: their hash, because they are secret and may be long."""
    return digest(credentials.scheme, credentials.secret, credentials.project, size=32)


def _network(host: str) -> str:
    """Return the part of an address that a caller can't change: each IPv6 user has a whole network of addresses."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address) or address.ipv4_mapped:
        return host
    return str(ipaddress.IPv6Network((address, 64), strict=False))


def _combined(answers: Mapping[str, _Answer]) -> _Outcome:
    """Combine the answers, by permission. If they contradict each other, none is trusted."""
    if Denial.UNKNOWN_CREDENTIAL in answers.values():
        return invalid
    grants = {answer for answer in answers.values() if isinstance(answer, Grant)}
    if any(isinstance(answer, _Failed) for answer in answers.values()) or len(grants) > 1:
        return _unavailable
    if not grants:
        return _NOBODY
    grant = grants.pop()
    return Principal(
        user=grant.user,
        project=grant.project,
        workspace=grant.workspace,
        organization=grant.organization,
        permissions=frozenset(name for name, answer in answers.items() if answer is not Denial.FORBIDDEN),
        method="agenta",
    )


def _is_futile(outcome: _Outcome, answers: Collection[_Answer], project: str) -> bool:
    """Return whether a check was futile, so that it counts against the caller's address and credential."""
    if isinstance(outcome, Principal):
        # Projects can be made up. Without one, this is the only question about a credential that Agenta knows.
        return outcome == _NOBODY and project != ""
    return outcome is invalid or _Failed.UNANSWERED not in answers


def _unavailable() -> Refused:
    message = "The credentials can't be checked now, because Agenta can't be reached. Try again."
    return Refused(Reason.AUTHORITY_UNAVAILABLE, message, retry_delay=_RETRY_SECONDS)


def _busy() -> Refused:
    message = "The credentials can't be checked now, because too many others are being checked. Try again."
    return Refused(Reason.AUTHORITY_UNAVAILABLE, message, retry_delay=_RETRY_SECONDS)


def _too_much(delay: float) -> Refused:
    message = (
        "Too many failed credential checks from this address or with these credentials. "
        "Check the credentials and x-agenta-project-id, and try again later."
    )
    return Refused(Reason.AUTHORITY_UNAVAILABLE, message, retry_delay=delay)
