"""Runs and results of several replicas, which share a Redis."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.idempotency.pending_writes import PendingWrites, RunOutcome
from agenta_ai_server.idempotency.store import Claim, Failed, Finished, Following, Leading, Outcome, StoreState, reused
from agenta_ai_server.redis.client import RedisFailed, Script, ScriptCall, unexpected_answer

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from agenta_ai_server.redis.client import RedisClient

# For how many seconds one claim of a follower counts as waiting.
FOLLOWER_SECONDS = 2.0
# For how many seconds the end of a run is told to those who waited for it. They look four times a second.
ENDING_SECONDS = 5.0
# Leases that are renewed in one round trip.
BATCH = 200

# The three keys of an id. What it stands for, and its run's token or its result; that somebody waits for its run; and,
# for each run, how it ended, unless that is its result: "+" and a result that isn't kept, "!" failed, "-" released.
CLAIM = Script("""
local id, follower, ending = KEYS[1], KEYS[2], KEYS[3]
local fingerprint, token, lease_ms, waited, follower_ms = unpack(ARGV)
local known = redis.call('HMGET', id, 'fingerprint', 'token')
if waited ~= '' and known[2] ~= waited then
  local ended = redis.call('GET', ending)
  if ended and ended ~= '-' then
    return {'ended', ended}
  end
end
if not known[1] then
  redis.call('HSET', id, 'fingerprint', fingerprint, 'token', token)
  redis.call('PEXPIRE', id, lease_ms)
  return {'leading'}
end
if known[1] ~= fingerprint then
  return {'reused'}
end
if known[2] == token then
  redis.call('PEXPIRE', id, lease_ms)
  return {'leading'}
end
if known[2] then
  redis.call('SET', follower, '', 'PX', follower_ms)
  return {'following', known[2]}
end
return {'finished', redis.call('HGET', id, 'data')}
""")

# Takes a lease that has got lost anew, unless its run has ended: a renewal may arrive after the end that overtook it.
RENEW = Script("""
local id, ending = KEYS[1], KEYS[2]
local fingerprint, token, lease_ms = unpack(ARGV)
local known = redis.call('HMGET', id, 'fingerprint', 'token')
if not known[1] and redis.call('EXISTS', ending) == 0 then
  redis.call('HSET', id, 'fingerprint', fingerprint, 'token', token)
elseif known[2] ~= token then
  return 0
end
redis.call('PEXPIRE', id, lease_ms)
return 1
""")

# The first result stays, also when a second run is under way because the first one's lease got lost.
END = Script("""
local id, ending = KEYS[1], KEYS[2]
local fingerprint, token, ended, keep_ms, ending_ms = unpack(ARGV)
local known = redis.call('HMGET', id, 'fingerprint', 'token')
if tonumber(keep_ms) > 0 and (not known[1] or (known[2] and known[1] == fingerprint)) then
  redis.call('DEL', id)
  redis.call('HSET', id, 'fingerprint', fingerprint, 'data', string.sub(ended, 2))
  redis.call('PEXPIRE', id, keep_ms)
  return
end
if tonumber(keep_ms) > 0 and known[1] == fingerprint then
  return
end
if known[2] == token then
  redis.call('DEL', id)
