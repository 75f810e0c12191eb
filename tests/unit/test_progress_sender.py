"""What of a call's progress is sent, and when."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from concurrency.virtual_time import virtual_time

from agenta_ai_server.domain.progress import Progress, Stage
from agenta_ai_server.rpc.progress import ProgressSender


class Caller:
    """Takes messages, each for as long as ``reading`` is not set."""

    def __init__(self) -> None:
        self.messages: list[tuple[float, str]] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.gone = False
        self.sender = ProgressSender(lambda progress: progress.text.encode(), self.take)

    async def take(self, message: bytes) -> None:
        await self.reading.wait()
        if self.gone:
            raise RuntimeError("RPC already finished.")
        self.messages.append((asyncio.get_running_loop().time(), message.decode()))

    def report(self, text: str) -> None:
        self.sender.report(Progress(Stage.RUNNING_CASES, text))

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.messages]


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@virtual_time
async def test_the_first_is_sent_at_once_and_then_the_latest_ten_times_a_second() -> None:
    caller = Caller()
    for number in range(1000):
        caller.report(str(number))
        await asyncio.sleep(0.01)
    await asyncio.sleep(1)
    times = [time for time, _ in caller.messages]
    assert times[0] == 0
    assert all(0.0999 < later - earlier < 0.12 for earlier, later in pairwise(times))
    assert caller.texts[0] == "0"
    assert caller.texts[-1] == "999"
    # Nothing is kept running for what may come.
    assert len(asyncio.all_tasks()) == 1
    caller.report("late")
    await settled()
    assert caller.texts[-1] == "late"
    await caller.sender.stop()


@virtual_time
async def test_a_caller_that_reads_slowly_gets_the_latest() -> None:
    caller = Caller()
    caller.reading.clear()
    for number in range(100):
        caller.report(str(number))
        await asyncio.sleep(1)
    caller.reading.set()
    await asyncio.sleep(1)
    assert caller.texts == ["0", "99"]
    await caller.sender.stop()


@virtual_time
async def test_the_result_waits_for_the_message_that_is_under_way_and_for_no_other() -> None:
    caller = Caller()
    caller.reading.clear()
    caller.report("first")
    caller.report("second")
    stopping = asyncio.create_task(caller.sender.stop())
    await settled()
    assert not stopping.done(), "grpc takes one message at a time"
    caller.reading.set()
    await stopping
    caller.report("third")
    await asyncio.sleep(1)
    assert caller.texts == ["first"]


@virtual_time
async def test_a_caller_that_has_left_is_sent_nothing_more() -> None:
    caller = Caller()
    caller.report("first")
    await settled()
    caller.gone = True
    caller.report("second")
    await asyncio.sleep(1)
    caller.gone = False
    caller.report("third")
    await asyncio.sleep(1)
    assert caller.texts == ["first"]
