"""An answer that isn't understood is a failure of Redis, and never a caller's fault."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from agenta_ai_server.domain.errors import Reason, Refused
from agenta_ai_server.idempotency.ledger import Hold, LedgerFailed, Run
from agenta_ai_server.idempotency.redis import RedisLedger
from agenta_ai_server.idempotency.store import LedgerStore
from agenta_ai_server.limits.limiter import Limit, StoreFailed
from agenta_ai_server.limits.redis import RedisLimiter

if TYPE_CHECKING:
    from agenta_ai_server.redis.client import RedisClient


class Odd:
    """Gives one answer to everything."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def run(self, *_: object) -> Any:
        return self.answer

    async def run_all(self, calls: list[object]) -> list[Any]:
        return [self.answer for _ in calls]


STRANGE: list[Any] = [
    None,
    b"OK",
    [],
    ["claimed"],
    [b"claimed", b"x"],
    [b"finished"],
    [1],
    [b"1", b"2"],
    [None, None],
    7,
    {},
]


@pytest.mark.parametrize("answer", STRANGE, ids=repr)
async def test_a_strange_answer(answer: Any) -> None:
    client = cast("RedisClient", Odd(answer))
    with pytest.raises(Refused) as raised:
        await LedgerStore(RedisLedger(client)).claim("id", b"f")
    assert raised.value.reason is Reason.REPLAY_STORE_UNAVAILABLE
    with pytest.raises(LedgerFailed):
        await RedisLedger(client).hold([Hold(Run("id", b"f", "a"), begun=True)])
    with pytest.raises(StoreFailed):
        await RedisLimiter(client).take("a", Limit(1, 1))