end
redis.call('SET', ending, ended, 'PX', ending_ms)
""")

Answer = TypeVar("Answer")

log = logging.getLogger(__name__)


class RedisStore:
    """A store that replicas share. When it can't be reached, ids can't be claimed.

    A run holds a lease, which is renewed for as long as it lasts. So a replica that dies blocks its ids for no longer
    than the lease. Over all replicas an id is run once, unless a leader dies or stands still for longer than the lease,
    Redis loses what it was told (a restart without persistence, a failover, an eviction), or it fails at the end of the
    run for longer than the lease: then a repeat elsewhere runs it again. A repeat here gets the result, which is told
    again until Redis has it. Redis must not evict keys (``maxmemory-policy noeviction``).

    Args:
        client: The connections. They stay open when this is closed.
        replay_seconds: How long results are kept; 0 keeps none.
        lease_seconds: How long a lease lasts unless it is renewed, which happens every third of it.
        prefix: What the names of all keys begin with.
    """

    def __init__(
        self,
        client: RedisClient,
        *,
        replay_seconds: float = 600,
        lease_seconds: float = 10,
        prefix: str = "agenta-ai:replay:",
    ) -> None:
        self._client = client
        self._keep_ms = _ms(replay_seconds)
        self._lease_seconds = lease_seconds
        self._prefix = prefix
        self._leases: dict[str, RedisLease] = {}
        self._untold = PendingWrites()
        self._renewing: asyncio.Task[None] | None = None
        self._available = True

    @property
    def state(self) -> StoreState:
        """SHARED, or FALLBACK if Redis didn't answer the last question."""
        return StoreState.SHARED if self._available else StoreState.FALLBACK

    async def connect(self) -> None:
        """Begin to renew leases. Asks nothing of Redis, which may come later than this service."""
        self._renewing = asyncio.create_task(self._renew_forever())

    async def aclose(self) -> None:
        """Stop renewing leases. Those that are still held last until they run out."""
        if self._renewing:
            self._renewing.cancel()
            await asyncio.wait({self._renewing})
        await self._tell_again()

    async def probe(self) -> None:
        """Run each script once, on an id of no caller.

        Raises:
            RedisFailed: Redis doesn't answer, or doesn't let us.
        """
        lease = RedisLease(self, f"probe-{uuid4().hex}", b"", uuid4().hex)
        claim_keys = [self.name(lease.key), self.name(lease.key, "follower"), self.name(lease.key, "")]
        claim, renew, end = partial(ScriptCall, CLAIM), partial(ScriptCall, RENEW), partial(ScriptCall, END)
        await self._client.run_all(
            [
                renew(lease.keys, (b"", lease.token, 1000)),
                claim(claim_keys, (b"", "another", 1000, lease.token, 1000)),
                end(lease.keys, (b"", lease.token, b"+", 1000, 1)),
                claim(claim_keys, (b"", "another", 1000, "", 1000)),
                end(lease.keys, (b"", lease.token, b"-", 0, 1)),
            ]
        )
        await self._client.command("PTTL", self.name(lease.key, "follower"))

    async def claim(self, key: str, fingerprint: bytes, waited: str = "") -> Claim:
        """Ask to run an id.

        Raises:
            Refused: REQUEST_ID_REUSED, REPLAY_STORE_UNAVAILABLE. If the time-out has passed the id may be claimed
                nevertheless: the next claim here takes it over, and until then it is free again after the lease.
        """
        if (known := self._untold.result(key)) and known.lease.fingerprint != fingerprint:
            raise reused()
        if known:
            return Finished(known.ended[1:])
        lease = self._untold.take_claim(key, fingerprint) or RedisLease(self, key, fingerprint, uuid4().hex)
        keys = [self.name(key), self.name(key, "follower"), self.name(key, waited)]
        arguments = (fingerprint, lease.token, _ms(self._lease_seconds), waited, _ms(FOLLOWER_SECONDS))
        try:
            answer: list[bytes] = await self._ask(self._client.run(CLAIM, keys, *arguments))
        except (Refused, asyncio.CancelledError):
            self._untold.add(RunOutcome(lease, b"-", 0, time.monotonic() + self._lease_seconds, is_claim=True))
            raise
        match answer:
            case [b"leading"]:
                self._leases[lease.token] = lease
                return Leading(lease)
            case [b"following", other]:
                return Following(other.decode())
            case [b"finished", data]:
                return Finished(data)
            case [b"ended", ended]:
                return Finished(ended[1:]) if ended[:1] == b"+" else Failed()
            case [b"reused"]:
                raise reused()
            case _:
                raise self._unavailable(unexpected_answer())

    def __contains__(self, key: str) -> bool:
        """Say whether the id has a result here that Redis hasn't heard of."""
        return self._untold.result(key) is not None

    def name(self, key: str, part: str = "") -> str:
        """Return the name of one of an id's keys; the braces keep them together in a cluster."""
        return f"{self._prefix}{{{key}}}:{part}"

    async def _ask(self, question: Coroutine[None, None, Answer]) -> Answer:
        try:
            answer = await question
        except RedisFailed as failure:
            raise self._unavailable(failure) from None
        self._note(None)
        return answer

    def _unavailable(self, failure: RedisFailed) -> Refused:
        self._note(failure)
        delay = random.uniform(1, 2)  # noqa: S311  # spread, not secret
        return Refused(
            Reason.REPLAY_STORE_UNAVAILABLE,
            "The idempotency store is unavailable. Retry with the same request_id.",
            retry_delay=delay,
        )

    def _note(self, failure: RedisFailed | None) -> None:
        """Log when the store fails and when it is back, and not each failure in between."""
        if failure and self._available:
            log.error("the idempotency store fails: %s", failure.why)
        elif not failure and not self._available:
            log.info("the idempotency store is back")
        self._available = failure is None

    async def _renew_forever(self) -> None:
        while True:
            # The sooner again if it failed: the leases run out meanwhile.
            await asyncio.sleep(self._lease_seconds / (3 if self._available else 12))
            leases = list(self._leases.values())
            for start in range(0, len(leases), BATCH):
                with suppress(Refused):
                    await self._renew_all(leases[start : start + BATCH])
            await self._tell_again()

    async def _renew_all(self, leases: list[RedisLease]) -> None:
        lease_ms = _ms(self._lease_seconds)
        calls = [ScriptCall(RENEW, lease.keys, (lease.fingerprint, lease.token, lease_ms)) for lease in leases]
        renewed: list[int] = await self._ask(self._client.run_all(calls))
        for lease, held in zip(leases, renewed, strict=True):
            # It may have ended while it was renewed.
            if not held and lease.token in self._leases:
                del self._leases[lease.token]
                log.warning("a lease got lost, and its request_id may run twice")

    async def end(self, lease: RedisLease, ended: bytes, *, keep: bool) -> None:
        """Give a lease back. A failure is logged, and it is tried again for as long as that makes a difference."""
        self._leases.pop(lease.token, None)
        keep_ms = self._keep_ms if keep else 0
        end = RunOutcome(lease, ended, keep_ms, time.monotonic() + max(keep_ms / 1000, self._lease_seconds))
        try:
            await self._tell(end)
        except Refused:
            self._untold.add(end)

    async def _tell(self, end: RunOutcome) -> None:
        lease = end.lease
        arguments = (lease.fingerprint, lease.token, end.ended, end.keep_ms, _ms(ENDING_SECONDS))
        await self._ask(self._client.run(END, lease.keys, *arguments))

    async def _tell_again(self) -> None:
        with suppress(Refused):
            for end in self._untold.current():
                # Told now, it may be heard at any time: nobody may take the claim over any more.
                end.is_claim = False
                await self._tell(end)
                self._untold.remove(end)

    async def followed(self, key: str) -> float:
        """Return for how many seconds more somebody counts as waiting.

        Raises:
            Refused: REPLAY_STORE_UNAVAILABLE.
        """
        left: int = await self._ask(self._client.command("PTTL", self.name(key, "follower")))
        return max(left, 0) / 1000


@dataclass(slots=True, eq=False)
class RedisLease:
    """The right to run an id.

    Attributes:
        in_doubt: Whether Redis couldn't tell, when it was asked last, if somebody waits elsewhere.
    """

    store: RedisStore
    key: str
    fingerprint: bytes
    token: str
    in_doubt: bool = False

    @property
    def keys(self) -> list[str]:
        return [self.store.name(self.key), self.store.name(self.key, self.token)]

    async def complete(self, outcome: Outcome) -> None:
        await self.store.end(self, b"+" + outcome.data, keep=outcome.keep)

    async def fail(self) -> None:
        await self.store.end(self, b"!", keep=False)

    async def release(self) -> None:
        await self.store.end(self, b"-", keep=False)

    async def awaited(self) -> float:
        was_in_doubt, self.in_doubt = self.in_doubt, False
        try:
            return await self.store.followed(self.key)
        except Refused:
            self.in_doubt = True
            # Not for as long as Redis is away: those who wait elsewhere are refused meanwhile.
            return 0 if was_in_doubt else FOLLOWER_SECONDS


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
