"""Many callers at once, of whom none is the worse for what the others ask or do, with a real Redis."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING

import pytest

from agenta_ai_server.redis.client import MAX_COMMANDS, MAX_CONNECTIONS, RedisClient, RedisFailed, Script, ScriptCall

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis_server import RedisServer

pytestmark = pytest.mark.needs("redis-server")

ECHO = Script("return ARGV[1]")
# Fails before it writes anything if the key holds no number.
COUNT = Script("return redis.call('INCR', KEYS[1])")
PATIENT = 30


@asynccontextmanager
async def client_of(url: str, timeout: float = PATIENT) -> AsyncIterator[RedisClient]:
    client = RedisClient(url, timeout=timeout)
    try:
        yield client
    finally:
        await client.aclose()


async def until_it_answers(client: RedisClient) -> None:
    """Ask until there is an answer: on a busy machine, Redis itself may be late."""
    async with asyncio.timeout(PATIENT):
        while True:
            with suppress(RedisFailed):
                assert await client.command("PING") == b"PONG"
                break


async def test_no_call_waits_for_those_of_a_crowd(redis: RedisServer) -> None:
    async def is_answered(number: int) -> bool:
        try:
            answer = await client.run(ECHO, [], number)
        except RedisFailed:
            return False
        assert answer == str(number).encode()
        # What the process then does for the call.
        time.sleep(0.001)  # noqa: ASYNC251
        return True

    async with client_of(redis.url, timeout=0.5) as client:
        await until_it_answers(client)
        rounds = answered = 0
        # On a busy machine, Redis itself may be late in some of them.
        while answered < 2 and rounds < 4:
            answered += all(await asyncio.gather(*map(is_answered, range(1500))))
            rounds += 1
        assert answered == 2


@pytest.mark.parametrize("turns", [0, 1, 2])
async def test_the_time_that_this_process_takes_does_not_count(redis: RedisServer, turns: int) -> None:
    async with client_of(redis.url, timeout=0.5) as client:
        for _ in range(3):
            await until_it_answers(client)
            asked = asyncio.create_task(client.command("PING"))
            for _ in range(turns):
                await asyncio.sleep(0)
            time.sleep(0.8)  # noqa: ASYNC251
            with suppress(RedisFailed):  # on a busy machine, Redis itself may be late
                assert await asked == b"PONG"
                break
        else:
            pytest.fail("the time of this process counts")


async def test_what_is_asked_in_one_turn_takes_one_connection(redis: RedisServer) -> None:
    async with client_of(redis.url) as client:
        await asyncio.gather(*(client.command("PING") for _ in range(MAX_COMMANDS)))
        assert redis.do("INFO", "clients")["connected_clients"] == 2  # with the one that asks this


async def test_however_much_is_asked_the_connections_are_few(redis: RedisServer) -> None:
    async def call() -> None:
        for _ in range(20):
            await client.run(ECHO, [], "x" * 10_000)

    async with client_of(redis.url) as client:
        await asyncio.gather(*(call() for _ in range(200)))
        assert redis.do("INFO", "clients")["connected_clients"] <= MAX_CONNECTIONS + 1


async def test_what_waits_for_a_connection_fails_in_time(redis: RedisServer) -> None:
    async with client_of(redis.url, timeout=0.2) as client:
        await until_it_answers(client)
        redis.freeze()
        asked = []
        for _ in range(MAX_CONNECTIONS + 5):
            asked.append(asyncio.create_task(client.command("PING")))
            # So that each has an exchange of its own.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        failures = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(failure, RedisFailed) and failure.timed_out for failure in failures)
        redis.thaw()
        await until_it_answers(client)


async def test_an_error_of_one_command_is_its_own(redis: RedisServer) -> None:
    redis.do("SET", "text", "abc")
    async with client_of(redis.url) as client:
        asked = [client.run(COUNT, ["text" if number % 3 == 0 else "count"]) for number in range(30)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert [answer for answer in answers if not isinstance(answer, RedisFailed)] == list(range(1, 21))
        assert all(isinstance(answer, RedisFailed) for answer in answers[::3])


async def test_what_cannot_be_sent_is_the_error_of_its_caller(redis: RedisServer) -> None:
    async with client_of(redis.url) as client:
        asked = [client.command("GET", "\ud800"), client.command("PING")]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(answers[0], UnicodeEncodeError)
        assert answers[1] == b"PONG"


async def test_each_command_is_run_once_and_the_script_is_brought_to_those_that_lack_it(redis: RedisServer) -> None:
    async with client_of(redis.url) as client:
        await client.run(ECHO, [], "known")
        redis.do("CONFIG", "RESETSTAT")
        calls = [ScriptCall(script, ["count"], ["known"]) for script in (ECHO, COUNT, ECHO, COUNT)]
        answers = await asyncio.gather(client.run_all(calls), client.run(ECHO, [], "known"), client.command("PING"))
        assert answers == [[b"known", 1, b"known", 2], b"known", b"PONG"]
        stats = redis.do("INFO", "commandstats")
        assert [stats[f"cmdstat_{name}"]["calls"] for name in ("evalsha", "eval", "incr", "ping")] == [5, 2, 2, 1]


async def test_scripts_of_one_caller_run_in_their_order(redis: RedisServer) -> None:
    async with client_of(redis.url) as client:
        await client.run(COUNT, ["count"])
        asked = (client.run_all([ScriptCall(COUNT, ["count"], [])] * 10) for _ in range(20))
        answers = await asyncio.gather(*asked)
        assert all(each == sorted(each) for each in answers)
        assert sorted(chain.from_iterable(answers)) == list(range(2, 202))
        assert await client.run_all([]) == []


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
async def test_a_caller_that_leaves_takes_nothing_from_the_others(redis: RedisServer, turns: int) -> None:
    async with client_of(redis.url) as client:
        asked = [asyncio.create_task(client.run(ECHO, [], number)) for number in range(100)]
        for _ in range(turns):
            await asyncio.sleep(0)
        for task in asked[::2]:
            task.cancel()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert all(isinstance(answer, asyncio.CancelledError) for answer in answers[::2])
        assert answers[1::2] == [str(number).encode() for number in range(1, 100, 2)]


async def test_what_nobody_waits_for_any_more_is_not_sent(redis: RedisServer) -> None:
    async with client_of(redis.url) as client:
        await client.command("PING")
        left = asyncio.create_task(client.command("SET", "left", 1))
        kept = asyncio.create_task(client.command("SET", "kept", 1))
        # Both ask in this turn, and are sent at its end.
        asyncio.get_running_loop().call_soon(left.cancel)
        await asyncio.wait([left, kept])
        assert await client.command("EXISTS", "left", "kept") == 1


async def test_what_was_asked_before_the_client_is_closed_is_answered(redis: RedisServer) -> None:
    async with client_of(redis.url) as client:
        for _ in range(2):
            asked = [asyncio.create_task(client.run(ECHO, [], number)) for number in range(50)]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await client.aclose()
            assert await asyncio.gather(*asked) == [str(number).encode() for number in range(50)]
    async with asyncio.timeout(PATIENT):
        while redis.do("INFO", "clients")["connected_clients"] > 1:  # noqa: ASYNC110  # Redis notices it later
            await asyncio.sleep(0.01)


async def test_a_pause_fails_only_what_it_makes_too_late(redis: RedisServer) -> None:
    async with client_of(redis.url, timeout=2) as client:
        await until_it_answers(client)
        redis.freeze()
        late = asyncio.create_task(client.command("PING"))
        for _ in range(15):
            # Time in which this process stands still counts once at most, as it does for the client.
            await asyncio.sleep(0.1)
        timely = asyncio.create_task(client.command("PING"))
        with pytest.raises(RedisFailed) as raised:
            await late
        redis.thaw()
        assert (raised.value.why, raised.value.timed_out) == ("TimeoutError", True)
        assert await timely == b"PONG"
