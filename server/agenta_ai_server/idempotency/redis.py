"""A ledger in Redis or Valkey, which replicas share."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from agenta_ai_server.idempotency.ledger import (
    ENDING_SECONDS,
    FOLLOWER_SECONDS,
    ClaimAnswer,
    Claimed,
    Ending,
    EndKind,
    Finished,
    Following,
    Hold,
    LedgerFailed,
    Lost,
    Reused,
    Run,
)
from agenta_ai_server.redis.client import RedisFailed, Script, ScriptCall, unexpected_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agenta_ai_server.redis.client import RedisClient

FOLDER = Path(__file__).with_name("lua")
CLAIM, HOLD, END = (Script((FOLDER / f"{name}.lua").read_text()) for name in ("claim", "hold", "end"))
# Runs that are held in one round trip.
BATCH = 200


class RedisLedger:
    """A ledger that replicas share.

    It promises what Redis does: an id that Redis forgets, by a restart without persistence, an eviction, or a failover
    to a replica that hadn't heard of it, may be billed twice.

    Args:
        client: The connections. They stay open when this is closed.
        ttl: Seconds for which an id is remembered after its run; 0 forgets it at once.
        lease: Seconds after which a run that isn't held again counts as dead.
        prefix: What the keys begin with.
    """

    def __init__(
        self, client: RedisClient, ttl: float = 600, *, lease: float = 10, prefix: str = "agenta-ai:call:"
    ) -> None:
        self._client = client
        self._ttl_ms = _ms(ttl)
        self._lease_ms = _ms(lease)
        self._prefix = prefix

    @property
    def is_shared(self) -> bool:
        """Always true."""
        return True

    async def open(self) -> None:
        """Do nothing: Redis may come later than this service."""

    async def aclose(self) -> None:
        """Do nothing: the client belongs to others too."""

    async def probe(self) -> None:
        """Run each script, with each of its commands, on an id of no caller.

        Raises:
            RedisFailed: Redis doesn't answer, or doesn't permit it.
        """
        short = RedisLedger(self._client, 0.1, lease=0.1, prefix=self._prefix)
        key = f"probe-{uuid4().hex}"
        one, two = Run(key, b"", "one"), Run(key, b"", "two")
        claim, end = partial(short._claim, waited="", rerun=False), short._end
        calls = [claim(one), claim(two), short._hold(Hold(one, begun=True)), end(one, Ending(EndKind.KEPT, b"+"))]
        calls += [short._claim(two, waited="one", rerun=False), end(two, Ending(EndKind.RELEASED))]
        answers = await self._client.run_all(calls)
        if answers[:2] != [[b"claimed"], [b"following", b"one"]] or answers[4] != [b"finished", b"+"]:
            raise unexpected_answer()
        await self._client.command("PTTL", self._name(key, "followers"))

    async def claim(self, run: Run, *, waited: str = "", rerun: bool = False) -> ClaimAnswer:
        """Claim an id; see :meth:`Ledger.claim`."""
        match await self._run(self._claim(run, waited, rerun)):
            case [b"claimed"]:
                return Claimed()
            case [b"following", bytes(token)]:
                return Following(token.decode(errors="replace"))
            case [b"finished", bytes(data)]:
                return Finished(data)
            case [b"lost"]:
                return Lost()
            case [b"reused"]:
                return Reused()
            case _:
                raise LedgerFailed(unexpected_answer().why)

    async def hold(self, holds: Sequence[Hold]) -> list[bool]:
        """Renew leases; see :meth:`Ledger.hold`."""
        held: list[object] = []
        for start in range(0, len(holds), BATCH):
            held += await self._run_all([self._hold(hold) for hold in holds[start : start + BATCH]])
        if any(answer not in (0, 1) for answer in held):
            raise LedgerFailed(unexpected_answer().why)
        return [answer == 1 for answer in held]

    async def end(self, run: Run, ending: Ending) -> None:
        """Record how a run ended; see :meth:`Ledger.end`."""
        await self._run(self._end(run, ending))

    async def followed(self, key: str) -> float:
        """Return for how many more seconds a claimant counts as waiting; see :meth:`Ledger.followed`."""
        try:
            left = await self._client.command("PTTL", self._name(key, "followers"))
        except RedisFailed as failure:
            raise LedgerFailed(failure.why) from None
        return max(left, 0) / 1000 if isinstance(left, int) else 0.0

    def _claim(self, run: Run, waited: str, rerun: bool) -> ScriptCall:
        keys = [self._name(run.key, part) for part in ("", "lease", "followers", f"ended:{waited}")]
        arguments = (self._lease_ms, self._ttl_ms, waited, _ms(FOLLOWER_SECONDS), int(rerun))
        return ScriptCall(CLAIM, keys, (run.fingerprint, run.token, *arguments))

    def _hold(self, hold: Hold) -> ScriptCall:
        run, begun = hold
        arguments = (run.fingerprint, run.token, self._lease_ms, self._ttl_ms, int(begun))
        return ScriptCall(HOLD, self._run_keys(run), arguments)

    def _end(self, run: Run, ending: Ending) -> ScriptCall:
        arguments = (ending.kind, ending.data or b"", self._ttl_ms, _ms(ENDING_SECONDS))
        return ScriptCall(END, self._run_keys(run), (run.fingerprint, run.token, *arguments))

    def _run_keys(self, run: Run) -> list[str]:
        return [self._name(run.key, part) for part in ("", "lease", f"ended:{run.token}")]

    def _name(self, key: str, part: str) -> str:
        """Return the name of one of an id's keys; the braces keep them together in a cluster."""
        return f"{self._prefix}{{{key}}}:{part}"

    async def _run(self, call: ScriptCall) -> object:
        [answer] = await self._run_all([call])
        return answer

    async def _run_all(self, calls: list[ScriptCall]) -> list[object]:
        try:
            return await self._client.run_all(calls)
        except RedisFailed as failure:
            raise LedgerFailed(failure.why) from None


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
